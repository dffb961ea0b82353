"""One measurement at a time on a computer: processes that measure would disturb each other.

Who waits stands in line: the system gives a file's lock to those who ask for it in turn. A holder that keeps it for longer than
any turn lasts has come to a halt; it is done without, and a WaitWarning says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from convgen.errors import WaitWarning

# A turn, which is one problem's or one machine's, is not waited for any longer than that.
PATIENCE_SECONDS = 1800.0
# How often who waits looks whose turn it is.
_LOOK_SECONDS = 1.0

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
    """Waits until no other thread or process of this user is inside, or one has been for PATIENCE_SECONDS, which a WaitWarning
    says; where the file cannot be locked, threads alone count."""
    with contextlib.ExitStack() as stack:
        lock = _threads[0]
        if lock.acquire(timeout=PATIENCE_SECONDS):
            stack.callback(lock.release)
            with contextlib.suppress(OSError):
                # Nothing is written but its time: whatever file has the name keeps what it holds.
                _Place(lock_path().open("a")).take(stack)
        else:
            _warn("another thread of this process")
        yield


class _Place:
    """A place in the line for a file's lock."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._guard = threading.Lock()
        self._is_ours = threading.Event()
        self._is_given_up = False

    def take(self, stack: contextlib.ExitStack) -> None:
        """Locks the file until the stack is left, or gives up with a WaitWarning; raises OSError where it cannot be locked."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not self._is_locked_in_turn():
                return
        except OSError:
            self._file.close()
            raise
        stack.callback(self._release)
        # Tells those in line that another turn begins.
        os.utime(self._file.fileno())

    def _is_locked_in_turn(self) -> bool:
        # Only a call that blocks stands in line, and none that blocks ends in time: it gets a thread of its own.
        threading.Thread(target=self._stand_in_line, daemon=True).start()
        try:
            self._wait()
        finally:
            with self._guard:
                self._is_given_up = not self._is_ours.is_set()
        return not self._is_given_up

    def _stand_in_line(self) -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX)
        with self._guard:
            self._is_ours.set()
            if self._is_given_up:
                self._release()

    def _wait(self) -> None:
        """Until the lock is ours, or one turn has taken too long."""
        turn, since = self._turn(), time.monotonic()
        while not self._is_ours.wait(min(_LOOK_SECONDS, PATIENCE_SECONDS)):
            now = self._turn()
            if now != turn:
                turn, since = now, time.monotonic()
            elif time.monotonic() - since >= PATIENCE_SECONDS:
                _warn(self._holder())
                return

    def _turn(self) -> int:
        """Changes when another holder begins."""
        return os.fstat(self._file.fileno()).st_mtime_ns

    def _holder(self) -> str:
        """The process that has the lock, by its number where the system tells it."""
        inode = os.fstat(self._file.fileno()).st_ino
        with contextlib.suppress(OSError):
            for line in Path("/proc/locks").read_text().splitlines():
                match line.split():
                    case [_, "FLOCK", _, _, pid, file, *_] if file.endswith(f":{inode}"):
                        return f"process {pid}"
        return "another process"

    def _release(self) -> None:
        # A process forked meanwhile has the file open too, and closing it here alone would leave it locked.
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()


def _warn(holder: str) -> None:
    warnings.warn(
        f"{holder} has been measuring for {PATIENCE_SECONDS:g} s, by its lock on {str(lock_path())!r}, and is not waited for any "
        "longer: measurements may disturb each other",
        WaitWarning,
        stacklevel=5,
    )
