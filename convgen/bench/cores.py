"""Which processors a measurement may use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from convgen.errors import OptionError

_CPU = Path("/sys/devices/system/cpu")


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keeps the calling thread, and all that it starts, on as many processors, each a core of its own where there are enough.

    Raises OptionError if the process has fewer. Where the system cannot pin, nothing happens.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    if threads > len(before):
        raise OptionError(f"threads={threads} is more than this process may use; allowed: 1 to {len(before)}")
    os.sched_setaffinity(0, choose(before, threads))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def choose(available: set[int], count: int, root: Path = _CPU) -> set[int]:
    """The processors to use: the first of each core before any second; the last cores first, since the system is busy on
    the first."""
    return set(sorted(available, key=lambda cpu: (_rank(cpu, root), -cpu))[:count])


def _rank(cpu: int, root: Path) -> int:
    """0 for the first processor of its core, 1 for the second."""
    try:
        text = (root / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return 0
    siblings: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        siblings += range(int(low), int(high or low) + 1)
    return sorted(siblings).index(cpu) if cpu in siblings else 0
