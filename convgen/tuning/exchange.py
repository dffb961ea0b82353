"""Tuning results as text that can travel: JSON Lines, one record a line after a header.

    {"format":"convgen-tuning","version":1}
    {"problem":{"batch":1,...},"fingerprint":"0123456789abcdef","threads":2,"strategy":"direct","config":{"lanes":64},...}

A line has the fields of ``tuning.record.Record``; what is empty or unknown is left out. Files may be filtered by line and
concatenated: further headers are read over, and so are empty lines. Records are sorted, so that two exports can be compared
line by line. What is not valid is refused with its line, and then nothing of the file is used.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn, cast

from convgen.errors import DTypeError, ExchangeError, OptionError, SpecError
from convgen.tuning.record import Origin, Record, from_fields, to_fields

FORMAT = "convgen-tuning"
FORMAT_VERSION = 1


def to_lines(records: Iterable[Record], *, hosts: bool = False) -> Iterator[str]:
    """Yields the lines of an export, without their ends; with ``hosts`` the names of computers are told."""
    yield _line({"format": FORMAT, "version": FORMAT_VERSION})
    for record in sorted(records, key=lambda record: (_order(record), record.created, record.identity)):
        yield _line(to_fields(record if hosts else dataclasses.replace(record, host="")))


def _order(record: Record) -> tuple[str, str, int, str, int]:
    limit = -1 if record.workspace_limit is None else record.workspace_limit
    return (*record.key[:4], limit)


def _line(fields: dict[str, object]) -> str:
    return json.dumps(fields, separators=(",", ":"), allow_nan=False)


def read_records(path: Path, origin: Origin | None = None) -> tuple[Record, ...]:
    """Returns the records of an export; raises ExchangeError with the line that is not valid.

    Records other than pins get ``origin``, if it is given, and the file's name as their source.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ExchangeError(f"path={str(path)!r} cannot be read: {error.strerror}") from error
    records: list[Record] = []
    header_seen = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = _parsed(path, number, line)
        if "format" in fields or not header_seen:
            _check_header(path, number, fields)
            header_seen = True
            continue
        records.append(_record(path, number, fields).moved(origin, path.name))
    if not header_seen:
        _refuse(path, 1, f"the header is missing; allowed: {_line({'format': FORMAT, 'version': FORMAT_VERSION})}")
    return tuple(records)


def _parsed(path: Path, number: int, line: bytes) -> dict[str, object]:
    try:
        fields = json.loads(line.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _refuse(path, number, f"this is not JSON ({error})")
    if not isinstance(fields, dict):
        _refuse(path, number, "this is not a JSON object")
    return cast(dict[str, object], fields)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _check_header(path: Path, number: int, fields: dict[str, object]) -> None:
    if fields.get("format") != FORMAT:
        _refuse(path, number, f"format={fields.get('format')!r} is not known; allowed: {FORMAT!r}")
    if fields.get("version") != FORMAT_VERSION or isinstance(fields.get("version"), bool):
        _refuse(path, number, f"version={fields.get('version')!r} is not known; allowed: {FORMAT_VERSION}")


def _record(path: Path, number: int, fields: dict[str, object]) -> Record:
    try:
        return from_fields(fields)
    except (OptionError, SpecError, DTypeError) as error:
        _refuse(path, number, str(error))


def _refuse(path: Path, number: int, why: str) -> NoReturn:
    raise ExchangeError(f"{path}, line {number}: {why}")
