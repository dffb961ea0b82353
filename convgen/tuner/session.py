"""The autotuner: compiles what deserves it of all strategies, verifies and measures it, and remembers the fastest.

Which candidates those are is ``tuning.tactics``' to say, what a candidate is put to ``laboratory.py``'s: nothing is chosen that
has not been held against the oracle on integers and random numbers at the problem's full size.
"""

from __future__ import annotations

import dataclasses
import datetime
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from convgen import __version__
from convgen.choices import TunedPlan, claim, known_plan, store, unpacked_seconds
from convgen.driver import (
    Plan,
    accurate_strategies,
    check_budget,
    check_limit,
    fits,
    heuristic_plan,
    thread_count,
)
from convgen.errors import NoisyMachineWarning, SpecError, VerificationError
from convgen.machine import Machine
from convgen.options import num_threads
from convgen.options import workspace_limit as default_workspace_limit
from convgen.runtime.host_lock import alone_on_this_host
from convgen.spec import ConvSpec
from convgen.tuner.calibration import calibrate
from convgen.tuner.compile_ahead import Helpers
from convgen.tuner.fleet import Group, Job, tune_on
from convgen.tuner.laboratory import KernelLab
from convgen.tuning.measure import CacheState
from convgen.tuning.race import NOISY, WIDENED
from convgen.tuning.record import Candidate, Record, current_tools
from convgen.tuning.search import Choice
from convgen.tuning.tactics import Finding, guided

# Below this budget a helper process would take longer to start than it saves.
HELPED_BUDGET = 4.0

# From this budget on, a machine of an unknown kind is calibrated first, in about two seconds.
CALIBRATED_BUDGET = 20.0
# A machine on which more timed runs than this are disturbed is noisy.
DISTURBED = 0.25

# Whether the process has been told already.
_warned_of_noise: list[bool] = []

Observer = Callable[[int, TunedPlan], None]


def tune(
    spec: ConvSpec | Sequence[ConvSpec],
    budget: float = 10.0,
    *,
    threads: int | None = None,
    workspace_limit: int | None = None,
    observer: Observer | None = None,
    force: bool = False,
    cache: CacheState = "warm",
    executor: Executor | None = None,
) -> TunedPlan | list[TunedPlan]:
    """Finds the fastest verified way to compute a problem on this machine, and stores it; a list of problems gives a list.

    ``budget`` is in seconds for the whole call; what the database knows is not measured again unless ``force``. The
    heuristic's choice is always measured, however small the budget, and when further candidates cannot win, the rest of the
    budget is left. ``workspace_limit`` is in bytes: what needs more, packed weights included, is not considered, and the
    result is remembered for this limit. ``cache`` says what calls find in the caches: "warm" their own operands, "cold" nothing.
    ``observer`` sees (position, result) of each problem.

    With an ``executor`` its workers tune, each problem once on each kind of machine (see fleet.py), and all that they find is
    stored here too; the result is that of a machine like this one, if there is one among them.

    Raises SpecError, OptionError for a budget that is not a finite number of seconds or a limit that is not a number of bytes,
    WorkspaceLimitError and NotApplicable where nothing is small or accurate enough, VerificationError if no candidate is
    right, and FleetError if all jobs for a problem were lost with their workers.

    A kernel that fails verification, or cannot be examined, is never chosen: a VerificationWarning names it. A
    NoisyMachineWarning says once in a process that other programs disturb measurements.
    """
    check_budget(budget)
    check_limit(workspace_limit)
    if workspace_limit is None:
        workspace_limit = default_workspace_limit()
    count = thread_count(threads)
    _check_specs(spec)
    problems = [spec] if isinstance(spec, ConvSpec) else list(spec)
    if executor is not None:
        job = Job("", 0.0, None if threads is None else count, workspace_limit, force, cache)
        results = _tune_by(executor, problems, float(budget), job, observer)
        return results[0] if isinstance(spec, ConvSpec) else results
    with Helpers(max(1, num_threads() - 1) if budget >= HELPED_BUDGET else 0, count) as helpers:
        run = _Run(count, workspace_limit, force, helpers, cache, budget >= CALIBRATED_BUDGET)
        results = _tune_all(problems, float(budget), run, observer)
    return results[0] if isinstance(spec, ConvSpec) else results


def _tune_by(
    executor: Executor, specs: list[ConvSpec], budget: float, job: Job, observer: Observer | None
) -> list[TunedPlan]:
    """The results of an executor's workers, in the order of ``specs``."""
    if type(executor).__module__.partition(".")[0] == "distributed":
        from convgen.tuner.dask_fleet import groups_of

        groups = groups_of(executor, job.threads)
    else:
        groups = [Group(executor, job.threads)]
    distinct = list(dict.fromkeys(specs))

    def observed(place: int, found: TunedPlan) -> None:
        if observer is not None:
            observer(specs.index(distinct[place]), found)

    found = dict(zip(distinct, tune_on(groups, distinct, job, budget, observed), strict=True))
    return [found[spec] for spec in specs]


@dataclass(frozen=True)
class _Run:
    """What is the same for all problems of a call; ``calibrates`` is whether there is time to measure the machine itself."""

    threads: int
    workspace_limit: int | None
    force: bool
    helpers: Helpers
    cache: CacheState
    calibrates: bool


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
    if run.force:
        return _measured(spec, machine, budget, run)
    known = known_plan(spec, machine, run.threads, run.workspace_limit)
    if known is not None:
        return known
    with claim(spec, machine, run.threads, run.workspace_limit, budget) as found:
        return found or _measured(spec, machine, budget, run)


def _measured(spec: ConvSpec, machine: Machine, budget: float, run: _Run) -> TunedPlan:
    if run.calibrates:
        calibrate(machine)
    with alone_on_this_host():
        result, verified = _search(spec, machine, run, budget)
        store(_record(result, verified, machine, run), replaces=run.force)
        return result


def _record(result: TunedPlan, verified: str, machine: Machine, run: _Run) -> Record:
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
        verified=verified,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        candidates=result.candidates,
        rejected=result.rejected,
        workspace_limit=run.workspace_limit,
        tools=current_tools(),
        host=platform.node(),
    )


def _search(spec: ConvSpec, machine: Machine, run: _Run, budget: float) -> tuple[TunedPlan, str]:
    """What won within the budget, which begins now, and what was verified."""
    lab = KernelLab(spec, machine, run.threads, run.helpers, budget, run.cache)
    choices = candidates_of(spec, machine, run.threads, run.workspace_limit)
    baseline = heuristic_plan(spec, machine, run.workspace_limit, run.threads)
    first = next(c for c in choices if (c.strategy, c.config) == (baseline.strategy, baseline.config))
    if len(choices) > 1:
        run.helpers.start()
    finding = guided(choices, first, lab)
    if finding.winner is None:
        raise VerificationError(f"no candidate for {spec} is right: {'; '.join(lab.rejected)}")
    if finding.noise > NOISY or lab.disturbed > DISTURBED:
        _warn_of_noise(finding.noise, lab.disturbed)
    candidates = _candidates(spec, machine, finding, lab)
    return _result(spec, finding, finding.winner, first, candidates, lab), lab.verified


def candidates_of(spec: ConvSpec, machine: Machine, threads: int, workspace_limit: int | None) -> list[Choice]:
    """All configurations that are accurate and small enough, with their predictions; strategies in the registry's order.

    Raises NotApplicable.
    """
    return [
        Choice(strategy.name, config, strategy.predicted_seconds(spec, config, machine))
        for strategy in accurate_strategies(spec, machine)
        for config in strategy.space(spec, machine)
        if fits(Plan(spec, strategy.name, config, "measured"), machine, workspace_limit, threads)
    ]


def _candidates(spec: ConvSpec, machine: Machine, finding: Finding, lab: KernelLab) -> tuple[Candidate, ...]:
    """All that were measured. The one that is to be the fastest where each call packs the weights is put to all gates too; one
    that turns out to be wrong there is left out, and the next one's turn it is."""
    measured = {
        choice: Candidate(
            choice.strategy, choice.config, found.seconds, found.low, found.high, found.rounds, choice.predicted
        )
        for choice, found in finding.estimates.items()
    }
    for choice in sorted(measured, key=lambda each: unpacked_seconds(measured[each], spec, machine)):
        if lab.qualify(choice):
            break
        del measured[choice]
    return tuple(dataclasses.replace(each, passed=choice in lab.errors) for choice, each in measured.items())


def _result(
    spec: ConvSpec,
    finding: Finding,
    winner: Choice,
    first: Choice,
    candidates: tuple[Candidate, ...],
    lab: KernelLab,
) -> TunedPlan:
    estimates = finding.estimates
    best = estimates[winner].seconds
    baseline = estimates[first].seconds if first in estimates else best
    plan = Plan(spec, winner.strategy, winner.config, "database", best)
    return TunedPlan(plan, best, baseline, lab.errors[winner], candidates, tuple(lab.rejected))


def _warn_of_noise(noise: float, disturbed: float) -> None:
    if not _warned_of_noise:
        _warned_of_noise.append(True)
        warnings.warn(
            f"this machine is noisy: other programs disturbed {disturbed:.0%} of the timed runs, which are repeated, and times "
            f"of the same kernel spread by {noise:.0%}; measuring takes up to {WIDENED:g} times as long",
            NoisyMachineWarning,
            stacklevel=2,
        )
