"""What tuning has found: the winner of each problem, and the database that remembers it."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from convgen import __version__
from convgen.driver import Plan, accurate_strategies, fits
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.packing_cost import packing_seconds
from convgen.strategies.registry import STRATEGIES, strategy_named
from convgen.tuning.database import Database, default_path
from convgen.tuning.evidence import decide
from convgen.tuning.record import ANY_THREADS, Candidate, Record, current_tools

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
    for record in _candidates(database().find(spec.to_json(), machine.fingerprint()), threads, workspace_limit):
        if not _is_valid(record, spec, machine):
            continue
        origin = "pinned" if record.is_pinned else "database"
        plan = Plan(spec, record.strategy, record.config, origin, record.seconds)
        if fits(plan, machine, workspace_limit, threads):
            return _tuned(plan, record)
    return None


def _candidates(records: Sequence[Record], threads: int, workspace_limit: int | None) -> Iterator[Record]:
    """Of all records of a problem those that count for a call, the weightiest first."""
    # A pin for this number of threads goes before one for any; other versions' pins hold too: it is the person's word.
    for count in (threads, ANY_THREADS):
        pins = [record for record in records if record.is_pinned and record.threads == count]
        yield from _decided(pins)
    for limit in dict.fromkeys((None, workspace_limit)):
        yield from _decided(
            [record for record in records if not record.is_pinned and record.key[2:] == (threads, __version__, limit)]
        )


def _decided(records: Sequence[Record]) -> tuple[Record, ...]:
    found = decided(records)
    return () if found is None else (found,)


def decided(records: Sequence[Record]) -> Record | None:
    """The record that counts among those of one key (see tuning.evidence), or None."""
    return decide(records, [strategy.name for strategy in STRATEGIES], current_tools())


def best_unpacked(found: TunedPlan, machine: Machine) -> Plan:
    """Of the candidates that were measured the fastest where each call packs the weights, by a prediction of what that takes."""
    spec = found.plan.spec

    def seconds(candidate: Candidate) -> float:
        packing = packing_seconds(strategy_named(candidate.strategy), spec, candidate.config, machine)
        return candidate.seconds + packing

    offered = [candidate for candidate in found.candidates if _is_offered(candidate, spec, machine)]
    if not offered:
        return found.plan
    best = min(offered, key=seconds)
    return Plan(spec, best.strategy, best.config, found.plan.origin, best.seconds)


def _is_offered(candidate: Candidate, spec: ConvSpec, machine: Machine) -> bool:
    strategies = {strategy.name: strategy for strategy in accurate_strategies(spec, machine)}
    strategy = strategies.get(candidate.strategy)
    return strategy is not None and candidate.config in strategy.space(spec, machine)


def _tuned(plan: Plan, record: Record) -> TunedPlan:
    return TunedPlan(
        plan, record.seconds, record.baseline_seconds, record.error, record.candidates, record.rejected, measured=False
    )


def _is_valid(record: Record, spec: ConvSpec, machine: Machine) -> bool:
    """Whether a stored choice is one that its strategy still offers."""
    return _is_offered(Candidate(record.strategy, record.config, record.seconds), spec, machine)


def store(record: Record) -> None:
    """Adds a result to the database."""
    global _stored
    database().store(record)
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
