"""``convgen lock``: the choices of a network as a file that a project keeps, and whether it is complete."""

from __future__ import annotations

import argparse
from pathlib import Path

from convgen.cli.problems import Problem, read_source
from convgen.cli.report import Column, choice, print_line, print_table, shape
from convgen.driver import check_limit, thread_count
from convgen.errors import LockError
from convgen.locking import Call, plan_in
from convgen.machine import Machine
from convgen.options import LOCK_NAME, lock_path
from convgen.planning import free_plan
from convgen.tuning.lockfile import LockEntry, read_lock, write_lock

_COLUMNS: tuple[Column, ...] = (("problem", "left"), ("x", "right"), ("strategy, config", "left"), ("by", "left"))


def run_lock(arguments: argparse.Namespace) -> int:
    """Writes the choices of all problems, beside those the file has, or with --check compares; returns 0, or 1 where the check
    finds a choice missing. Raises LockError, and what reading the source raises."""
    source = read_source(arguments.source, batch=arguments.batch, layout=arguments.layout, dtype=arguments.dtype)
    check_limit(arguments.workspace_limit)
    threads = thread_count(arguments.threads)
    calls = [
        (problem, Call(problem.spec, Machine.host(), threads, arguments.workspace_limit)) for problem in source.problems
    ]
    path = Path(arguments.output) if arguments.output else lock_path() or Path(LOCK_NAME)
    return _check(path, calls) if arguments.check else _write(path, calls)


def _write(path: Path, calls: list[tuple[Problem, Call]]) -> int:
    entries = dict(read_lock(path).entries) if path.exists() else {}
    rows = []
    for problem, call in calls:
        entry, origin = _entry(call)
        entries[entry.key] = entry
        rows.append((shape(problem.spec), str(problem.count), choice(*entry.choice), origin))
    write_lock(path, entries.values())
    print_table(_COLUMNS, rows)
    print_line(
        f"{len(calls)} choices for this machine ({Machine.host().fingerprint()}) and threads={calls[0][1].threads}"
    )
    print_line(f"{len(entries)} entries in {path}")
    return 0


def _entry(call: Call) -> tuple[LockEntry, str]:
    """The entry of a problem, and where its choice comes from."""
    plan = free_plan(call, may_measure=False)
    streamed = free_plan(call.streamed(), may_measure=False)
    best = (plan.strategy, plan.config)
    other = (streamed.strategy, streamed.config)
    return (
        LockEntry(
            call.spec,
            call.machine.fingerprint(),
            call.threads,
            best,
            None if other == best else other,
            call.workspace_limit,
        ),
        plan.origin,
    )


def _check(path: Path, calls: list[tuple[Problem, Call]]) -> int:
    lock = read_lock(path)
    missing = []
    for _, call in calls:
        try:
            for each in (call, call.streamed()):
                plan_in(lock, each)
        except LockError as error:
            missing.append(str(error))
    for reason in missing:
        print_line(reason)
    print_line(f"{len(calls) - len(missing)} of {len(calls)} problems have a valid choice in {path}")
    return 1 if missing else 0
