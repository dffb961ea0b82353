"""What other threads take from a process is told by the scheduler."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from convgen.tuning import waiting
from convgen.tuning.waiting import seconds_waited


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs the scheduler's account")
def test_more_threads_than_processors_wait() -> None:
    """Threads that hash without the interpreter's lock, one more than there are processors."""
    data = bytes(1 << 22)
    end = time.perf_counter() + 0.4

    def work() -> None:
        import hashlib

        while time.perf_counter() < end:
            hashlib.sha256(data).digest()

    before = seconds_waited()
    threads = [threading.Thread(target=work) for _ in range(len(os.sched_getaffinity(0)) + 1)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    during = seconds_waited() - before
    for thread in threads:
        thread.join()
    assert during > 0.0


def test_without_an_account_nobody_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(waiting, "_TASKS", str(tmp_path / "absent"))
    assert seconds_waited() == 0.0
    (tmp_path / "1").mkdir()
    monkeypatch.setattr(waiting, "_TASKS", str(tmp_path))
    assert seconds_waited() == 0.0
    (tmp_path / "1" / "schedstat").write_text("5 2000000000 7\n")
    assert seconds_waited() == 2.0
