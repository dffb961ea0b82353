"""One measurement at a time, whatever forks meanwhile."""

from __future__ import annotations

import fcntl
import multiprocessing
from pathlib import Path

import pytest

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
