"""The Lab that runs kernels: compiles candidates with helpers, has them examined, and times them when nobody compiles."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from convgen.driver import Plan
from convgen.errors import CompileError, VerificationWarning
from convgen.machine import Machine
from convgen.operator import Array, CompiledConv
from convgen.spec import ConvSpec
from convgen.tuner.compile_ahead import Helpers
from convgen.tuner.examination import Gate, Verdict, examine
from convgen.tuning.measure import CacheState, TimedCall, flushed_by
from convgen.tuning.search import Choice
from convgen.tuning.waiting import seconds_waited
from convgen.verify import Operands, normal_operands


class KernelLab:
    """Tries candidates for one problem, from now on for ``budget`` seconds.

    ``helpers`` compile ahead and examine behind fences; where there are none, this process examines without. ``rejected``
    says who failed and why, ``errors`` the relative L2 error of everybody who qualified, ``verified`` what that took.
    """

    def __init__(
        self, spec: ConvSpec, machine: Machine, threads: int, helpers: Helpers, budget: float, cache: CacheState
    ) -> None:
        self._spec, self._machine, self._threads, self._helpers = spec, machine, threads, helpers
        self._deadline = time.perf_counter() + budget
        self._flushed = flushed_by(cache, 2 * machine.l3_bytes * max(1, machine.cores))
        self._longest_compilation = 0.0
        self._ops: dict[Choice, CompiledConv] = {}
        self._calls: dict[Choice, TimedCall] = {}
        self._is_backwards = False
        self._runs = self._disturbed = 0
        self._is_fenced = True
        self.rejected: list[str] = []
        self.errors: dict[Choice, float] = {}

    @property
    def verified(self) -> str:
        """The gates that candidates passed, for the record."""
        return "gates A and B, guard pages" if self._is_fenced else "gates A and B"

    @property
    def disturbed(self) -> float:
        """The part of all timed runs that other programs disturbed."""
        return self._disturbed / self._runs if self._runs else 0.0

    def left(self) -> float:
        """Seconds until the budget is spent; negative afterwards."""
        return self._deadline - time.perf_counter()

    def has_time(self, reserve: float) -> bool:
        """Whether the longest compilation so far fits."""
        return self.left() - self._longest_compilation > reserve

    def admit(self, choices: Sequence[Choice], reserve: float) -> Mapping[Choice, bool]:
        """Compiles, side by side with the helpers, and examines on integers."""
        compiled = self._compile(choices, reserve)
        answers: dict[Choice, bool] = {}
        for choice in choices:
            if choice not in compiled or (any(answers.values()) and self.left() <= reserve):
                continue
            op = compiled[choice]
            if isinstance(op, CompiledConv):
                answers[choice] = self._passes(choice, op, "integers")
                if answers[choice]:
                    self._ops[choice] = op
            else:
                self._reject(choice, str(op))
                answers[choice] = False
        return answers

    def qualify(self, choice: Choice) -> bool:
        """Examines on random numbers."""
        return choice in self.errors or self._passes(choice, self._op(choice), "random")

    def release(self, choices: Collection[Choice]) -> None:
        """Lets go of operators, with their packed weights and workspaces; they are made anew if they are asked for."""
        for choice in choices:
            self._ops.pop(choice, None)
            self._calls.pop(choice, None)

    def round(self, choices: Sequence[Choice]) -> tuple[float, ...]:
        """Times a call of each, with packed weights where there are weights; forwards and backwards in turn."""
        seconds = dict.fromkeys(choices, 0.0)
        for choice in reversed(choices) if self._is_backwards else choices:
            call = self._timed(choice)
            before = call.runs, call.disturbed
            seconds[choice] = call.seconds()
            self._runs += call.runs - before[0]
            self._disturbed += call.disturbed - before[1]
        self._is_backwards = not self._is_backwards
        return tuple(seconds.values())

    def _timed(self, choice: Choice) -> TimedCall:
        if choice not in self._calls:
            self._calls[choice] = TimedCall(
                call_of(self._op(choice), self._operands), flushed=self._flushed, waited=seconds_waited
            )
        return self._calls[choice]

    @functools.cached_property
    def _operands(self) -> Operands:
        return normal_operands(self._spec, np.random.default_rng(2))

    def _op(self, choice: Choice) -> CompiledConv:
        if choice not in self._ops:
            self._ops[choice] = CompiledConv(self._plan(choice), self._machine, self._threads)
        return self._ops[choice]

    def _plan(self, choice: Choice) -> Plan:
        return Plan(self._spec, choice.strategy, choice.config, "measured")

    def _compile(self, choices: Sequence[Choice], reserve: float) -> dict[Choice, CompiledConv | CompileError]:
        plans = {self._plan(choice): choice for choice in choices}
        ops: dict[Choice, CompiledConv | CompileError] = {}

        def here(plan: Plan) -> None:
            begin = time.perf_counter()
            try:
                ops[plans[plan]] = CompiledConv(plan, self._machine, self._threads)
            except CompileError as error:
                ops[plans[plan]] = error
            self._longest_compilation = max(self._longest_compilation, time.perf_counter() - begin)

        deadline = self._deadline - reserve - self._longest_compilation
        for plan in self._helpers.share(list(plans), here, deadline):
            if plans[plan] not in ops:
                here(plan)
        return ops

    def _passes(self, choice: Choice, op: CompiledConv, gate: Gate) -> bool:
        verdict = self._examined(op, gate)
        if not verdict.ok:
            self._reject(choice, verdict.reason)
            self.release([choice])
            finding = "is wrong and" if verdict.examined else "could not be examined and is"
            warnings.warn(
                f"a kernel {finding} not used: {choice.strategy} {choice.config} for {self._spec}: {verdict.reason}",
                VerificationWarning,
                stacklevel=2,
            )
        elif gate == "random":
            self.errors[choice] = verdict.error
        return verdict.ok

    def _examined(self, op: CompiledConv, gate: Gate) -> Verdict:
        verdict = self._helpers.examine(op.plan, gate)
        if verdict is None:
            self._is_fenced = False
            verdict = examine(op, gate, fenced=False)
        return verdict

    def _reject(self, choice: Choice, reason: str) -> None:
        self.rejected.append(f"{choice.strategy} {choice.config}: {reason}")


def call_of(op: CompiledConv, operands: Operands) -> Callable[[], Array]:
    """A call with packed weights, where the direction has weights."""
    first, second = operands.main
    packed = op.pack(second) if op.spec.direction != "backward_weights" else second
    return lambda: op(first, packed, **operands.epilogue)
