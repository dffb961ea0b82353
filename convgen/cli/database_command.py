"""``convgen db list``: what tuning has found, the oldest first."""

from __future__ import annotations

import argparse
from pathlib import Path

from convgen.cli.report import Column, choice, milliseconds, print_line, print_table, shape
from convgen.errors import OptionError, SpecError
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.tuning.database import Database, default_path
from convgen.tuning.record import Record

_SQLITE_START = b"SQLite format 3\0"
_COLUMNS: tuple[Column, ...] = (
    ("problem", "left"),
    ("thr", "right"),
    ("strategy, config", "left"),
    ("ms", "right"),
    ("speedup", "right"),
    ("rel. L2", "right"),
    ("machine, date", "left"),
)


def run_list(arguments: argparse.Namespace) -> int:
    """Prints a table of all records; returns 0. Raises OptionError for a path that is not a database."""
    path = default_path() if arguments.path is None else _checked(arguments.path)
    records = Database(path).records()
    host = Machine.host().fingerprint()
    if records:
        print_table(_COLUMNS, [_row(record, host) for record in records])
    print_line(f"{len(records)} results in {path}")
    return 0


def _checked(text: str) -> Path:
    """The path of a database that is there: the database itself renames what it cannot read, which must not hit any file."""
    path = Path(text)
    try:
        with path.open("rb") as file:
            start = file.read(len(_SQLITE_START))
    except OSError as error:
        raise OptionError(f"path={text!r} cannot be read: {error.strerror}") from error
    if start != _SQLITE_START:
        raise OptionError(f"path={text!r} is not an SQLite database; allowed: a tuning database of convgen")
    return path


def _row(record: Record, host: str) -> tuple[str, ...]:
    speedup = record.baseline_seconds / record.seconds if record.seconds else 1.0
    return (
        _problem(record.problem),
        str(record.threads),
        choice(record.strategy, record.config),
        milliseconds(record.seconds),
        f"{speedup:.2f}",
        f"{record.error:.1e}",
        f"{'this' if record.fingerprint == host else record.fingerprint}\n{record.created[:10]}",
    )


def _problem(text: str) -> str:
    try:
        return shape(ConvSpec.from_json(text))
    except SpecError:  # of another version
        return text
