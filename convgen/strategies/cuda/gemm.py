"""The schedule that the matrix products of a GPU share: blocks of rows times columns whose factors pass through shared memory.

A block of threads computes ``rows`` times ``cols`` sums, ``row_tile`` times ``col_tile`` of them a thread, in steps of ``depth``
terms: the threads together collect what all of them read of both factors in shared memory, and each reads its part from there
(CUTLASS calls this the threadblock and the thread tile). With ``split`` above 1 as many blocks share a sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from convgen.dtypes import DTYPES
from convgen.passes.distribute import Distribute, ThreadAxis
from convgen.passes.launch_grid import LaunchGrid
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.predicate import Predicate
from convgen.passes.register_tile import RegisterTile
from convgen.passes.reorder import Reorder
from convgen.passes.share_loops import ShareLoops
from convgen.passes.simplify import Simplify
from convgen.passes.split_sum import PART, SplitSum
from convgen.passes.stage_shared import StageShared
from convgen.passes.synchronize import Synchronize
from convgen.passes.tile import Tile
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.passes.whole_vectors import WholeVectors
from convgen.spec import ConvSpec
from convgen.strategies.cuda.base import PLAIN_THREADS
from convgen.tuning.space import Config

# The widest access of a thread.
ACCESS_BYTES = 16
# Neighbouring sums of a thread: as many float32 as an access reads of shared memory.
RUN = 4
# Rows of a factor in shared memory are so much longer, so that what is stored along columns falls on other banks.
PAD = 4


@dataclass(frozen=True)
class Tiling:
    """The choices of a configuration."""

    rows: int
    cols: int
    depth: int
    row_tile: int
    col_tile: int
    split: int

    @staticmethod
    def of(config: Config) -> Tiling:
        return Tiling(**dict(config.values))

    @property
    def threads(self) -> int:
        return (self.rows // self.row_tile) * (self.cols // self.col_tile)

    def shared_bytes(self, dtype: str) -> int:
        """The shared memory of both factors."""
        return self.depth * (self.rows + self.cols + 2 * PAD) * DTYPES[dtype].itemsize


@dataclass(frozen=True)
class Factor:
    """One factor of the product: the buffer that it is read from, and whether neighbours in memory are neighbours along its own
    axis ("side") or in the sum ("sum"). ``lanes`` of them are whole accesses."""

    buffer: str
    along: Literal["side", "sum"]
    lanes: int = 1


@dataclass(frozen=True)
class Product:
    """The loops of a stage ``conv`` as a matrix product: ``outer`` loops number products, ``row`` and ``col`` are the sides,
    ``k`` is the sum. Results of neighbouring columns (``result="col"``) or rows are neighbours, ``lanes`` of them whole accesses."""

    outer: tuple[str, ...]
    row: Factor
    col: Factor
    result: Literal["row", "col"]
    lanes: int = 1


def product_passes(product: Product, tiling: Tiling) -> tuple[Pass, ...]:
    """The passes from loops (``outer``, row, col) around the sum over k to a grid of blocks."""
    parts = (PART,) if tiling.split > 1 else ()
    split: tuple[Pass, ...] = (SplitSum("conv", "k", tiling.split),) if parts else ()
    blocks = (*parts, *product.outer, "row_block", "col_block")
    sides = ("row", "col") if product.result == "col" else ("col", "row")
    run = product.lanes if product.lanes > 1 else RUN
    axes = {
        "row": _thread_axis("row", tiling.rows, tiling.row_tile, RUN if product.result == "col" else 1),
        "col": _thread_axis("col", tiling.cols, tiling.col_tile, run if product.result == "col" else RUN),
    }
    is_wide = product.result == "col" and product.lanes > 1
    registers = ("row_outer", "row_inner", "col_outer", *(() if is_wide else ("col_inner",)))
    return (
        *split,
        Tile("row", tiling.rows, "row_block", "row"),
        Tile("col", tiling.cols, "col_block", "col"),
        Tile("k", tiling.depth, "k_block", "k"),
        Predicate(),
        Reorder("conv", (*blocks, *sides)),
        RegisterTile(sides),
        Parallelize("conv", blocks),
        StageShared("k_block", product.row.buffer, "rows", ("k", "row"), PAD),
        StageShared("k_block", product.col.buffer, "cols", ("k", "col"), PAD),
        Distribute("conv", tuple(axes[side] for side in sides), ("k_block",)),
        *_copy_passes("rows", "row", product.row, tiling),
        *_copy_passes("cols", "col", product.col, tiling),
        *((WholeVectors("col_inner"), Vectorize("col_inner")) if is_wide else ()),
        *map(Unroll, registers),
        *((LaunchGrid("sum_", PLAIN_THREADS),) if parts else ()),
        Simplify(),
        Synchronize(),
    )


def _thread_axis(side: str, block: int, tile: int, run: int) -> ThreadAxis:
    inner = min(run, tile)
    return ThreadAxis(side, tile // inner, block // tile, inner)


def _copy_passes(into: str, side: str, factor: Factor, tiling: Tiling) -> tuple[Pass, ...]:
    """A factor's copy: neighbouring threads read neighbours in memory."""
    axes = (f"{into}_k", f"{into}_{side}") if factor.along == "side" else (f"{into}_{side}", f"{into}_k")
    lane = f"{into}_lane"
    vectors = (WholeVectors(lane), Vectorize(lane)) if factor.lanes > 1 else (Unroll(lane),)
    return (ShareLoops(axes, into, tiling.threads, factor.lanes), *vectors)


def access_lanes(dtype: str, extent: int) -> int:
    """How many neighbours are read or stored at once along an axis of so many elements, all of which such accesses cover."""
    lanes = min(RUN, ACCESS_BYTES // DTYPES[dtype].itemsize)
    return lanes if extent % lanes == 0 else 1


def tilings(spec: ConvSpec, rows: int, cols: int, terms: int, largest_threads: int) -> list[Tiling]:
    """Blocks worth a thought for a product of so many rows, columns and terms: the larger, the fewer bytes pass through shared
    memory; the smaller, the more blocks there are."""
    found = []
    for block_rows, block_cols, row_tile, col_tile in _SHAPES:
        too_wide = block_cols > 16 and block_cols >= 2 * cols
        too_long = block_rows > 16 and block_rows >= 2 * rows
        if too_wide or too_long or block_rows * block_cols // (row_tile * col_tile) > largest_threads:
            continue
        for depth in (8, 16):
            found.append(Tiling(block_rows, block_cols, depth, row_tile, col_tile, 1))
    return found


# (rows, cols, row_tile, col_tile)
_SHAPES = (
    (128, 128, 8, 8),
    (128, 64, 8, 4),
    (64, 128, 4, 8),
    (64, 64, 4, 4),
    (128, 32, 4, 4),
    (32, 128, 4, 4),
    (64, 32, 4, 4),
    (32, 64, 4, 4),
    (32, 32, 4, 4),
    (128, 16, 8, 4),
    (16, 128, 4, 8),
    (64, 16, 4, 4),
    (16, 64, 4, 4),
    (16, 16, 4, 4),
)
