"""Finding OpenMP, counting threads, and Python's threads in its place."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from convgen.runtime import threads
from convgen.runtime.threads import loaded_libraries, max_threads, parallel_entry, run_chunks
from tests.runtime.stage_code import scale

MAPS = """\
7f00-7f01 r-xp 00000000 08:01 1 /usr/lib/libgomp.so.1.0.0
7f01-7f02 rw-p 00001000 08:01 1 /usr/lib/libgomp.so.1.0.0
7f02-7f03 r-xp 00000000 08:01 2 /opt/my venv/torch/lib/libgomp-a34b3233.so.1
7f03-7f04 r-xp 00000000 08:01 3 /usr/lib/libm.so.6
7f04-7f05 rw-p 00000000 00:00 0 [heap]
"""


def test_torchs_library_goes_first(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(MAPS)
    expected = ["/opt/my venv/torch/lib/libgomp-a34b3233.so.1", "/usr/lib/libgomp.so.1.0.0"]
    assert loaded_libraries("libgomp", maps) == expected
    assert loaded_libraries("libtbb", maps) == []
    assert loaded_libraries("libgomp", tmp_path / "none") == []


def test_the_entry_is_of_the_library_that_is_loaded() -> None:
    entry = parallel_entry()
    if entry is None:
        pytest.skip("no libgomp here")
    assert all(entry)
    assert len(set(entry)) == 3
    assert loaded_libraries("libgomp")


def test_no_library_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise OSError

    monkeypatch.setattr("ctypes.CDLL", refuse)
    assert parallel_entry.__wrapped__() is None


def test_max_threads_is_one_in_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVGEN_NUM_THREADS", "3")
    assert max_threads() == 3
    child = os.fork()
    if child == 0:
        os._exit(0 if max_threads() == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert max_threads() == 3


@pytest.mark.parametrize("tasks", [0, 1, 2, 7])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_python_threads_run_every_task_once_in_chunks(tasks: int, width: int) -> None:
    x = np.arange(float(tasks))
    y = np.full(tasks + 1, -1.0)
    buffers = np.array([x.ctypes.data, y.ctypes.data])
    sizes = np.array([2, 1000])
    run_chunks(scale(), buffers.ctypes.data, sizes.ctypes.data, tasks, width)
    begins = np.zeros(tasks)
    parts = max(min(tasks, width), 1)
    for part in range(parts):
        begins[tasks * part // parts : tasks * (part + 1) // parts] = tasks * part // parts
    np.testing.assert_array_equal(y, [*(2 * x + 1000 * begins), -1])


def test_python_threads_are_not_used_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        pytest.fail("a pool of threads was asked for")

    monkeypatch.setattr(threads, "_pool", refuse)
    monkeypatch.setattr(threads, "serial_flag", type(threads.serial_flag)(1))
    x = np.arange(4.0)
    y = np.zeros(4)
    buffers, sizes = np.array([x.ctypes.data, y.ctypes.data]), np.array([3, 0])
    run_chunks(scale(), buffers.ctypes.data, sizes.ctypes.data, 4, 2)
    np.testing.assert_array_equal(y, 3 * x)
