"""One measurement at a time, whatever forks meanwhile."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from convgen.errors import WaitWarning
from convgen.runtime import host_lock
from convgen.runtime.host_lock import alone_on_this_host


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(host_lock, "lock_path", lambda: tmp_path / "host.lock")
    return tmp_path / "host.lock"


def is_free(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_it_is_held_inside_and_no_longer(path: Path) -> None:
    with alone_on_this_host():
        assert not is_free(path)
    assert is_free(path)


def test_a_process_forked_inside_does_not_keep_it(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    end = context.Event()
    with alone_on_this_host():
        child = context.Process(target=end.wait, args=(60,))
        child.start()
    try:
        assert child.is_alive()
        assert is_free(path)
    finally:
        end.set()
        child.join(60)


def test_a_file_of_that_name_keeps_what_it_holds(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("precious")
    path.symlink_to(other)
    with alone_on_this_host():
        assert other.read_text() == "precious"


def _hold(path: Path, begun: Any, end: Any) -> None:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        begun.set()
        end.wait(60)


@pytest.fixture
def held(path: Path) -> Iterator[Any]:
    """What ends a process that holds the lock."""
    context = multiprocessing.get_context("fork")
    begun, end = context.Event(), context.Event()
    child = context.Process(target=_hold, args=(path, begun, end))
    child.start()
    assert begun.wait(60)
    yield end
    end.set()
    child.join(60)


def test_who_keeps_it_too_long_is_done_without_and_named(
    path: Path, held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_lock, "PATIENCE_SECONDS", 0.2)
    begin = time.monotonic()
    told = r"process.* has been measuring for 0.2 s, by its lock on '.*host.lock'"
    with pytest.warns(WaitWarning, match=told), alone_on_this_host():
        assert time.monotonic() - begin < 30
    # What stood in line for it lets go of it as soon as it comes.
    held.set()
    end = time.monotonic() + 10
    while not is_free(path) and time.monotonic() < end:
        time.sleep(0.01)
    assert is_free(path)


def test_a_turn_that_ends_in_time_is_waited_for(path: Path, held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_lock, "PATIENCE_SECONDS", 30.0)
    threading.Timer(0.3, held.set).start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with alone_on_this_host():
            assert not is_free(path)
            assert held.is_set()
    assert is_free(path)


def test_patience_begins_anew_with_every_turn(path: Path, held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_lock, "PATIENCE_SECONDS", 0.4)

    def others_come_first() -> None:
        for _ in range(8):
            time.sleep(0.15)
            os.utime(path)
        held.set()

    threading.Thread(target=others_come_first).start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with alone_on_this_host():
            assert held.is_set()


def test_a_thread_that_keeps_it_too_long_is_done_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_lock, "PATIENCE_SECONDS", 0.1)
    with (
        alone_on_this_host(),
        ThreadPoolExecutor(1) as other,
        pytest.warns(WaitWarning, match="another thread of this process"),
    ):
        other.submit(alone_on_this_host().__enter__).result(30)
