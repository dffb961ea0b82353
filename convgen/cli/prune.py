"""``convgen db prune``: results that nobody needs any more."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable

from convgen import __version__
from convgen.choices import database
from convgen.cli.report import print_line
from convgen.errors import DTypeError, OptionError, SpecError
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.registry import STRATEGIES
from convgen.tuning.record import Record

_Test = Callable[[Record], bool]

# Nothing is older than a thousand years, and the calendar does not begin much earlier.
_MOST_DAYS = 365_000


def run_prune(arguments: argparse.Namespace) -> int:
    """Removes what any of the options names, pins aside; returns 0. Raises OptionError if there is no option, or an age that
    is none."""
    tests = _tests(arguments)
    if not tests:
        raise OptionError("db prune needs to be told what to remove; allowed: the options that `--help` lists")
    records = [
        record for record in database().records() if not record.is_pinned and any(test(record) for test in tests)
    ]
    if arguments.dry_run:
        print_line(f"{len(records)} records would be removed from {database().path}")
    else:
        print_line(f"{database().remove(records)} records removed from {database().path}")
    return 0


def _tests(arguments: argparse.Namespace) -> list[_Test]:
    here = Machine.host().fingerprint()
    names = [strategy.name for strategy in STRATEGIES]
    tests: list[_Test] = []
    if arguments.other_versions:
        tests.append(lambda record: record.version != __version__)
    if arguments.older_than is not None:
        if not 0 <= arguments.older_than <= _MOST_DAYS:
            raise OptionError(
                f"older_than={arguments.older_than} is not valid; allowed: integers from 0 to {_MOST_DAYS}, in days"
            )
        limit = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=arguments.older_than)
        tests.append(lambda record: _created(record) < limit)
    if arguments.fingerprint is not None:
        tests.append(lambda record: record.fingerprint == arguments.fingerprint)
    if arguments.other_machines:
        tests.append(lambda record: record.fingerprint != here)
    if arguments.unknown:
        tests.append(lambda record: record.strategy not in names or not _is_problem(record.problem))
    return tests


def _created(record: Record) -> datetime.datetime:
    """When a record was made; now, if that cannot be read: it is not old as far as anybody knows."""
    try:
        created = datetime.datetime.fromisoformat(record.created)
    except ValueError:
        return datetime.datetime.now(datetime.UTC)
    return created if created.tzinfo else created.replace(tzinfo=datetime.UTC)


def _is_problem(text: str) -> bool:
    try:
        ConvSpec.from_json(text)
    except (SpecError, DTypeError):
        return False
    return True
