"""One process measures a problem, the others wait for what it finds.

A process that is about to measure writes a claim beside the results. Others that share the database, on this computer or on a
file system that several share, see it, wait until the result is there, and take the same. A claim ends when it is released, when
its owner is seen to be gone, and in any case when its time is over, so that nobody waits forever for the dead. Nor for the slow:
who has waited for as long as several would have taken measures too.
"""

from __future__ import annotations

import functools
import os
import platform
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from convgen.errors import WaitWarning
from convgen.tuning.database import Database
from convgen.tuning.record import Key

# How often a process that waits looks: often at first, and rarely enough not to disturb who measures.
_FIRST_LOOK = 0.02
_RAREST_LOOK = 0.5
# Of as many claims as long as one's own the end is waited for: others may come first, and fail.
_TURNS = 3

_Found = TypeVar("_Found")


@contextmanager
def claimed(
    database: Database, key: Key, seconds: float, known: Callable[[], _Found | None]
) -> Iterator[_Found | None]:
    """Gives None to the one process that is to measure and store a result within the block, which may last ``seconds``; gives
    the others what ``known`` finds once it has done so. If it fails, or takes longer, the next one is to measure; who has waited
    for three times ``seconds`` is given None too, and a WaitWarning.
    """
    owner = f"{_place()} {os.getpid()} {_started(os.getpid())} {uuid.uuid4().hex}"
    holder = [""]

    def is_gone(other: str) -> bool:
        holder[0] = other
        return _is_gone(other)

    pause, patience = _FIRST_LOOK, time.monotonic() + _TURNS * seconds
    while (until := database.claim(key, owner, time.time() + seconds, is_gone)) is not None:
        left = patience - time.monotonic()
        if left <= 0:
            _warn(key, holder[0], _TURNS * seconds)
            yield None
            return
        time.sleep(max(0.0, min(pause, left, until - time.time())))
        pause = min(1.5 * pause, _RAREST_LOOK)
        found = known()
        if found is not None:
            yield found
            return
    try:
        # Another may have finished between the caller's last look and the claim.
        yield known()
    finally:
        database.release(key, owner)


def _warn(key: Key, owner: str, seconds: float) -> None:
    place, pid = owner.split(" ")[:2]
    who = f"process {pid}" if place == _place() else "a process of another computer"
    warnings.warn(
        f"{who} has been waited for for {seconds:.0f} s, as it has claimed to measure {key[0]}; it is measured here too",
        WaitWarning,
        stacklevel=6,
    )


def _is_gone(owner: str) -> bool:
    """Whether the owner of a claim is known to have ended; of processes on other computers nothing is known."""
    match owner.split(" "):
        case [place, pid, started, _] if pid.isdecimal():
            return place == _place() and _started(int(pid)) != started
        case _:  # a damaged claim
            return True


@functools.cache
def _place() -> str:
    """What tells computers, boots and containers apart, as far as numbers of processes mean the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{platform.node()}/0".replace(" ", "_")


def _started(pid: int) -> str:
    """When a process began, in ticks of its computer: numbers of processes are used again. "-" if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "-"
    return "-" if fields[0] in "ZX" else fields[19]
