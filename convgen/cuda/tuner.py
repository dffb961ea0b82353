"""The tuner for GPUs: the configurations of all strategies, the most promising first, verified and measured on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from convgen.choices import TunedPlan
from convgen.cuda.device import Device, device_numbered, gpu_of_device, is_out_of_memory
from convgen.cuda.kernels import CudaConv
from convgen.cuda.libraries.interface import DeviceArray
from convgen.cuda.measure import Clock
from convgen.cuda.plans import algorithms_of_cuda_plan, plan_cuda
from convgen.cuda.questions import Question, integer_question
from convgen.cuda.results import known_result, store_result
from convgen.driver import Plan, check_budget
from convgen.errors import CompileError, DeviceError, NotApplicable, VerificationError
from convgen.gpu import Gpu
from convgen.spec import ConvSpec
from convgen.strategies.accuracy import accuracy_limit
from convgen.strategies.cuda.registry import gpu_applicable
from convgen.transforms.split import Algorithms
from convgen.tuning.record import Candidate
from convgen.tuning.search import Choice, Search
from convgen.verify import Comparison, Operands, compare_bounded, normal_operands

# Of the budget, the part for the search; the rest is for measuring the best side by side.
_SEARCH_SHARE = 0.8
# Candidates at most so many times slower than the fastest are measured once more, with the heuristic's choice.
_FINALISTS = 1.1
# Of two candidates closer than this, the one that was tried first is taken.
_TIE = 0.01
_ERROR_BATCH = 2
_QUICK_SECONDS = 0.05
_FINAL_SECONDS = 0.3


class Bench(Protocol):
    """What the search asks of a device."""

    def flaw(self, op: CudaConv) -> str:
        """What is wrong with the operator's numbers on integers; empty if they are the oracle's."""

    def seconds(self, ops: Sequence[CudaConv], budget: float) -> tuple[float, ...]:
        """What a call of each takes, measured side by side."""

    def comparison(self, op: CudaConv) -> Comparison:
        """The operator's numbers on normally distributed ones against the oracle's."""


class DeviceBench:
    """The bench of a real device: operands are copied there once for a problem."""

    def __init__(self, spec: ConvSpec, device: Device) -> None:
        self._spec = spec
        self._device = device
        self._clock = Clock(device)
        self._questions: dict[Algorithms, tuple[Question, list[DeviceArray], dict[str, DeviceArray]]] = {}

    def flaw(self, op: CudaConv) -> str:
        question, main, epilogue = self._asked(op)
        return question.flaw(op(*main, **epilogue).to_host())

    def seconds(self, ops: Sequence[CudaConv], budget: float) -> tuple[float, ...]:
        out = DeviceArray(self._spec.result_shape, self._spec.result_dtype, self._device)
        samples = self._clock.measure([self._call(op, out) for op in ops], budget=budget)
        return tuple(sample.median for sample in samples)

    def _call(self, op: CudaConv, out: DeviceArray) -> Callable[[], object]:
        """A call with packed weights, where the direction has weights."""
        _, (first, second), epilogue = self._asked(op)
        packed = op.pack(second) if self._spec.direction != "backward_weights" else second
        return lambda: op(first, packed, **epilogue, out=out)

    def _asked(self, op: CudaConv) -> tuple[Question, list[DeviceArray], dict[str, DeviceArray]]:
        """Integers on which an operator of these algorithms is exact, and they on the device."""
        algorithms = algorithms_of_cuda_plan(op.plan)
        if algorithms not in self._questions:
            question = integer_question(self._spec, np.random.default_rng(0), algorithms)
            self._questions[algorithms] = (question, *self._there(question.operands))
        return self._questions[algorithms]

    def comparison(self, op: CudaConv) -> Comparison:
        # The oracle takes long for large batches, and an error is as large in small ones.
        spec = self._spec.replace(batch=min(self._spec.batch, _ERROR_BATCH))
        try:
            return self._compared(CudaConv(Plan(spec, op.plan.strategy, op.plan.config, "measured"), op.gpu))
        except (CompileError, NotApplicable):
            # What is made for the whole batch need not be there for a part of it.
            return self._compared(op)

    def _compared(self, op: CudaConv) -> Comparison:
        operands = normal_operands(op.spec, np.random.default_rng(1))
        main, epilogue = self._there(operands)
        result = op(*main, **epilogue).to_host()
        return compare_bounded(result, op.spec, operands, algorithms=algorithms_of_cuda_plan(op.plan))

    def _there(self, operands: Operands) -> tuple[list[DeviceArray], dict[str, DeviceArray]]:
        ordinal = self._device.ordinal
        return (
            [DeviceArray.from_host(array, ordinal) for array in operands.main],
            {name: DeviceArray.from_host(array, ordinal) for name, array in operands.epilogue.items()},
        )


def tune(spec: ConvSpec, budget: float = 10.0, *, device: int = 0, force: bool = False) -> TunedPlan:
    """Finds the fastest verified way to compute a problem on a device, and stores it under the device's name, driver and clocks.

    ``budget`` is in seconds; what the database knows is not measured again unless ``force``. ``convgen.cuda.compile`` with
    ``device`` takes what was found. Raises OptionError, NotApplicable without a device or a strategy that is accurate enough,
    MissingDependencyError, VerificationError if no candidate is right, and DeviceError.
    """
    check_budget(budget)
    found = device_numbered(device)
    known = None if force else known_result(spec, found.facts)
    if known is not None:
        return known
    result = search(spec, gpu_of_device(found.facts), DeviceBench(spec, found), budget)
    store_result(result, found.facts)
    return result


def search(spec: ConvSpec, gpu: Gpu, bench: Bench, budget: float) -> TunedPlan:
    """The fastest of a problem's configurations that are right on a bench; what the heuristic would take is always tried.

    Raises NotApplicable where no strategy is accurate enough, and VerificationError if no candidate is right.
    """
    return _Session(spec, gpu, bench).result(budget)


class _Session:
    def __init__(self, spec: ConvSpec, gpu: Gpu, bench: Bench) -> None:
        self._spec, self._gpu, self._bench = spec, gpu, bench
        limit = accuracy_limit(spec)
        choices = [
            Choice(strategy.name, config, strategy.predicted_seconds(spec, config, gpu))
            for strategy in gpu_applicable(spec, gpu)
            if strategy.error_bound(spec) <= limit
            for config in strategy.space(spec, gpu)
        ]
        heuristic = plan_cuda(spec, gpu)
        self._baseline = next(c for c in choices if (c.strategy, c.config) == (heuristic.strategy, heuristic.config))
        self._search = Search(choices, self._baseline)
        self._right: dict[Choice, CudaConv] = {}
        self._seconds: dict[Choice, float] = {}
        self._rejected: list[str] = []

    def result(self, budget: float) -> TunedPlan:
        """Searches for most of the budget, then measures the best side by side."""
        begin = time.perf_counter()
        deadline = begin + _SEARCH_SHARE * budget
        while batch := self._search.batch():
            for choice in batch:
                if self._right and time.perf_counter() >= deadline:
                    break
                self._try(choice)
            if self._right and time.perf_counter() >= deadline:
                break
        if not self._right:
            raise self._nothing_right()
        return self._judged(max(0.0, begin + budget - time.perf_counter()))

    def _try(self, choice: Choice) -> None:
        try:
            op = CudaConv(Plan(self._spec, choice.strategy, choice.config, "measured"), self._gpu)
            flaw = self._bench.flaw(op)
            seconds = 0.0 if flaw else self._bench.seconds([op], _QUICK_SECONDS)[0]
        except (CompileError, NotApplicable, DeviceError) as error:
            flaw = _refusal(error)
        if flaw:
            self._reject(choice, flaw)
            self._search.record(choice, None)
            return
        self._right[choice], self._seconds[choice] = op, seconds
        self._search.record(choice, seconds)

    def _judged(self, budget: float) -> TunedPlan:
        fastest = min(self._seconds.values())
        finalists = [c for c in self._right if c == self._baseline or self._seconds[c] <= _FINALISTS * fastest]
        final = self._side_by_side(finalists, min(budget, _FINAL_SECONDS * len(finalists)))
        winner, error = self._winner(final)
        best = final[winner]
        return TunedPlan(
            Plan(self._spec, winner.strategy, winner.config, "database", best),
            best,
            final.get(self._baseline, best),
            error,
            tuple(Candidate(c.strategy, c.config, final.get(c, self._seconds[c])) for c in self._right),
            tuple(self._rejected),
        )

    def _side_by_side(self, finalists: Sequence[Choice], budget: float) -> dict[Choice, float]:
        """The seconds of candidates measured in turn; where not all fit on the device at once, those of before."""
        try:
            times = self._bench.seconds([self._right[c] for c in finalists], budget)
        except DeviceError as error:
            _refusal(error)
            return {c: self._seconds[c] for c in finalists}
        return dict(zip(finalists, times, strict=True))

    def _winner(self, final: Mapping[Choice, float]) -> tuple[Choice, float]:
        """The fastest that is right on real numbers too, and its error; the others that were faster are rejected."""
        left = dict(final)
        while left:
            winner = next(c for c in left if left[c] <= (1 + _TIE) * min(left.values()))
            try:
                comparison = self._bench.comparison(self._right[winner])
                flaw = comparison.reason
            except (CompileError, NotApplicable, DeviceError) as error:
                flaw = _refusal(error)
            if not flaw:
                return winner, comparison.relative_l2
            self._reject(winner, f"on real numbers, {flaw}")
            del left[winner], self._right[winner]
        raise self._nothing_right()

    def _reject(self, choice: Choice, flaw: str) -> None:
        self._rejected.append(f"{choice.strategy} {choice.config}: {flaw}")

    def _nothing_right(self) -> VerificationError:
        return VerificationError(f"no candidate for {self._spec} is right: {'; '.join(self._rejected)}")


def _refusal(error: CompileError | NotApplicable | DeviceError) -> str:
    """Why one candidate is passed by; raises what is the matter with the device itself."""
    if isinstance(error, DeviceError) and not is_out_of_memory(error):
        raise error
    return str(error)
