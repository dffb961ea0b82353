"""What tuning has found: the winner of each problem, and the database that remembers it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from convgen import __version__
from convgen.driver import Plan, accurate_strategies, fits
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.packing_cost import packing_seconds
from convgen.strategies.registry import strategy_named
from convgen.tuning.database import Database, Record, default_path
from convgen.tuning.space import Config

_stored = 0


@dataclass(frozen=True)
class Candidate:
    """One configuration that was measured: the median seconds of a call with packed weights."""

    strategy: str
    config: Config
    seconds: float


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
    """What the database knows of a problem on this machine, if it is still valid: what won without a limit where it fits, else
    what won under this very limit."""
    for limit in dict.fromkeys((None, workspace_limit)):
        record = database().find(spec.to_json(), machine.fingerprint(), threads, __version__, limit)
        if record is None or not _is_valid(record, spec, machine):
            continue
        plan = Plan(spec, record.strategy, record.config, "database", record.seconds)
        if fits(plan, machine, workspace_limit, threads):
            return _tuned(plan, record)
    return None


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
    candidates = tuple(Candidate(name, Config.parse(config), seconds) for name, config, seconds in record.candidates)
    return TunedPlan(plan, record.seconds, record.baseline_seconds, record.error, candidates, measured=False)


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
    return Database(path)
