"""Processes that end with the one that started them, even where that was killed and could end nobody."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time

# Linux: the signal that the kernel sends when the thread that started this process is gone.
_PR_SET_PDEATHSIG = 1
# How often other systems are asked who the parent is.
_LOOK_SECONDS = 0.5


def end_with(parent: int) -> None:
    """From now on this process ends when ``parent``, which has started it, is gone; at once if it is gone already.

    The thread that has started it counts for the parent, so that this is for processes that live no longer than a call.
    """
    if not _asks_the_kernel():
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        _end()


def _asks_the_kernel() -> bool:
    """Whether the kernel will end this process."""
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)
    return False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    _end()


def _end() -> None:
    # Nothing is cleaned up, as for one that is killed: whoever the results were for is gone.
    os._exit(1)
