"""What tuning found out about one problem: the choice, what it rests on, and where it comes from."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Literal, TypeVar, cast, get_args

from convgen.errors import OptionError
from convgen.spec import ConvSpec
from convgen.tuning.space import Config

Origin = Literal["measured", "pinned", "imported", "merged", "shipped"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)
# The number of threads of a pin that holds for every number of them.
ANY_THREADS = 0
# Fields that say how a record came here, and not what was found.
_PROVENANCE = ("origin", "source", "host")
# What the speed of a kernel depends on besides convgen.
_TOOLS = ("llvmlite", "numba", "numpy")

Key = tuple[str, str, int, str, int | None]
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Candidate:
    """One configuration that was measured: the median seconds of a call with packed weights.

    ``low`` and ``high`` are the ends of a confidence interval of the median and ``count`` the number of timed runs, None and 0
    where they are not known; ``predicted`` is what the cost model said, if it was asked. ``passed`` is whether it is known to
    have passed all gates: what is far from winning is examined on integers alone.
    """

    strategy: str
    config: Config
    seconds: float
    low: float | None = None
    high: float | None = None
    count: int = 0
    predicted: float | None = None
    passed: bool = False


@dataclass(frozen=True)
class Record:
    """The outcome of tuning one problem on one machine, or a choice that a person has pinned.

    ``problem`` is ``ConvSpec.to_json()``, ``fingerprint`` the machine's, ``version`` convgen's, ``tools`` those of the
    compilers. ``seconds`` is the median time of ``strategy`` with ``config``, ``baseline_seconds`` that of the heuristic's
    choice in the same run, ``error`` the relative L2 error against the oracle, ``verified`` the gates that were passed (none:
    it is never chosen), ``created`` the time of storing (UTC, ISO 8601). ``candidates`` holds everything measured, ``rejected``
    what failed and why. ``workspace_limit`` is the limit in bytes under which it was found, if there was one. ``origin`` says
    how the record came here, ``source`` from which file, ``host`` on which computer it was measured, if that is told.
    """

    problem: str
    fingerprint: str
    threads: int
    version: str
    strategy: str
    config: Config
    seconds: float
    baseline_seconds: float
    error: float
    verified: str
    created: str
    candidates: tuple[Candidate, ...] = ()
    rejected: tuple[str, ...] = ()
    workspace_limit: int | None = None
    tools: str = ""
    origin: Origin = "measured"
    source: str = ""
    host: str = ""

    @property
    def key(self) -> Key:
        """What a choice is made for; records with the same key are evidence about the same question."""
        return (self.problem, self.fingerprint, self.threads, self.version, self.workspace_limit)

    @property
    def choice(self) -> tuple[str, Config]:
        """The strategy and its configuration."""
        return (self.strategy, self.config)

    @property
    def is_pinned(self) -> bool:
        """Whether a person has made this choice."""
        return self.origin == "pinned"

    def moved(self, origin: Origin | None, source: str) -> Record:
        """The record as it arrives from a file, with another origin if one is given; a pin stays a pin."""
        return self if origin is None or self.is_pinned else dataclasses.replace(self, origin=origin, source=source)

    @functools.cached_property
    def identity(self) -> str:
        """40 hexadecimal digits, equal for two copies of a record wherever they have been."""
        # Fields that have their default are not among them, so that a field more changes no identity.
        fields = [pair for pair in sorted(to_fields(self).items()) if pair[0] not in _PROVENANCE]
        return hashlib.sha256(json.dumps([self.is_pinned, fields]).encode()).hexdigest()[:40]


def unite(*sets: Iterable[Record]) -> tuple[Record, ...]:
    """All records of some sets, the oldest first; of copies of one the one that came the shortest way."""
    found: dict[str, Record] = {}
    for record in itertools.chain(*sets):
        identity = record.identity
        found[identity] = min(found.get(identity, record), record, key=_provenance)
    return tuple(sorted(found.values(), key=lambda record: (record.created, record.identity)))


def _provenance(record: Record) -> tuple[int, str, str]:
    return (ORIGINS.index(record.origin), record.source, record.host)


@functools.cache
def current_tools() -> str:
    """The versions of the compilers in this process, as a record names them."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in _TOOLS)


def to_fields(record: Record) -> dict[str, object]:
    """The record as JSON values, without fields that have their default; problem and configurations are objects."""
    return _without_defaults(record) | {
        "problem": _problem_object(record.problem),
        "config": dict(record.config.values),
        **({"candidates": [candidate_fields(each) for each in record.candidates]} if record.candidates else {}),
    }


def candidate_fields(candidate: Candidate) -> dict[str, object]:
    """The same of a candidate."""
    return _without_defaults(candidate) | {"config": dict(candidate.config.values)}


def _without_defaults(value: Record | Candidate) -> dict[str, object]:
    pairs = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {field.name: content for field, content in pairs if content != field.default}


def from_fields(fields: object) -> Record:
    """The record that ``to_fields`` took apart; raises OptionError naming the first field that is not valid."""
    known = _object(fields, "record", {field.name for field in dataclasses.fields(Record)})
    origin = _value(known, "origin", _text, "measured")
    if origin not in ORIGINS:
        raise OptionError(f"origin={origin!r} is not known; allowed: {', '.join(ORIGINS)}")
    return Record(
        problem=_value(known, "problem", _problem),
        fingerprint=_value(known, "fingerprint", _text),
        threads=_value(known, "threads", _count),
        version=_value(known, "version", _text),
        strategy=_value(known, "strategy", _text),
        config=_value(known, "config", _config),
        seconds=_value(known, "seconds", _number),
        baseline_seconds=_value(known, "baseline_seconds", _number),
        error=_value(known, "error", _number),
        verified=_value(known, "verified", _text, ""),
        created=_value(known, "created", _text),
        candidates=tuple(map(candidate_from_fields, _value(known, "candidates", _list, []))),
        rejected=_value(known, "rejected", _texts, ()),
        workspace_limit=_value(known, "workspace_limit", _count, None),
        tools=_value(known, "tools", _text, ""),
        origin=origin,
        source=_value(known, "source", _text, ""),
        host=_value(known, "host", _text, ""),
    )


def candidate_from_fields(fields: object) -> Candidate:
    """The same of a candidate."""
    known = _object(fields, "candidate", {field.name for field in dataclasses.fields(Candidate)})
    return Candidate(
        strategy=_value(known, "strategy", _text),
        config=_value(known, "config", _config),
        seconds=_value(known, "seconds", _number),
        low=_value(known, "low", _number, None),
        high=_value(known, "high", _number, None),
        count=_value(known, "count", _count, 0),
        predicted=_value(known, "predicted", _number, None),
        passed=_value(known, "passed", _flag, False),
    )


_REQUIRED = object()


def _value(
    fields: Mapping[str, object], name: str, read: Callable[[object], _Value], default: object = _REQUIRED
) -> _Value:
    """The field's value; raises OptionError with its name where it is missing or not valid."""
    if name not in fields:
        if default is _REQUIRED:
            raise OptionError(f"{name} is missing")
        return cast(_Value, default)
    try:
        return read(fields[name])
    except TypeError as error:
        raise OptionError(f"{name}={fields[name]!r} is not valid; allowed: {error}") from error


def _object(value: object, what: str, names: set[str]) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise OptionError(f"{what}={value!r} is not valid; allowed: an object")
    for name in value:
        if name not in names:
            raise OptionError(f"{name!r} is not a field of a {what}; allowed: {', '.join(sorted(names))}")
    return value


def _problem_object(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:  # of a version whose problems were something else
        return text


def _problem(value: object) -> str:
    # Read and written again, so that equal problems are equal texts, whoever wrote them.
    return ConvSpec.from_json(value if isinstance(value, str) else json.dumps(value)).to_json()


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError("a list of texts")
    return tuple(value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("a list")
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise TypeError("an integer from 0")
    return value


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise TypeError("true or false")
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float) or not 0 <= cast(float, value) < math.inf:
        raise TypeError("a number from 0")
    return float(cast(float, value))


def _config(value: object) -> Config:
    if not isinstance(value, dict) or not all(type(number) is int for number in value.values()):
        raise TypeError("an object of integers")
    return Config(tuple(value.items()))
