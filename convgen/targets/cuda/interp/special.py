"""The special registers of a batch of blocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from convgen.targets.cuda.interp.batch import Batch
from convgen.targets.cuda.interp.types import Value

_SMS = 132


def special_values(
    batch: Batch, grid: tuple[int, int, int], block: tuple[int, int, int], dynamic: int, shared: int
) -> Callable[[str], Value]:
    """Returns a function from a special register's name to its values, one for each lane or one for all.

    Clocks stand still: they are different numbers for each register, and mean nothing. Lane masks follow from the lane.
    """
    thread, number = batch.thread, batch.grid_block
    lane = thread % 32
    one = np.uint32(1)
    bit = one << lane.astype(np.uint32)
    clocks = itertools.count(1)

    def along(index: Value, sizes: tuple[int, int, int], axis: str) -> Value:
        before = {"x": 1, "y": sizes[0], "z": sizes[0] * sizes[1]}[axis]
        size = sizes["xyz".index(axis)]
        return np.uint32(0) if size == 1 else index // before % size

    def value(name: str) -> Value:
        stem, _, axis = name.removeprefix("%").partition(".")
        match stem:
            case "tid":
                return along(thread, block, axis)
            case "ntid":
                return np.uint32(block["xyz".index(axis)])
            case "ctaid":
                return along(number if batch.blocks > 1 else np.int64(batch.first), grid, axis)
            case "nctaid":
                return np.uint32(grid["xyz".index(axis)])
            case "laneid":
                return lane
            case "warpid":
                return thread // 32
            case "nwarpid":
                return np.uint32(batch.warps)
            case "smid":
                return number % _SMS
            case "nsmid":
                return np.uint32(_SMS)
            case "gridid":
                return np.uint32(0)
            case "dynamic_smem_size":
                return np.uint32(dynamic)
            case "total_smem_size":
                return np.uint32(shared)
            case "lanemask_eq":
                return bit
            case "lanemask_lt":
                return bit - one
            case "lanemask_le":
                return bit | (bit - one)
            case "lanemask_gt":
                return ~(bit | (bit - one))
            case "lanemask_ge":
                return ~(bit - one)
            case _:
                return np.uint32(next(clocks))

    return value
