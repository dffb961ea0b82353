"""Threads for kernels: OpenMP's where the process has it, Python's where not, one after a fork."""

from __future__ import annotations

import ctypes
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from convgen.options import num_threads

# 1 in a forked child: the parent's OpenMP threads do not exist there, and waiting for them would never end. The call
# path reads the flag through its address.
serial_flag = ctypes.c_int64(0)

_STAGE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


class ParallelEntry(NamedTuple):
    """Addresses of libgomp's functions."""

    parallel: int
    thread_num: int
    num_threads: int


def max_threads() -> int:
    """Returns how many threads a kernel may use: CONVGEN_NUM_THREADS, else all processors; 1 after a fork."""
    if serial_flag.value:
        return 1
    return num_threads()


@functools.cache
def parallel_entry() -> ParallelEntry | None:
    """Returns libgomp's entry points, or None without libgomp.

    A libgomp that the process has already loaded (torch brings one) goes first: two pools of threads would fight over
    the cores.
    """
    for library in (*loaded_libraries("libgomp"), "libgomp.so.1"):
        try:
            handle = ctypes.CDLL(library)
            functions = (handle.GOMP_parallel, handle.omp_get_thread_num, handle.omp_get_num_threads)
        except (OSError, AttributeError):
            continue
        return ParallelEntry(*(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions))
    return None


def loaded_libraries(name: str, maps: Path = Path("/proc/self/maps")) -> list[str]:
    """Returns the paths of the shared libraries in ``maps`` whose file name starts with ``name``, torch's first."""
    try:
        lines = maps.read_text(errors="replace").splitlines()
    except OSError:
        return []
    paths = {line[line.index("/") :] for line in lines if "/" in line}
    found = [path for path in paths if path.rpartition("/")[2].startswith(name)]
    return sorted(found, key=lambda path: ("/torch/" not in path, path))


def run_chunks(stage: int, buffers: int, sizes: int, tasks: int, threads: int) -> None:
    """Runs the stage at address ``stage`` over ``tasks`` tasks on Python threads, in contiguous chunks: one a worker.

    ``buffers`` and ``sizes`` are the addresses of its int64 tables. For processes without OpenMP.
    """
    function = _STAGE(stage)
    width = 1 if serial_flag.value else min(threads, tasks)
    if width <= 1:
        function(buffers, sizes, 0, tasks, 0)
        return
    bounds = [tasks * chunk // width for chunk in range(width + 1)]
    pool = _pool(width - 1)
    others = [
        pool.submit(function, buffers, sizes, bounds[chunk], bounds[chunk + 1], chunk) for chunk in range(1, width)
    ]
    function(buffers, sizes, 0, bounds[1], 0)
    for other in others:
        other.result()


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="convgen")


def _become_serial() -> None:
    serial_flag.value = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_become_serial)
