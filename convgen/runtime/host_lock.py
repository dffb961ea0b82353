"""One measurement at a time on a computer: processes that measure would disturb each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

# Within a process; a file's lock is the whole process's.
_threads = [threading.Lock()]


def _renew_lock() -> None:
    """In a forked child: a thread that held the lock is not there to release it."""
    _threads[0] = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def lock_path() -> Path:
    """The file that is locked: one for each user of a computer."""
    return Path(tempfile.gettempdir()) / f"convgen-{os.getuid()}.lock"


@contextlib.contextmanager
def alone_on_this_host() -> Iterator[None]:
    """Waits until no other thread or process of this user is inside; where the file cannot be locked, threads alone count."""
    with _threads[0], contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            # Nothing is written: whatever file has the name keeps what it holds.
            file = stack.enter_context(lock_path().open("a"))
            fcntl.flock(file, fcntl.LOCK_EX)
            # A process forked meanwhile has the file open too, and closing it here alone would leave it locked.
            stack.callback(fcntl.flock, file, fcntl.LOCK_UN)
        yield
