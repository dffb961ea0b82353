"""Fences hold on the side they are on, and poison on the other tells of writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convgen.errors import ShapeError
from convgen.runtime.fences import LARGE, NOT_A_NUMBER, PAGE, FencedMemory, Side

TOUCH = """
import ctypes, sys
import numpy as np
from convgen.runtime.fences import FencedMemory
side, offset = sys.argv[1], int(sys.argv[2])
array = FencedMemory(side, 0xFF).copied(np.arange(5, dtype=np.float32))
assert array.tolist() == [0, 1, 2, 3, 4]
ctypes.string_at(array.ctypes.data + offset, 1)
print("done")
"""


@pytest.mark.parametrize(
    ("side", "offset", "holds"),
    [("end", 19, False), ("end", 20, True), ("end", -1, False), ("begin", -1, True), ("begin", 20, False)],
)
def test_the_process_ends_where_a_fence_is_touched(side: str, offset: int, holds: bool) -> None:
    child = subprocess.run(
        [sys.executable, "-c", TOUCH, side, str(offset)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (child.returncode < 0) == holds, child.stderr
    assert (child.stdout.strip() == "done") != holds


@pytest.mark.parametrize("fenced", [True, False])
@pytest.mark.parametrize("side", ["begin", "end"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, PAGE)])
def test_arrays_are_poisoned_aligned_and_apart(shape: tuple[int, ...], side: Side, fenced: bool) -> None:
    memory = FencedMemory(side, NOT_A_NUMBER, fenced=fenced)
    array = memory.empty(shape, np.float32)
    assert array.shape == shape
    assert array.flags.c_contiguous
    assert array.flags.aligned
    assert np.isnan(array).all()
    assert memory.scratch((5,), np.uint8).ctypes.data % 64 == 0
    array[...] = 1.0
    assert memory.is_intact()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int8", "int32"])
def test_poison_is_large_or_not_a_number(dtype: Any) -> None:
    large = FencedMemory("end", LARGE).empty((4,), dtype).astype(np.float64)
    assert (large >= 100).all() or np.isnan(large).all()
    assert np.isnan(FencedMemory("end", NOT_A_NUMBER).empty((4,), "float16")).all()


@pytest.mark.parametrize(
    ("side", "fenced", "offset"), [("end", True, -1), ("begin", True, 3), ("end", False, 3), ("begin", False, -1)]
)
def test_a_write_beside_an_array_is_found(side: Side, fenced: bool, offset: int) -> None:
    memory = FencedMemory(side, LARGE, fenced=fenced)
    others = [memory.empty((5,), np.uint8) for _ in range(2)]
    array = memory.empty((3,), np.uint8)
    assert memory.is_intact()
    block = array.base
    assert isinstance(block, np.ndarray)
    block[array.ctypes.data - block.ctypes.data + offset] = 1
    assert not memory.is_intact()
    assert len(others) == 2


def test_a_negative_extent_is_refused() -> None:
    with pytest.raises(ShapeError, match="negative"):
        FencedMemory("end", 0).empty((2, -1), np.float32)
