"""The lockfile: the choices of a project as text that is reviewed and versioned with it.

    {"format":"convgen-lock","version":1}
    {"problem":"mb1_ic64oc64_ih56oh56kh3ph1","machine":"0123456789abcdef","threads":2,"strategy":"winograd","config":"m=4"}

JSON Lines: a header, then one sorted line for each problem, kind of machine (its fingerprint), number of threads and workspace
limit, so that a change of one choice is a change of one line and entries for several machines stand side by side. Where weights
that are packed in each call deserve another choice, "streamed" holds its strategy and configuration.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from convgen.descriptor import format_descriptor, parse_descriptor
from convgen.errors import DTypeError, LockError, OptionError, SpecError
from convgen.spec import ConvSpec
from convgen.tuning.space import Config

FORMAT = "convgen-lock"
FORMAT_VERSION = 1

_REQUIRED = {"problem": str, "machine": str, "threads": int, "strategy": str, "config": str}
_OPTIONAL = {"workspace_limit": int, "streamed": list}

Choice = tuple[str, Config]
LockKey = tuple[ConvSpec, str, int, int | None]


@dataclass(frozen=True)
class LockEntry:
    """One pinned choice: for packed weights, and in ``streamed`` for weights that each call packs where that is another."""

    spec: ConvSpec
    machine: str
    threads: int
    choice: Choice
    streamed: Choice | None = None
    workspace_limit: int | None = None

    @property
    def key(self) -> LockKey:
        """What it is found by."""
        return (self.spec, self.machine, self.threads, self.workspace_limit)


@dataclass(frozen=True)
class Lockfile:
    """The entries of a lockfile by their key."""

    path: Path
    entries: dict[LockKey, LockEntry]

    def find(self, spec: ConvSpec, machine: str, threads: int, workspace_limit: int | None) -> tuple[LockEntry, ...]:
        """Returns the entries that may count, the first that fits is meant: the one without a limit, then the one with this."""
        limits = dict.fromkeys((None, workspace_limit))
        found = (self.entries.get((spec, machine, threads, limit)) for limit in limits)
        return tuple(entry for entry in found if entry is not None)


def read_lock(path: Path) -> Lockfile:
    """Returns a lockfile's entries; raises LockError with the line that is not valid."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise LockError(f"lockfile {str(path)!r} cannot be read: {error.strerror}") from error
    entries: dict[LockKey, LockEntry] = {}
    header_seen = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = _parsed(path, number, line)
        if not header_seen:
            _check_header(path, number, fields)
            header_seen = True
            continue
        entry = _entry(path, number, fields)
        if entries.setdefault(entry.key, entry) != entry:
            _refuse(path, number, f"problem={fields['problem']!r} has two choices for one machine")
    if not header_seen:
        _refuse(path, 1, "the header is missing")
    return Lockfile(path, entries)


def write_lock(path: Path, entries: Iterable[LockEntry]) -> None:
    """Writes a lockfile, wholly or not at all; raises LockError where that fails."""
    lines = [_line({"format": FORMAT, "version": FORMAT_VERSION}), *sorted(_line(_fields(entry)) for entry in entries)]
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise LockError(f"lockfile {str(path)!r} cannot be written: {error.strerror}") from error


def _fields(entry: LockEntry) -> dict[str, object]:
    fields: dict[str, object] = {
        "problem": format_descriptor(entry.spec),
        "machine": entry.machine,
        "threads": entry.threads,
    }
    if entry.workspace_limit is not None:
        fields["workspace_limit"] = entry.workspace_limit
    fields |= {"strategy": entry.choice[0], "config": str(entry.choice[1])}
    if entry.streamed is not None:
        fields["streamed"] = [entry.streamed[0], str(entry.streamed[1])]
    return fields


def _line(fields: dict[str, object]) -> str:
    return json.dumps(fields, separators=(",", ":"))


def _parsed(path: Path, number: int, line: bytes) -> dict[str, object]:
    try:
        fields = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        _refuse(path, number, f"this is not JSON ({error})")
    if not isinstance(fields, dict):
        _refuse(path, number, "this is not a JSON object")
    return fields


def _check_header(path: Path, number: int, fields: dict[str, object]) -> None:
    if fields != {"format": FORMAT, "version": FORMAT_VERSION}:
        expected = _line({"format": FORMAT, "version": FORMAT_VERSION})
        _refuse(path, number, f"this is not the header of a lockfile that this convgen reads; allowed: {expected}")


def _entry(path: Path, number: int, fields: dict[str, object]) -> LockEntry:
    kinds = _REQUIRED | _OPTIONAL
    for name in (*fields, *_REQUIRED):
        if name not in kinds:
            _refuse(path, number, f"{name!r} is not a field; allowed: {', '.join(kinds)}")
        if type(fields.get(name)) is not kinds[name]:
            _refuse(path, number, f"{name}={fields.get(name)!r} is not valid; allowed: {kinds[name].__name__}")
    match fields:
        case {"problem": str(problem), "machine": str(machine), "threads": int(threads), "strategy": str(strategy)}:
            pass
        case _:
            raise AssertionError("the fields have been checked")
    limit = fields.get("workspace_limit")
    try:
        return LockEntry(
            parse_descriptor(problem),
            machine,
            threads,
            (strategy, Config.parse(str(fields["config"]))),
            _streamed(fields.get("streamed")),
            limit if isinstance(limit, int) else None,
        )
    except (SpecError, DTypeError, OptionError) as error:
        _refuse(path, number, str(error))


def _streamed(value: object) -> Choice | None:
    match value:
        case None:
            return None
        case [str(strategy), str(config)]:
            return strategy, Config.parse(config)
        case _:
            raise OptionError(f"streamed={value!r} is not valid; allowed: [strategy, configuration]")


def _refuse(path: Path, number: int, why: str) -> NoReturn:
    raise LockError(f"{path}, line {number}: {why}")
