"""How long this process's threads were ready to run and did not: what other programs took from a measurement."""

from __future__ import annotations

import os

_TASKS = "/proc/self/task"


def seconds_waited() -> float:
    """Seconds that all threads together have waited for a processor, by the scheduler's own account; 0 where it keeps none."""
    total = 0
    try:
        for task in os.listdir(_TASKS):
            total += _waited(f"{_TASKS}/{task}/schedstat")
    except OSError:
        return 0.0
    return total / 1e9


def _waited(path: str) -> int:
    """The second field, in nanoseconds; 0 for a thread that has ended meanwhile."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return 0
    try:
        fields = os.read(file, 128).split()
        return int(fields[1]) if len(fields) > 1 else 0
    finally:
        os.close(file)
