"""``convgen doctor``: prints what the doctor finds."""

from __future__ import annotations

from convgen.cli.report import Column, print_line, print_table
from convgen.doctor import examine

_COLUMNS: tuple[Column, ...] = (("what", "left"), ("state", "left"), ("found", "left"))


def run_doctor() -> int:
    """Prints a table; returns 1 if something has failed."""
    findings = examine()
    print_table(_COLUMNS, [(finding.topic, finding.state, finding.text) for finding in findings])
    failed = sum(finding.state == "failed" for finding in findings)
    print_line(f"{failed} failed" if failed else "convgen works on this machine")
    return 1 if failed else 0
