"""Tuning results as T4, the format that Kernel Tuner and others exchange results of autotuners in.

A document holds one result for each configuration that was measured; problem, machine, threads and strategy are parameters of
the configuration beside the strategy's own. Verification in full and provenance have no place in it, so that it is written and
not read.

Source: the results schema of T4, version 1.0.0, which Kernel Tuner ships and writes (github.com/odgaard/TuningSchema).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from convgen.descriptor import format_descriptor
from convgen.errors import ExchangeError
from convgen.spec import ConvSpec
from convgen.tuning.record import Candidate, Record

SCHEMA_VERSION = "1.0.0"
INVALIDITIES = ("timeout", "compile", "runtime", "correctness", "constraints", "correct")

_RESULT: Mapping[str, type | tuple[type, ...]] = {
    "timestamp": str,
    "configuration": dict,
    "objectives": list,
    "times": dict,
    "invalidity": str,
    "correctness": (int, float),
    "measurements": list,
}
_REQUIRED = ("configuration", "times", "invalidity", "correctness")
_TIMES: Mapping[str, type | tuple[type, ...]] = {
    "compilation_time": (int, float),
    "runtimes": list,
    "framework": (int, float),
    "search_algorithm": (int, float),
    "validation": (int, float),
}
_MEASUREMENT: Mapping[str, type | tuple[type, ...]] = {"name": str, "value": (int, float, str, list), "unit": str}


def to_t4(records: Iterable[Record]) -> dict[str, object]:
    """The document of all that was measured; times are in seconds."""
    results = [
        _result(record, candidate) for record in records if not record.is_pinned for candidate in record.candidates
    ]
    return {"schema_version": SCHEMA_VERSION, "results": results}


def _result(record: Record, candidate: Candidate) -> dict[str, object]:
    bounds = {"time_low": candidate.low, "time_high": candidate.high}
    return {
        "timestamp": record.created,
        "configuration": {
            "problem": format_descriptor(ConvSpec.from_json(record.problem)),
            "machine": record.fingerprint,
            "threads": record.threads,
            "strategy": candidate.strategy,
            **dict(candidate.config.values),
        },
        "objectives": ["time"],
        "times": {"runtimes": []},
        "invalidity": "correct",
        "correctness": 1,
        "measurements": [
            {"name": "time", "value": candidate.seconds, "unit": "s"},
            *({"name": name, "value": value, "unit": "s"} for name, value in bounds.items() if value is not None),
            {"name": "runs", "value": candidate.count, "unit": ""},
        ],
    }


def check_t4(document: object) -> None:
    """Raises ExchangeError naming the first part of a document that T4's schema of results does not admit."""
    fields = _fields("document", document, {"schema_version": str, "results": list}, ())
    version = str(fields.get("schema_version", SCHEMA_VERSION)).split(".")
    if len(version) != 3 or not all(part.isdecimal() for part in version):
        raise ExchangeError(f"schema_version={fields['schema_version']!r} is not valid; allowed: major.minor.patch")
    results = fields.get("results", [])
    assert isinstance(results, list)
    for number, result in enumerate(results):
        where = f"results[{number}]"
        parts = _fields(where, result, _RESULT, _REQUIRED)
        _fields(f"{where}.times", parts["times"], _TIMES, ())
        if parts["invalidity"] not in INVALIDITIES:
            raise ExchangeError(
                f"{where}.invalidity={parts['invalidity']!r} is not known; allowed: {', '.join(INVALIDITIES)}"
            )
        measurements = parts.get("measurements", [])
        assert isinstance(measurements, list)
        for index, measurement in enumerate(measurements):
            _fields(f"{where}.measurements[{index}]", measurement, _MEASUREMENT, ())


def _fields(
    where: str, value: object, kinds: Mapping[str, type | tuple[type, ...]], required: tuple[str, ...]
) -> Mapping[str, object]:
    """The fields of an object whose known ones are of the right kinds; others may be there too, as JSON Schema has it."""
    if not isinstance(value, dict):
        raise ExchangeError(f"{where} is a {type(value).__name__}; allowed: an object")
    for name in required:
        if name not in value:
            raise ExchangeError(f"{where} lacks {name!r}")
    for name, kind in kinds.items():
        if name in value and (isinstance(value[name], bool) or not isinstance(value[name], kind)):
            raise ExchangeError(f"{where}.{name}={value[name]!r} is of a kind that is not allowed")
    return value
