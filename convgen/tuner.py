"""The autotuner: measures the configurations of all strategies, verifies each, and remembers the fastest.

Nothing is chosen that has not been held against the oracle on integers (ACCURACY: gate A), at the problem's full size.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from convgen import __version__
from convgen.choices import Candidate, TunedPlan, known_plan, store
from convgen.driver import Plan, accurate_strategies, heuristic_plan, thread_count
from convgen.errors import OptionError, SpecError, VerificationError
from convgen.machine import Machine
from convgen.operator import Array, CompiledConv
from convgen.spec import ConvSpec
from convgen.tuning.database import Record
from convgen.tuning.measure import measure
from convgen.tuning.space import Config
from convgen.verify import Operands, compare_bounded, expect_integers, integer_operands, normal_operands

# Candidates that the model expects to be so many times slower than its favourite are not measured.
HOPELESS = 4.0
# The part of a problem's budget for compiling and verifying candidates; the rest is for measuring them.
COMPILE_SHARE = 0.6
# Of two candidates closer than this, the one that the model ranks first is taken: noise does not decide.
TIE = 0.01

# Two measurements at once would disturb each other.
_one_at_a_time = threading.Lock()


Observer = Callable[[int, TunedPlan], None]


def tune(
    spec: ConvSpec | Sequence[ConvSpec],
    budget: float = 10.0,
    *,
    threads: int | None = None,
    observer: Observer | None = None,
    force: bool = False,
) -> TunedPlan | list[TunedPlan]:
    """Finds the fastest verified way to compute a problem on this machine, and stores it; a list of problems gives a list.

    ``budget`` is in seconds for the whole call; what the database knows is not measured again unless ``force``. The
    heuristic's choice is always measured, however small the budget. ``observer`` sees (position, result) of each problem.
    Raises SpecError, OptionError for a budget that is not a finite number of seconds, and VerificationError if no
    candidate is right.
    """
    if type(budget) not in (int, float) or not 0 <= budget < float("inf"):
        raise OptionError(f"budget={budget!r} is not valid; allowed: seconds, 0 or more")
    count = thread_count(threads)
    _check_specs(spec)
    if isinstance(spec, ConvSpec):
        result = _tune_one(spec, float(budget), count, force)
        if observer is not None:
            observer(0, result)
        return result
    return _tune_many(list(spec), float(budget), count, observer, force)


def _check_specs(specs: object) -> None:
    for spec in specs if isinstance(specs, list | tuple) else (specs,):
        if not isinstance(spec, ConvSpec):
            raise SpecError(f"spec={spec!r} is not a problem; allowed: ConvSpec, or a list of them")


def _tune_many(
    specs: list[ConvSpec], budget: float, threads: int, observer: Observer | None, force: bool
) -> list[TunedPlan]:
    deadline = time.perf_counter() + budget
    results: list[TunedPlan] = []
    done: dict[ConvSpec, TunedPlan] = {}
    for i, spec in enumerate(specs):
        if spec not in done:
            left = len({other for other in specs[i:] if other not in done})
            share = max(0.0, deadline - time.perf_counter()) / left
            done[spec] = _tune_one(spec, share, threads, force)
        results.append(done[spec])
        if observer is not None:
            observer(i, done[spec])
    return results


def _tune_one(spec: ConvSpec, budget: float, threads: int, force: bool) -> TunedPlan:
    machine = Machine.host()
    known = None if force else known_plan(spec, machine, threads)
    if known is not None:
        return known
    with _one_at_a_time:
        return _measured(spec, machine, budget, threads)


def _measured(spec: ConvSpec, machine: Machine, budget: float, threads: int) -> TunedPlan:
    start = time.perf_counter()
    session = _Session(spec, machine, threads)
    session.compile_all(start + budget * COMPILE_SHARE)
    result = session.judge(max(0.0, budget - (time.perf_counter() - start)))
    store(_record(result, machine, threads))
    return result


def _record(result: TunedPlan, machine: Machine, threads: int) -> Record:
    return Record(
        problem=result.plan.spec.to_json(),
        fingerprint=machine.fingerprint(),
        threads=threads,
        version=__version__,
        strategy=result.plan.strategy,
        config=result.plan.config,
        seconds=result.seconds,
        baseline_seconds=result.baseline_seconds,
        error=result.error,
        verified="gate A",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        candidates=tuple((c.strategy, str(c.config), c.seconds) for c in result.candidates),
    )


class _Session:
    """The candidates of one problem: compiled, verified, measured."""

    def __init__(self, spec: ConvSpec, machine: Machine, threads: int) -> None:
        self._spec = spec
        self._machine = machine
        self._threads = threads
        self._baseline = heuristic_plan(spec, machine)
        self._operands = integer_operands(spec, np.random.default_rng(0))
        self._expected = expect_integers(spec, self._operands)
        self._verified: list[tuple[Plan, CompiledConv]] = []
        self._rejected: list[str] = []

    def plans(self) -> list[Plan]:
        """The heuristic's choice, then all that are not hopeless, the most promising first."""
        found = [
            (strategy.predicted_seconds(self._spec, config, self._machine), strategy.name, config)
            for strategy in accurate_strategies(self._spec, self._machine)
            for config in strategy.space(self._spec, self._machine)
        ]
        best = min(seconds for seconds, _, _ in found)
        chosen = [(name, config) for seconds, name, config in sorted(found, key=_time) if seconds <= HOPELESS * best]
        first = (self._baseline.strategy, self._baseline.config)
        return [Plan(self._spec, *choice, "measured") for choice in [first, *(c for c in chosen if c != first)]]

    def compile_all(self, deadline: float) -> None:
        """Compiles and verifies candidates until the deadline, the first one in any case."""
        for plan in self.plans():
            if self._verified and time.perf_counter() >= deadline:
                return
            op = CompiledConv(plan, self._machine, self._threads)
            comparison = self._expected.check(op(*self._operands.main, **self._operands.epilogue))
            if comparison.ok:
                self._verified.append((plan, op))
            else:
                self._rejected.append(f"{plan.strategy} {plan.config}: {comparison.reason}")

    def judge(self, budget: float) -> TunedPlan:
        """Measures the verified candidates side by side and picks the fastest."""
        if not self._verified:
            raise VerificationError(f"no candidate for {self._spec} is right: {'; '.join(self._rejected)}")
        samples = measure([_caller(op, self._operands) for _, op in self._verified], budget=budget, rounds_min=3)
        candidates = tuple(
            Candidate(plan.strategy, plan.config, sample.median)
            for (plan, _), sample in zip(self._verified, samples, strict=True)
        )
        fastest = min(candidate.seconds for candidate in candidates)
        index = next(i for i, candidate in enumerate(candidates) if candidate.seconds <= fastest * (1 + TIE))
        winner, op = candidates[index], self._verified[index][1]
        is_first = (self._verified[0][0].strategy, self._verified[0][0].config) == (
            self._baseline.strategy,
            self._baseline.config,
        )
        baseline = candidates[0].seconds if is_first else winner.seconds
        plan = Plan(self._spec, winner.strategy, winner.config, "database", winner.seconds)
        return TunedPlan(plan, winner.seconds, baseline, _error_on_normal_data(op), candidates, tuple(self._rejected))


def _time(candidate: tuple[float, str, Config]) -> float:
    return candidate[0]


def _caller(op: CompiledConv, operands: Operands) -> Callable[[], Array]:
    """A call with packed weights, where the direction has weights."""
    first, second = operands.main
    packed = op.pack(second) if op.spec.direction != "backward_weights" else second
    return lambda: op(first, packed, **operands.epilogue)


def _error_on_normal_data(op: CompiledConv) -> float:
    operands = normal_operands(op.spec, np.random.default_rng(1))
    result = op(*operands.main, **operands.epilogue)
    return compare_bounded(result, op.spec, operands).relative_l2
