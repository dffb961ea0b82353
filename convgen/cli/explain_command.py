"""``convgen explain``: the choice for a problem, its rivals and why each lost, and where it stands under the roofline."""

from __future__ import annotations

import argparse

from convgen.cli.problems import read_spec
from convgen.cli.report import Column, print_line, print_table
from convgen.descriptor import format_descriptor
from convgen.driver import check_limit, thread_count
from convgen.explanation import Entry, Explanation, explain
from convgen.machine import Machine
from convgen.options import workspace_limit
from convgen.tuner.calibration import calibrated_roofline

_COLUMNS: tuple[Column, ...] = (
    ("strategy, config", "left"),
    ("predicted", "right"),
    ("ms", "right"),
    ("interval", "right"),
    ("workspace", "right"),
    ("why", "left"),
)


def run_explain(arguments: argparse.Namespace) -> int:
    """Prints the explanation; returns 0. Raises what reading the problem and choosing raise."""
    spec = read_spec(arguments.spec)
    threads = thread_count(arguments.threads)
    check_limit(arguments.workspace_limit)
    limit = workspace_limit() if arguments.workspace_limit is None else arguments.workspace_limit
    machine = Machine.host()
    found = explain(spec, machine, threads, limit)
    print_line(f"problem     {format_descriptor(spec)}")
    print_line(f"machine     {machine.describe()}, threads {threads}")
    print_line(f"choice      {found.plan.strategy} {found.plan.config}".rstrip())
    print_line(f"provenance  {found.provenance}")
    print_line(f"accuracy    {_accuracy(found)}")
    if found.seconds:
        roofline = calibrated_roofline(machine, threads, spec.dtype)
        print_line(f"roofline    {roofline.position(spec, found.seconds).describe()}")
    print_line()
    print_table(_COLUMNS, [_row(entry) for entry in found.entries])
    for strategy, count in found.others:
        print_line(f"{count} more of {strategy} are predicted to be slower than those")
    return 0


def _accuracy(found: Explanation) -> str:
    bound = found.chosen.bound
    told = "-" if bound is None else f"{bound:.1e}"
    measured = "" if found.error is None else f", {found.error:.1e} on random numbers"
    return f"relative L2 error at most {told} of {found.limit:.1e} admitted{measured}"


def _row(entry: Entry) -> tuple[str, ...]:
    measured = entry.measured
    interval = "-"
    if measured is not None and measured.low is not None and measured.high is not None:
        interval = f"{1e3 * measured.low:.4f} to\n{1e3 * measured.high:.4f}"
    name = entry.strategy if entry.config is None or not entry.config.values else f"{entry.strategy}\n{entry.config}"
    return (
        name,
        "-" if entry.predicted is None else f"{entry.predicted:.2f}x",
        "-" if measured is None else f"{1e3 * measured.seconds:.4f}",
        interval,
        entry.size,
        entry.fate,
    )
