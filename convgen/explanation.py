"""Why a problem is computed as it is: all candidates, what was predicted and measured of them, and why each lost.

Nothing is measured and nothing is chosen here: the plan is what a call would take, and who decides is told, be it a lockfile, a
person, a measurement or the cost model. What was measured of the problem is told whoever decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convgen import __version__
from convgen.choices import database
from convgen.driver import Plan, fits, needed_bytes, worker_count
from convgen.locking import Call, active_lock, locked_plan
from convgen.machine import Machine
from convgen.options import forbidden_strategies, is_deterministic, tune_mode
from convgen.planning import free_plan
from convgen.spec import ConvSpec
from convgen.strategies.accuracy import accuracy_limit
from convgen.strategies.base import Strategy
from convgen.strategies.registry import STRATEGIES, applicable, strategy_named
from convgen.tuning.lockfile import Lockfile
from convgen.tuning.race import TIE
from convgen.tuning.record import ANY_THREADS, Candidate, Record
from convgen.tuning.shipped import shipped_records
from convgen.tuning.space import Config

# Of each strategy so many configurations that were not measured are named, those predicted to be the fastest.
NAMED = 3


@dataclass(frozen=True)
class Entry:
    """A strategy, or one of its configurations: what was predicted and measured, seconds of a call, and what became of it.

    ``predicted`` is relative to the least prediction of all, as predictions of one thread are only good for ratios.
    ``bound`` is the strategy's relative L2 error and ``workspace`` the scratch memory of a call in bytes, packed weights
    included.
    """

    strategy: str
    config: Config | None
    fate: str
    is_chosen: bool = False
    predicted: float | None = None
    measured: Candidate | None = None
    bound: float | None = None
    workspace: int | None = None

    @property
    def size(self) -> str:
        """The workspace for a reader."""
        if self.workspace is None:
            return "-"
        kibibytes = self.workspace / 1024
        return f"{kibibytes:.1f} KiB" if kibibytes < 1024 else f"{kibibytes / 1024:.1f} MiB"


@dataclass(frozen=True)
class Explanation:
    """``plan`` is what a call takes, ``authority`` who decides, in words, where that is not a record, and ``record`` the pin or
    the measurement of this choice, if there is one; ``seconds`` is what it was measured to take. ``limit`` is the largest error
    bound admitted, ``others`` how many configurations of each strategy are not among the entries."""

    plan: Plan
    threads: int
    authority: str
    record: Record | None
    limit: float
    entries: tuple[Entry, ...]
    others: tuple[tuple[str, int], ...]

    @property
    def provenance(self) -> str:
        """Where the choice comes from, in one sentence."""
        if self.record is None:
            return self.authority
        record = self.record
        how = {"pinned": "pinned by a person", "shipped": "shipped with convgen"}.get(record.origin, record.origin)
        where = f" on {record.host}" if record.host else ""
        source = f", from {record.source}" if record.source else ""
        tools = f", with {record.tools}" if record.tools else ""
        told = f"{how}{where}, {record.created}, convgen {record.version}{tools}; verified: {record.verified}{source}"
        return f"{self.authority}; {told}" if self.authority else told

    @property
    def chosen(self) -> Entry:
        """The entry of the plan."""
        return next(entry for entry in self.entries if entry.is_chosen)

    @property
    def seconds(self) -> float | None:
        """What the plan was measured to take, whoever has chosen it."""
        measured = self.chosen.measured
        return self.plan.seconds or (None if measured is None else measured.seconds)

    @property
    def error(self) -> float | None:
        """The relative L2 error that was found on random numbers."""
        return None if self.record is None else self.record.error


def explain(spec: ConvSpec, machine: Machine, threads: int, workspace_limit: int | None = None) -> Explanation:
    """Explains the choice for a problem, under CONVGEN_WORKSPACE_LIMIT if no limit is given.

    Raises NotApplicable, WorkspaceLimitError and LockError where there is none.
    """
    call = Call(spec, machine, threads, workspace_limit)
    lock = active_lock() if tune_mode() != "off" else None
    plan = free_plan(call, may_measure=False) if lock is None else locked_plan(lock, call)
    records = _records_of(plan, machine, threads)
    record = _record_of(plan, records)
    judge = _Judge(plan, machine, threads, call.workspace_limit, _evidence_on(plan, record, records))
    parts = [judge.strategy(strategy) for strategy in STRATEGIES]
    entries = sorted((entry for part, _ in parts for entry in part), key=_order)
    others = tuple((strategy.name, left) for strategy, (_, left) in zip(STRATEGIES, parts, strict=True) if left)
    authority = _authority(plan, lock, knows=bool(records))
    return Explanation(plan, threads, authority, record, accuracy_limit(spec), tuple(entries), others)


def _authority(plan: Plan, lock: Lockfile | None, *, knows: bool) -> str:
    """Who decides, where it is not a record of the database that does; ``knows`` is whether it has one of the problem."""
    if lock is not None:
        file = f"the lockfile {str(lock.path)!r}"
        return f"locked by {file}" if plan.origin == "lock" else f"the cost model's choice: {file} lacks a valid one"
    if plan.origin != "heuristic":
        return ""
    if tune_mode() == "off":
        return "the cost model's choice: CONVGEN_TUNE=off"
    if is_deterministic():
        return "the cost model's choice: CONVGEN_DETERMINISTIC=1"
    why = "no result of the database is valid here" if knows else "nothing has been measured"
    return f"the cost model's choice: {why}"


def _records_of(plan: Plan, machine: Machine, threads: int) -> list[Record]:
    """What is stored about the problem and as many threads; where the plan was shipped, what was shipped of it."""
    problem, fingerprint = plan.spec.to_json(), machine.fingerprint()
    if plan.origin == "shipped":
        found = tuple(shipped_records(fingerprint).get(problem, ()))
    else:
        found = database().find(problem, fingerprint)
    return [record for record in found if record.threads in (threads, ANY_THREADS)]


def _record_of(plan: Plan, records: Sequence[Record]) -> Record | None:
    """The record that the plan is the choice of, the latest of several: a pin where it decides, and else none."""
    same = [record for record in records if record.choice == (plan.strategy, plan.config)]
    kind = [record for record in same if record.is_pinned == (plan.origin == "pinned")]
    return max(kind, key=lambda record: record.created, default=None)


def _evidence_on(plan: Plan, record: Record | None, records: Sequence[Record]) -> Record | None:
    """The measurement to tell of: the plan's own, else the latest that tried it, else the latest."""
    if record is not None and record.candidates:
        return record

    def weight(each: Record) -> tuple[bool, str]:
        return any((c.strategy, c.config) == (plan.strategy, plan.config) for c in each.candidates), each.created

    tried = [each for each in records if each.candidates and each.version == __version__]
    return max(tried, key=weight, default=record)


def _order(entry: Entry) -> tuple[int, float]:
    """The chosen one first, then what was measured, what was predicted, and what was refused."""
    if entry.is_chosen:
        return 0, 0.0
    if entry.measured is not None:
        return 1, entry.measured.seconds
    return (2, entry.predicted) if entry.predicted is not None else (3, 0.0)


class _Judge:
    """Says what became of each candidate."""

    def __init__(
        self, plan: Plan, machine: Machine, threads: int, workspace_limit: int | None, record: Record | None
    ) -> None:
        self._plan, self._spec, self._machine = plan, plan.spec, machine
        self._threads, self._limit = threads, workspace_limit
        self._candidates = {} if record is None else {(c.strategy, c.config): c for c in record.candidates}
        self._rejected = () if record is None else record.rejected
        self._admitted = accuracy_limit(plan.spec)
        self._unit = min(self._seconds(s, s.default(plan.spec, machine)) for s in applicable(plan.spec, machine))
        self._own = self._seconds(strategy_named(plan.strategy), plan.config)
        self._best = self._candidates.get((plan.strategy, plan.config))

    def _seconds(self, strategy: Strategy, config: Config) -> float:
        return strategy.predicted_seconds(self._spec, config, self._machine)

    def strategy(self, strategy: Strategy) -> tuple[list[Entry], int]:
        """The entries of a strategy, and how many of its configurations have none."""
        refusal = self._refusal(strategy)
        if refusal is not None:
            return [Entry(strategy.name, None, refusal)], 0
        configs = strategy.space(self._spec, self._machine)
        told = [config for config in configs if self._is_told(strategy.name, config)]
        rest = [config for config in configs if config not in told]
        rest.sort(key=lambda config: self._seconds(strategy, config))
        entries = [self._entry(strategy, config) for config in (*told, *rest[:NAMED])]
        return entries, len(rest[NAMED:])

    def _refusal(self, strategy: Strategy) -> str | None:
        if strategy.name in forbidden_strategies():
            return "forbidden"
        reason = strategy.refusal(self._spec, self._machine)
        if reason is not None:
            return f"refused: {reason}"
        bound = strategy.error_bound(self._spec)
        if bound > self._admitted:
            return f"not accurate enough: error bound {bound:.1e}, {self._admitted:.1e} admitted"
        return None

    def _is_told(self, strategy: str, config: Config) -> bool:
        known = self._measured(strategy, config) is not None or bool(self._verdict(strategy, config))
        return known or self._is_plan(strategy, config)

    def _is_plan(self, strategy: str, config: Config) -> bool:
        return (strategy, config) == (self._plan.strategy, self._plan.config)

    def _measured(self, strategy: str, config: Config) -> Candidate | None:
        return self._candidates.get((strategy, config))

    def _verdict(self, strategy: str, config: Config) -> str:
        """Why verification rejected it, or "" if it did not."""
        start = f"{strategy} {config}: "
        return next((reason.removeprefix(start) for reason in self._rejected if reason.startswith(start)), "")

    def _entry(self, strategy: Strategy, config: Config) -> Entry:
        plan = Plan(self._spec, strategy.name, config, "measured")
        predicted = self._seconds(strategy, config)
        return Entry(
            strategy.name,
            config,
            self._fate(plan, predicted),
            self._is_plan(strategy.name, config),
            predicted / self._unit if self._unit else 1.0,
            self._measured(strategy.name, config),
            strategy.error_bound(self._spec),
            needed_bytes(plan, self._machine, worker_count(self._spec, self._threads)),
        )

    def _fate(self, plan: Plan, predicted: float) -> str:
        if self._is_plan(plan.strategy, plan.config):
            return "chosen"
        rejected = self._verdict(plan.strategy, plan.config)
        if rejected:
            return f"failed: {rejected}"
        if not fits(plan, self._machine, self._limit, self._threads):
            return f"over the workspace limit of {self._limit} bytes"
        measured = self._measured(plan.strategy, plan.config)
        if measured is not None and self._best is not None and self._best.seconds:
            behind = measured.seconds / self._best.seconds - 1
            if abs(behind) <= TIE:
                return f"a tie ({behind:+.1%}): the simpler was taken"
            return f"measured {abs(behind):.1%} {'slower' if behind > 0 else 'faster'}"
        told = f"predicted {_slower(predicted / self._own if self._own else 1.0)}"
        return f"{told}, not measured" if self._candidates else told


def _slower(ratio: float) -> str:
    """A ratio of times in words."""
    if ratio >= 2:
        return f"{ratio:.1f} times as long"
    return f"{abs(ratio - 1):.0%} {'slower' if ratio >= 1 else 'faster'}"
