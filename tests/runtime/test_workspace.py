"""Aligned buffers and workspace pools."""

from __future__ import annotations

import threading

import ml_dtypes
import numpy as np
import pytest

from convgen.errors import OptionError, ShapeError
from convgen.runtime.workspace import WorkspacePool, aligned_empty


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 7), (0, 4), (2, 0)])
def test_aligned_empty(shape: tuple[int, ...], dtype: type) -> None:
    array = aligned_empty(shape, dtype)
    assert array.shape == shape
    assert array.dtype is np.dtype(dtype)
    assert array.ctypes.data % 64 == 0 or not array.size
    assert array.flags.c_contiguous
    assert array.flags.aligned
    assert array.flags.writeable
    array[...] = 1
    assert (array == 1).all()


def test_negative_extents_are_typed_errors() -> None:
    with pytest.raises(ShapeError, match=r"shape=\(2, -1\)"):
        aligned_empty((2, -1), np.float32)
    with pytest.raises(OptionError, match="nbytes=-1"):
        WorkspacePool(-1)


def test_a_pool_allocates_on_demand_and_reuses() -> None:
    pool = WorkspacePool(100)
    assert pool.allocated_bytes == 0
    first, second = pool.acquire(), pool.acquire()
    assert abs(first - second) >= 100
    assert first % 64 == second % 64 == 0
    assert pool.allocated_bytes == 200
    pool.release(first)
    assert pool.acquire() == first
    assert pool.allocated_bytes == 200


def test_an_empty_pool_allocates_nothing() -> None:
    pool = WorkspacePool(0)
    assert pool.acquire() == 0
    pool.release(0)
    assert pool.acquire() == 0
    assert pool.allocated_bytes == 0


def test_no_two_threads_hold_one_buffer() -> None:
    pool = WorkspacePool(8)
    held: set[int] = set()
    clashes: list[int] = []
    lock = threading.Lock()

    def work() -> None:
        for _ in range(300):
            address = pool.acquire()
            with lock:
                if address in held:
                    clashes.append(address)
                held.add(address)
            with lock:
                held.discard(address)
            pool.release(address)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not clashes
    assert pool.allocated_bytes <= 8 * 8
