"""The autotuner: compiles what deserves it of all strategies, verifies and measures it, and remembers the fastest.

Which candidates those are is ``tuning.search``'s to say. Candidates are compiled by this process and helpers, and measured when
nobody compiles. Nothing is chosen that has not been held against the oracle on integers (ACCURACY: gate A), at the problem's
full size.
"""

from __future__ import annotations

import datetime
import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from convgen import __version__
from convgen.choices import TunedPlan, known_plan, store
from convgen.compile_ahead import Helpers
from convgen.driver import (
    Plan,
    accurate_strategies,
    algorithms_of_plan,
    check_budget,
    check_limit,
    fits,
    heuristic_plan,
    thread_count,
)
from convgen.errors import CompileError, SpecError, VerificationError
from convgen.machine import Machine
from convgen.operator import Array, CompiledConv
from convgen.options import num_threads
from convgen.spec import ConvSpec
from convgen.transforms.split import Algorithms
from convgen.tuning.measure import measure
from convgen.tuning.record import Candidate, Record, current_tools
from convgen.tuning.search import Choice, Search
from convgen.verify import Expectation, Operands, compare_bounded, expect_integers, integer_operands, normal_operands

# The part of a problem's budget for the search; the rest is for measuring the best candidates side by side.
SEARCH_SHARE = 0.8
# Seconds that a candidate is measured for during the search, and at most in the end.
QUICK_SECONDS = 0.1
FINAL_SECONDS = 0.6
# Candidates at most so many times slower than the leader are measured once more.
FINALISTS = 1.1
# Of two candidates closer than this, the one that was tried first is taken: noise does not decide.
TIE = 0.01
# Below this budget a helper process would take longer to start than it saves.
HELPED_BUDGET = 4.0

# Two measurements at once would disturb each other.
_one_at_a_time = [threading.Lock()]


def _renew_lock() -> None:
    """In a forked child: a thread that held the lock is not there to release it."""
    _one_at_a_time[0] = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)

Observer = Callable[[int, TunedPlan], None]


def tune(
    spec: ConvSpec | Sequence[ConvSpec],
    budget: float = 10.0,
    *,
    threads: int | None = None,
    workspace_limit: int | None = None,
    observer: Observer | None = None,
    force: bool = False,
) -> TunedPlan | list[TunedPlan]:
    """Finds the fastest verified way to compute a problem on this machine, and stores it; a list of problems gives a list.

    ``budget`` is in seconds for the whole call; what the database knows is not measured again unless ``force``. The
    heuristic's choice is always measured, however small the budget, and when further candidates cannot win, the rest of the
    budget is left. ``workspace_limit`` is in bytes: what needs more, packed weights included, is not considered, and the
    result is remembered for this limit. ``observer`` sees (position, result) of each problem. Raises SpecError, OptionError
    for a budget that is not a finite number of seconds or a limit that is not a number of bytes, WorkspaceLimitError and
    NotApplicable where nothing is small or accurate enough, and VerificationError if no candidate is right.
    """
    check_budget(budget)
    check_limit(workspace_limit)
    count = thread_count(threads)
    _check_specs(spec)
    problems = [spec] if isinstance(spec, ConvSpec) else list(spec)
    with Helpers(num_threads() - 1 if budget >= HELPED_BUDGET else 0) as helpers:
        results = _tune_all(problems, float(budget), _Run(count, workspace_limit, force, helpers), observer)
    return results[0] if isinstance(spec, ConvSpec) else results


@dataclass(frozen=True)
class _Run:
    """What is the same for all problems of a call."""

    threads: int
    workspace_limit: int | None
    force: bool
    helpers: Helpers


def _check_specs(specs: object) -> None:
    for spec in specs if isinstance(specs, list | tuple) else (specs,):
        if not isinstance(spec, ConvSpec):
            raise SpecError(f"spec={spec!r} is not a problem; allowed: ConvSpec, or a list of them")


def _tune_all(specs: list[ConvSpec], budget: float, run: _Run, observer: Observer | None) -> list[TunedPlan]:
    deadline = time.perf_counter() + budget
    results: list[TunedPlan] = []
    done: dict[ConvSpec, TunedPlan] = {}
    for i, spec in enumerate(specs):
        if spec not in done:
            left = len({other for other in specs[i:] if other not in done})
            share = max(0.0, deadline - time.perf_counter()) / left
            done[spec] = _tune_one(spec, share, run)
        results.append(done[spec])
        if observer is not None:
            observer(i, done[spec])
    return results


def _tune_one(spec: ConvSpec, budget: float, run: _Run) -> TunedPlan:
    machine = Machine.host()
    known = None if run.force else known_plan(spec, machine, run.threads, run.workspace_limit)
    if known is not None:
        return known
    with _one_at_a_time[0]:
        result = _Session(spec, machine, run).result(time.perf_counter(), budget)
        store(_record(result, machine, run))
        return result


def _record(result: TunedPlan, machine: Machine, run: _Run) -> Record:
    return Record(
        problem=result.plan.spec.to_json(),
        fingerprint=machine.fingerprint(),
        threads=run.threads,
        version=__version__,
        strategy=result.plan.strategy,
        config=result.plan.config,
        seconds=result.seconds,
        baseline_seconds=result.baseline_seconds,
        error=result.error,
        verified="gate A",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        candidates=result.candidates,
        rejected=result.rejected,
        workspace_limit=run.workspace_limit,
        tools=current_tools(),
        host=platform.node(),
    )


@dataclass(frozen=True)
class _Trial:
    """A candidate that is right, and how it is called."""

    choice: Choice
    op: CompiledConv
    call: Callable[[], Array]


class _Session:
    """The search for one problem."""

    def __init__(self, spec: ConvSpec, machine: Machine, run: _Run) -> None:
        self._spec = spec
        self._machine = machine
        self._run = run
        choices = self._choices()
        baseline = heuristic_plan(spec, machine, run.workspace_limit, run.threads)
        self._baseline = next(c for c in choices if (c.strategy, c.config) == (baseline.strategy, baseline.config))
        self._search = Search(choices, self._baseline)
        if len(choices) > 1:
            run.helpers.start()
        self._questions: dict[Algorithms, tuple[Operands, Expectation]] = {}
        self._question(algorithms_of_plan(baseline))
        self._trials: dict[Choice, _Trial] = {}
        self._seconds: dict[Choice, float] = {}
        self._rejected: list[str] = []
        self._longest_compilation = 0.0

    def _choices(self) -> list[Choice]:
        """All configurations that are accurate and small enough, with their predictions."""
        spec, machine, run = self._spec, self._machine, self._run
        return [
            Choice(strategy.name, config, strategy.predicted_seconds(spec, config, machine))
            for strategy in accurate_strategies(spec, machine)
            for config in strategy.space(spec, machine)
            if fits(Plan(spec, strategy.name, config, "measured"), machine, run.workspace_limit, run.threads)
        ]

    def result(self, start: float, budget: float) -> TunedPlan:
        """Searches and judges within the budget, which counts from ``start``."""
        deadline = start + SEARCH_SHARE * budget
        while batch := self._search.batch():
            self._try(batch, deadline)
            if time.perf_counter() + self._longest_compilation >= deadline and self._trials:
                break
        return self._judge(max(0.0, start + budget - time.perf_counter()))

    def _try(self, batch: tuple[Choice, ...], deadline: float) -> None:
        """Compiles, verifies and measures some candidates; without a leader at least one, else those there is time for."""
        compiled = self._compile(batch, deadline)
        fresh: list[_Trial] = []
        for choice in batch:
            if choice not in compiled or (fresh and time.perf_counter() >= deadline):
                continue
            op = compiled[choice]
            if isinstance(op, CompiledConv):
                trial = self._verified(choice, op)
                if trial is not None:
                    fresh.append(trial)
            else:
                self._reject(choice, str(op))
        if fresh:
            self._measure(fresh, max(0.0, deadline - time.perf_counter()))

    def _compile(self, batch: tuple[Choice, ...], deadline: float) -> dict[Choice, CompiledConv | CompileError]:
        plans = {Plan(self._spec, choice.strategy, choice.config, "measured"): choice for choice in batch}
        ops: dict[Choice, CompiledConv | CompileError] = {}

        def here(plan: Plan) -> None:
            begin = time.perf_counter()
            try:
                ops[plans[plan]] = CompiledConv(plan, self._machine, self._run.threads)
            except CompileError as error:
                ops[plans[plan]] = error
            self._longest_compilation = max(self._longest_compilation, time.perf_counter() - begin)

        for plan in self._run.helpers.share(list(plans), here, deadline - self._longest_compilation):
            if plans[plan] not in ops:
                here(plan)
        return ops

    def _verified(self, choice: Choice, op: CompiledConv) -> _Trial | None:
        operands, expected = self._question(algorithms_of_plan(op.plan))
        comparison = expected.check(op(*operands.main, **operands.epilogue))
        if comparison.ok:
            return _Trial(choice, op, _caller(op, operands))
        self._reject(choice, comparison.reason)
        return None

    def _question(self, algorithms: Algorithms) -> tuple[Operands, Expectation]:
        """Integers on which candidates of these algorithms are exact, and what they must make of them."""
        if algorithms not in self._questions:
            operands = integer_operands(self._spec, np.random.default_rng(0), algorithms)
            self._questions[algorithms] = operands, expect_integers(self._spec, operands, algorithms)
        return self._questions[algorithms]

    def _reject(self, choice: Choice, reason: str) -> None:
        self._rejected.append(f"{choice.strategy} {choice.config}: {reason}")
        self._search.record(choice, None)

    def _measure(self, fresh: list[_Trial], budget: float) -> None:
        """Measures new candidates beside the leader, whose time ties this round to the ones before."""
        leader = self._search.leader
        trials = [*([self._trials[leader]] if leader else []), *fresh]
        samples = measure(
            [trial.call for trial in trials], budget=min(budget, QUICK_SECONDS * len(trials)), rounds_min=3
        )
        drift = self._seconds[leader] / samples[0].median if leader and samples[0].median else 1.0
        for trial, sample in list(zip(trials, samples, strict=True))[-len(fresh) :]:
            self._seconds[trial.choice] = seconds = sample.median * drift
            self._search.record(trial.choice, seconds)
            self._trials[trial.choice] = trial
        fastest = min(self._seconds.values())
        self._trials = {
            choice: trial
            for choice, trial in self._trials.items()
            if choice == self._baseline or self._seconds[choice] <= FINALISTS * fastest
        }

    def _judge(self, budget: float) -> TunedPlan:
        """Measures the best candidates and the heuristic's choice side by side and picks the fastest."""
        if not self._trials:
            raise VerificationError(f"no candidate for {self._spec} is right: {'; '.join(self._rejected)}")
        trials = list(self._trials.values())
        samples = measure(
            [trial.call for trial in trials], budget=min(budget, FINAL_SECONDS * len(trials)), rounds_min=3
        )
        seconds = {trial.choice: sample.median for trial, sample in zip(trials, samples, strict=True)}
        fastest = min(seconds.values())
        winner = next(trial for trial in trials if seconds[trial.choice] <= fastest * (1 + TIE))
        candidates = tuple(
            Candidate(choice.strategy, choice.config, seconds.get(choice, quick))
            for choice, quick in self._seconds.items()
        )
        best = seconds[winner.choice]
        plan = Plan(self._spec, winner.choice.strategy, winner.choice.config, "database", best)
        baseline = seconds.get(self._baseline, best)
        error = _error_on_normal_data(winner.op)
        return TunedPlan(plan, best, baseline, error, candidates, tuple(self._rejected))


def _caller(op: CompiledConv, operands: Operands) -> Callable[[], Array]:
    """A call with packed weights, where the direction has weights."""
    first, second = operands.main
    packed = op.pack(second) if op.spec.direction != "backward_weights" else second
    return lambda: op(first, packed, **operands.epilogue)


def _error_on_normal_data(op: CompiledConv) -> float:
    operands = normal_operands(op.spec, np.random.default_rng(1))
    result = op(*operands.main, **operands.epilogue)
    return compare_bounded(result, op.spec, operands, algorithms=algorithms_of_plan(op.plan)).relative_l2
