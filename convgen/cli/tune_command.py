"""``convgen tune``: a network in, a table of measured choices and the sources of the winners out."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

from convgen.choices import TunedPlan, database
from convgen.cli.problems import Problem, Source, read_source
from convgen.cli.report import Column, choice, milliseconds, print_line, print_table, progress, shape
from convgen.driver import thread_count
from convgen.errors import MissingDependencyError
from convgen.machine import Machine
from convgen.options import lock_path
from convgen.source_files import make_folder, write_source
from convgen.tuner.session import tune

OUTPUT = Path("convgen-out")

_COLUMNS: tuple[Column, ...] = (
    ("problem", "left"),
    ("x", "right"),
    ("strategy, config", "left"),
    ("ms", "right"),
    ("GF/s", "right"),
    ("speedup", "right"),
    ("rel. L2", "right"),
    ("result", "left"),
)


def run_tune(arguments: argparse.Namespace) -> int:
    """Tunes, prints, emits; returns 0. Raises what reading the source, tuning and writing raise."""
    start = time.perf_counter()
    source = read_source(arguments.source, batch=arguments.batch, layout=arguments.layout, dtype=arguments.dtype)
    threads = thread_count(arguments.threads)
    directory = Path(arguments.output) if arguments.output else OUTPUT / source.name
    if arguments.emit:  # what cannot be written is better known before minutes of tuning
        make_folder(directory)
    left = max(0.0, arguments.budget - (time.perf_counter() - start))
    with _workers(arguments.dask) as executor:
        results = _tune_all(source, left, arguments, executor)
    written = _emit_all(results, directory) if arguments.emit else "not written"
    print_table(_COLUMNS, [_row(*pair) for pair in zip(source.problems, results, strict=True)])
    for line in _summary(source, results, threads, time.perf_counter() - start):
        print_line(line)
    print_line(f"sources   {written}")
    print_line(f"database  {database().path}")
    if lock_path() is not None:
        print_line(f"lockfile  {lock_path()} decides until `convgen lock {arguments.source}` renews it")
    return 0


@contextmanager
def _workers(address: str | None) -> Iterator[Executor | None]:
    """The executor of a Dask scheduler; None without an address. Raises MissingDependencyError and FleetError."""
    if address is None:
        yield None
        return
    try:
        from convgen.tuner.dask_fleet import connected
    except ImportError as error:
        raise MissingDependencyError(
            f"dask={address!r} needs Dask, which is not installed: pip install 'convgen[fleet]'"
        ) from error
    with connected(address) as executor:
        yield executor


def _tune_all(
    source: Source, budget: float, arguments: argparse.Namespace, executor: Executor | None
) -> list[TunedPlan]:
    specs = [problem.spec for problem in source.problems]
    with progress(f"tuning {source.name}", len(specs)) as advance:
        results = tune(
            specs,
            budget,
            threads=arguments.threads,
            workspace_limit=arguments.workspace_limit,
            force=arguments.force,
            cache=arguments.cache,
            executor=executor,
            observer=lambda _, result: advance(str(result.plan.spec)),
        )
    assert isinstance(results, list)
    return results


def _emit_all(results: list[TunedPlan], directory: Path) -> str:
    """Writes the winners' sources; returns where they are and how many are new."""
    machine = Machine.host()
    new = 0
    with progress("writing sources", len(results)) as advance:
        for result in results:
            new += write_source(result.plan, directory, machine)[1]
            advance(str(result.plan.spec))
    return f"{directory} ({new} written, {len(results) - new} unchanged)"


def _row(problem: Problem, result: TunedPlan) -> tuple[str, ...]:
    return (
        shape(problem.spec),
        str(problem.count),
        choice(result.plan.strategy, result.plan.config),
        milliseconds(result.seconds),
        f"{result.gflops:.1f}",
        f"{result.speedup:.2f}",
        f"{result.error:.1e}",
        "measured" if result.measured else "pinned" if result.plan.origin == "pinned" else "found",
    )


def _summary(source: Source, results: list[TunedPlan], threads: int, elapsed: float) -> list[str]:
    pairs = list(zip(source.problems, results, strict=True))
    total = sum(problem.count * result.seconds for problem, result in pairs)
    baseline = sum(problem.count * result.baseline_seconds for problem, result in pairs)
    measured = sum(result.measured for result in results)
    lines = [
        f"{source.name}: {source.layers} layers, {len(results)} distinct problems, {threads} threads: "
        f"{1e3 * total:.3f} ms in total, {1e3 * baseline:.3f} ms by the heuristic's choices",
        f"{measured} measured, {len(results) - measured} found in the database, {elapsed:.1f} s",
    ]
    rejected = [f"rejected: {result.plan.spec}: {reason}" for result in results for reason in result.rejected]
    return [*lines, *rejected]
