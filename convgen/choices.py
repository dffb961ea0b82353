"""What tuning has found: the winner of each problem, and the database that remembers it."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from convgen import __version__
from convgen.driver import Plan, accurate_strategies, fits
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.packing_cost import packing_seconds
from convgen.strategies.registry import STRATEGIES, strategy_named
from convgen.tuning.claims import claimed
from convgen.tuning.database import Database, default_path
from convgen.tuning.evidence import decide
from convgen.tuning.record import ANY_THREADS, Candidate, Record, current_tools
from convgen.tuning.shipped import shipped_records
from convgen.tuning.space import Config

# A problem takes longer than its budget where compiling or the oracle does; who waits for it waits for so long at most.
CLAIM_FACTOR = 2.0
CLAIM_SECONDS = 120.0

_stored = 0


@dataclass(frozen=True)
class TunedPlan:
    """What won and why.

    ``plan`` is the winner, ``baseline_seconds`` the median of the heuristic's choice in the same run, ``error`` the winner's
    relative L2 error on normal data, ``candidates`` all that were measured, ``rejected`` those that failed verification (with
    the reason), ``measured`` whether this call measured or found the result in the database.
    """

    plan: Plan
    seconds: float
    baseline_seconds: float
    error: float
    candidates: tuple[Candidate, ...]
    rejected: tuple[str, ...] = ()
    measured: bool = True

    @property
    def speedup(self) -> float:
        """How many times faster than the heuristic's choice."""
        return self.baseline_seconds / self.seconds if self.seconds else 1.0

    @property
    def gflops(self) -> float:
        """10^9 floating-point operations of the direct algorithm per second."""
        return self.plan.spec.flops / self.seconds / 1e9 if self.seconds else 0.0


def known_plan(spec: ConvSpec, machine: Machine, threads: int, workspace_limit: int | None = None) -> TunedPlan | None:
    """What the database knows of a problem on this machine, if it is still valid: what a person has pinned, else what won without
    a limit where it fits, else what won under this very limit."""
    records = database().find(spec.to_json(), machine.fingerprint())
    return plan_among(records, spec, machine, threads, workspace_limit)


def plan_among(
    records: Sequence[Record], spec: ConvSpec, machine: Machine, threads: int, workspace_limit: int | None = None
) -> TunedPlan | None:
    """The same of some records of the problem on this machine, wherever they come from."""
    return _plan_of(_groups(records, threads, workspace_limit, __version__), spec, machine, threads, workspace_limit)


def shipped_plan(
    spec: ConvSpec, machine: Machine, threads: int, workspace_limit: int | None = None
) -> TunedPlan | None:
    """The same of what convgen was shipped with. ``tune`` takes no notice of it: it is asked to measure."""
    records = shipped_records(machine.fingerprint()).get(spec.to_json(), ())
    return _plan_of(_groups(records, threads, workspace_limit, None), spec, machine, threads, workspace_limit)


def _plan_of(
    groups: Iterable[Sequence[Record]], spec: ConvSpec, machine: Machine, threads: int, workspace_limit: int | None
) -> TunedPlan | None:
    """The first group's choice that is still offered and fits."""
    for group in groups:
        record = decided([each for each in group if is_offered(each.strategy, each.config, spec, machine)])
        if record is None:
            continue
        origin = "database" if record.origin not in ("pinned", "shipped") else record.origin
        plan = Plan(spec, record.strategy, record.config, origin, record.seconds or None)
        if fits(plan, machine, workspace_limit, threads):
            return _tuned(plan, record)
    return None


def _groups(
    records: Sequence[Record], threads: int, workspace_limit: int | None, version: str | None
) -> list[list[Record]]:
    """The records of a problem that count for a call, in groups that are decided alone, the weightiest group first."""
    # A pin for this number of threads goes before one for any; other versions' pins hold too: it is the person's word.
    pins = [[each for each in records if each.is_pinned and each.threads == count] for count in (threads, ANY_THREADS)]
    measured = [each for each in records if not each.is_pinned and each.threads == threads]
    of_version = [each for each in measured if version in (None, each.version)]
    limits = dict.fromkeys((None, workspace_limit))
    return [*pins, *([each for each in of_version if each.workspace_limit == limit] for limit in limits)]


def decided(records: Sequence[Record]) -> Record | None:
    """The record that counts among those of one key (see tuning.evidence), or None."""
    return decide(records, [strategy.name for strategy in STRATEGIES], current_tools())


def best_unpacked(found: TunedPlan, machine: Machine) -> Plan:
    """Of the candidates that were measured and passed all gates the fastest where each call packs the weights; what a person has
    pinned holds for both."""
    spec = found.plan.spec
    if found.plan.origin == "pinned":
        return found.plan
    passed = [each for each in found.candidates if each.passed]
    offered = [each for each in passed if is_offered(each.strategy, each.config, spec, machine)]
    if not offered:
        return found.plan
    best = min(offered, key=lambda candidate: unpacked_seconds(candidate, spec, machine))
    return Plan(spec, best.strategy, best.config, found.plan.origin, best.seconds)


def unpacked_seconds(candidate: Candidate, spec: ConvSpec, machine: Machine) -> float:
    """What a call takes that packs the weights: what was measured with packed ones and a prediction of what packing takes."""
    packing = packing_seconds(strategy_named(candidate.strategy), spec, candidate.config, machine)
    return candidate.seconds + packing


def is_offered(strategy: str, config: Config, spec: ConvSpec, machine: Machine) -> bool:
    """Whether a choice that was made earlier is one that its strategy still offers, accurate enough and not forbidden."""
    strategies = {each.name: each for each in accurate_strategies(spec, machine)}
    return strategy in strategies and config in strategies[strategy].space(spec, machine)


def _tuned(plan: Plan, record: Record) -> TunedPlan:
    return TunedPlan(
        plan, record.seconds, record.baseline_seconds, record.error, record.candidates, record.rejected, measured=False
    )


@contextmanager
def claim(
    spec: ConvSpec, machine: Machine, threads: int, workspace_limit: int | None, seconds: float
) -> Iterator[TunedPlan | None]:
    """Of the processes that share the database and meet a problem at once, one is given None, and is to measure it within the
    block in about ``seconds``; the others are given what it has found."""
    key = (spec.to_json(), machine.fingerprint(), threads, __version__, workspace_limit)

    def known() -> TunedPlan | None:
        return known_plan(spec, machine, threads, workspace_limit)

    with claimed(database(), key, CLAIM_FACTOR * seconds + CLAIM_SECONDS, known) as found:
        yield found


def store(record: Record, *, replaces: bool = False) -> None:
    """Adds a result to the database, beside the others about the same question or in their place."""
    global _stored
    if replaces:
        database().store(record)
    else:
        database().add([record])
    _stored += 1


def results_stored() -> int:
    """How many results this process has stored."""
    return _stored


def database() -> Database:
    """The tuning database of the user's cache directory."""
    return _database(default_path())


@functools.cache
def _database(path: Path) -> Database:
    found = Database(path)
    # What could not be written before, because others held the file, is tried once more.
    atexit.register(found.close)
    return found
