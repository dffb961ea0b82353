"""``convgen db``: what tuning has found, and how it travels."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from convgen.choices import database, decided
from convgen.cli.problems import read_spec
from convgen.cli.prune import run_prune
from convgen.cli.report import Column, choice, milliseconds, print_line, print_table, shape
from convgen.errors import OptionError, SpecError
from convgen.machine import Machine
from convgen.pinning import pin, unpin
from convgen.spec import ConvSpec
from convgen.tuning.database import Database, default_path, records_in
from convgen.tuning.exchange import read_records, to_lines
from convgen.tuning.record import ANY_THREADS, Key, Origin, Record, unite
from convgen.tuning.space import Config
from convgen.tuning.t4 import check_t4, to_t4

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
_DIFF_COLUMNS: tuple[Column, ...] = (
    ("problem", "left"),
    ("thr", "right"),
    ("machine", "left"),
    ("first", "left"),
    ("second", "left"),
)


def run_db(arguments: argparse.Namespace) -> int:
    """Runs an action of ``convgen db`` and returns its exit status. Raises ExchangeError for files that are not valid, and what
    reading problems, pinning and writing raise."""
    match arguments.action:
        case "list":
            return _list(arguments)
        case "export":
            return _export(arguments)
        case "import":
            return _add({file: read_records(Path(file), "imported") for file in arguments.files})
        case "merge":
            return _add({file: _read(file, "merged") for file in arguments.files})
        case "diff":
            return _diff(arguments)
        case "prune":
            return run_prune(arguments)
        case "pin":
            config = None if arguments.config is None else Config.parse(arguments.config)
            made = pin(read_spec(arguments.spec), arguments.strategy, config, arguments.threads)
            where = database()
            if not where.is_written:
                raise OptionError(f"{where.path} cannot be written; allowed for a pin: a database that can be")
            print_line(f"pinned {made.strategy} {made.config} (relative L2 error {made.error:.1e}) in {where.path}")
            return 0
        case _:
            print_line(f"{unpin(read_spec(arguments.spec), arguments.threads)} pins removed from {database().path}")
            return 0


def _list(arguments: argparse.Namespace) -> int:
    """Prints a table of what counts, the oldest first."""
    path = default_path() if arguments.path is None else _checked(arguments.path)
    records = Database(path).records()
    host = Machine.host().fingerprint()
    found = sorted(_decided(records).values(), key=lambda record: record.created)
    if found:
        print_table(_COLUMNS, [_row(record, host) for record in found])
    beside = f" ({len(records)} records)" if len(records) != len(found) else ""
    print_line(f"{len(found)} results in {path}{beside}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    here = Machine.host().fingerprint()
    records = [each for each in database().records() if each.fingerprint == here or not arguments.here]
    if arguments.format == "t4":
        document = to_t4(records)
        check_t4(document)
        text = json.dumps(document, indent=1) + "\n"
    else:
        text = "".join(f"{line}\n" for line in to_lines(records, hosts=arguments.hosts))
    if arguments.output is None:
        sys.stdout.write(text)
        return 0
    path = Path(arguments.output)
    if arguments.here and path.is_dir():
        path = path / f"{here}.jsonl"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OptionError(f"output={arguments.output!r} cannot be written: {error.strerror}") from error
    print_line(f"{len(records)} records written to {path}")
    return 0


def _add(files: Mapping[str, tuple[Record, ...]]) -> int:
    """Adds the records of files, all of which have been read, and prints what is new."""
    before = _decided(database().records())
    for file, records in files.items():
        print_line(f"{file}: {len(records)} records, {database().add(records)} new")
    after = _decided(database().records())
    rows = [_diff_row(key, before[key], after[key]) for key in before if before[key].choice != after[key].choice]
    if rows:
        print_line("choices that the evidence changes, from the first to the second:")
        print_table(_DIFF_COLUMNS, rows)
    print_line(f"{len(after.keys() - before.keys())} results more, {len(rows)} other choices in {database().path}")
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    first = _decided(_read(arguments.first, None))
    second = _decided(database().records() if arguments.second is None else _read(arguments.second, None))
    common = [key for key in first if key in second]
    rows = [_diff_row(key, first[key], second[key]) for key in common if first[key].choice != second[key].choice]
    if rows:
        print_table(_DIFF_COLUMNS, rows)
    print_line(
        f"{len(common)} results in both, {len(rows)} of them differ; "
        f"{len(first) - len(common)} in the first alone, {len(second) - len(common)} in the second alone"
    )
    return 1 if rows else 0


def _decided(records: Iterable[Record]) -> dict[tuple[Key, bool], Record]:
    """The record that counts for each key; pins stand beside what was measured."""
    groups: dict[tuple[Key, bool], list[Record]] = {}
    for record in records:
        groups.setdefault((record.key, record.is_pinned), []).append(record)
    found = {key: decided(group) for key, group in groups.items()}
    return {key: record for key, record in found.items() if record is not None}


def _read(text: str, origin: Origin | None) -> tuple[Record, ...]:
    """The records of a database or an export; as in read_records, ``origin`` marks what was measured elsewhere."""
    path = Path(text)
    if not _is_database(text):
        return read_records(path, origin)
    return unite(record.moved(origin, path.name) for record in records_in(path))


def _checked(text: str) -> Path:
    """The path of a database that is there: the database itself renames what it cannot read, which must not hit any file."""
    if not _is_database(text):
        raise OptionError(f"path={text!r} is not an SQLite database; allowed: a tuning database of convgen")
    return Path(text)


def _is_database(text: str) -> bool:
    try:
        with Path(text).open("rb") as file:
            return file.read(len(_SQLITE_START)) == _SQLITE_START
    except OSError as error:
        raise OptionError(f"path={text!r} cannot be read: {error.strerror}") from error


def _row(record: Record, host: str) -> tuple[str, ...]:
    speedup = f"{record.baseline_seconds / record.seconds:.2f}" if record.seconds else "-"
    how = "" if record.origin == "measured" else f" {record.origin}"
    return (
        _problem(record.problem),
        _threads(record.threads),
        choice(record.strategy, record.config),
        milliseconds(record.seconds) if record.seconds else "-",
        speedup,
        f"{record.error:.1e}",
        f"{'this' if record.fingerprint == host else record.fingerprint}\n{record.created[:10]}{how}",
    )


def _diff_row(key: tuple[Key, bool], first: Record, second: Record) -> tuple[str, ...]:
    problem, fingerprint, threads, _, _ = key[0]
    return (_problem(problem), _threads(threads), fingerprint, choice(*first.choice), choice(*second.choice))


def _threads(threads: int) -> str:
    return "any" if threads == ANY_THREADS else str(threads)


def _problem(text: str) -> str:
    try:
        return shape(ConvSpec.from_json(text))
    except SpecError:  # of another version
        return text
