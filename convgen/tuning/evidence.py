"""Which choice a set of records speaks for.

Records are never merged into one another: merging databases unites their records, and a choice is a function of the set. Uniting
is commutative, associative and idempotent, so whatever way and however often results travel, the same set gives the same choice:

1. A pin holds, of several the newest.
2. A record that was not verified is never chosen.
3. Records made with this process's versions of the compilers outweigh others, then those with confidence intervals those
   without.
4. Of the choices of the records that are left, times are pooled: ratios to the heuristic's choice in the same run, so that a
   slower hour or host does not count, as means that are weighted by the number of timed runs; so are the ends of intervals.
5. The fastest wins, of equally fast ones the one whose interval is the lowest, if no other's interval overlaps its own. Of
   those that overlap, the one whose strategy stands first in the registry, then the one whose configuration comes first as
   text: noise does not decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from convgen.tuning.record import Candidate, Record
from convgen.tuning.space import Config

_Choice = tuple[str, Config]


@dataclass(frozen=True)
class _Pooled:
    """A choice's time as a ratio to the heuristic's, with its interval."""

    ratio: float
    low: float
    high: float


def decide(records: Iterable[Record], registry: Sequence[str], tools: str) -> Record | None:
    """Returns the record whose choice counts, or None if none may be chosen.

    ``records`` are about one question (they have one key, pins aside), ``registry`` names the strategies from the simplest on,
    ``tools`` are the compilers of this process. Of several records with the winning choice the one with most timed runs is
    returned, then the newest.
    """
    verified = [record for record in records if record.verified]
    pins = [record for record in verified if record.is_pinned]
    if pins:
        return max(pins, key=lambda record: (record.created, record.identity))
    best_class = max((_class(record, tools) for record in verified), default=None)
    heard = [record for record in verified if _class(record, tools) == best_class]
    if not heard:
        return None
    pooled = {choice: _pool(choice, heard) for choice in {record.choice for record in heard}}
    fastest = min(pooled.values(), key=lambda each: (each.ratio, each.low, each.high))
    alike = [choice for choice, each in pooled.items() if each.low <= fastest.high and fastest.low <= each.high]
    winner = min(alike, key=lambda choice: (_position(choice[0], registry), choice[0], str(choice[1])))
    return max(
        (record for record in heard if record.choice == winner),
        key=lambda record: (_measured(record).count, record.created, record.identity),
    )


def _class(record: Record, tools: str) -> tuple[bool, bool]:
    return (record.tools == tools, _measured(record).low is not None)


def _measured(record: Record) -> Candidate:
    """The measurement of a record's own choice."""
    return _measurement(record, record.choice) or Candidate(record.strategy, record.config, record.seconds)


def _measurement(record: Record, choice: _Choice) -> Candidate | None:
    return next((each for each in record.candidates if (each.strategy, each.config) == choice), None)


def _pool(choice: _Choice, records: Sequence[Record]) -> _Pooled:
    """The mean over all records that measured the choice."""
    found: list[tuple[Candidate, float]] = []
    for record in records:
        each = _measured(record) if record.choice == choice else _measurement(record, choice)
        if each is not None:
            found.append((each, record.baseline_seconds))
    weights = [max(1, each.count) for each, _ in found]

    def mean(values: Iterable[float]) -> float:
        # fsum is exact, so that the order of records does not matter.
        return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

    return _Pooled(
        mean(_ratio(each.seconds, baseline) for each, baseline in found),
        mean(_ratio(each.seconds if each.low is None else each.low, baseline) for each, baseline in found),
        mean(_ratio(each.seconds if each.high is None else each.high, baseline) for each, baseline in found),
    )


def _ratio(seconds: float, baseline: float) -> float:
    return seconds / baseline if baseline else 1.0


def _position(strategy: str, registry: Sequence[str]) -> int:
    return registry.index(strategy) if strategy in registry else len(registry)
