"""The schedule that the matrix products of a GPU share: blocks of rows times columns whose factors pass through shared memory.

A block of threads computes ``rows`` times ``cols`` sums, ``row_tile`` times ``col_tile`` of them a thread, in steps of ``depth``
terms: the threads together collect what all of them read of both factors in shared memory, and each reads its part from there
(CUTLASS calls this the threadblock and the thread tile). With ``split`` above 1 as many blocks share a sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from convgen.dtypes import DTYPES
from convgen.gpu import WARP, Gpu
from convgen.passes.distribute import Distribute, ThreadAxis
from convgen.passes.launch_grid import LaunchGrid
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.pipeline_copies import PipelineCopies
from convgen.passes.predicate import Predicate
from convgen.passes.register_tile import RegisterTile
from convgen.passes.reorder import Reorder
from convgen.passes.share_loops import ShareLoops
from convgen.passes.simplify import Simplify
from convgen.passes.split_sum import PART, SplitSum
from convgen.passes.stage_shared import StageShared
from convgen.passes.synchronize import Synchronize
from convgen.passes.tensorize_warps import TensorizeWarps
from convgen.passes.tile import Tile
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.passes.whole_vectors import WholeVectors
from convgen.passes.widen_reads import WidenReads
from convgen.strategies.cuda.base import PLAIN_THREADS
from convgen.tuning.space import Config

# Threads of a block.
MOST_THREADS = 256
# The widest access of a thread.
ACCESS_BYTES = 16
# Neighbouring sums of a thread: as many float32 as an access reads of shared memory.
RUN = 4
# Rows of a factor in shared memory are so much longer, so that what is stored along columns falls on other banks.
PAD = 4
# The same for matrix units, which read 8 rows of 16 bytes at once; those of float32, 8 terms of a product, read them element by
# element, which asks for PAD where a row holds terms.
MATRIX_PAD = 8
_WIDE_TERMS = 8

# The first devices whose copies to shared memory need not be waited for, and what waiting costs without them.
COPIES_SINCE = (8, 0)
EXPOSED = 0.5

# Elements of 16 bits that a thread copies at once.
MATRIX_LANES = 8
# Cycles between products of tiles that a scheduler's matrix unit takes (mma.sync reaches two thirds of the unit's peak), and
# instructions of a copy with its address and tests, and of a step besides.
MATRIX_CYCLES = 6.0
COPY_ISSUES = 18.0
STEP_ISSUES = 24.0
# Terms of a sum that are written out one after another.
UNROLLED = 4

# What the factors in shared memory are called.
FACTORS = ("rows", "cols")

MatrixShape = tuple[int, int, int]


@dataclass(frozen=True)
class Tiling:
    """The choices of a configuration. With ``matrix`` the tiles are those of warps, which use the matrix units."""

    rows: int
    cols: int
    depth: int
    row_tile: int
    col_tile: int
    split: int
    matrix: int = 0
    stages: int = 1

    @staticmethod
    def of(config: Config) -> Tiling:
        return Tiling(**dict(config.values))

    @property
    def config(self) -> Config:
        return Config.of(
            rows=self.rows,
            cols=self.cols,
            depth=self.depth,
            row_tile=self.row_tile,
            col_tile=self.col_tile,
            split=self.split,
            matrix=self.matrix,
            stages=self.stages,
        )

    @property
    def threads(self) -> int:
        tiles = (self.rows // self.row_tile) * (self.cols // self.col_tile)
        return tiles * WARP if self.matrix else tiles

    @property
    def sum_cost(self) -> float:
        """What a multiply-add takes, 1 at least: with its share of the instructions around it, and of waiting."""
        if self.matrix:
            return max(1.0, self._issued / (MATRIX_CYCLES * self._products)) * (1 + EXPOSED / self.stages**2)
        reads = (self.row_tile + self.col_tile) / (2 * self.row_tile * self.col_tile) + 8 / self.threads
        return (1 + reads) * (1 + EXPOSED / self.stages**2)

    @property
    def _products(self) -> float:
        """The products of tiles that a warp makes in a step of ``depth`` terms."""
        return self.row_tile / 16 * self.col_tile / 8 * self.depth / 16

    @property
    def _issued(self) -> float:
        """The instructions that a warp issues for them: loads of tiles, and copies with their addresses and tests."""
        loads = (self.row_tile / 16 + self.col_tile / 8) * self.depth / 16
        copies = self.depth * (self.rows + self.cols) / (MATRIX_LANES * self.threads)
        return STEP_ISSUES + self._products + loads + COPY_ISSUES * copies

    def shared_bytes(self, dtype: str) -> int:
        """Bounds the shared memory of both factors, in whose place are the sums that matrix units have made."""
        size = DTYPES[dtype].itemsize
        factors = self.stages * (self.depth + MATRIX_PAD) * (self.rows + self.cols + 2 * MATRIX_PAD) * size
        return max(factors, self.matrix * (self.rows + MATRIX_PAD) * (self.cols + MATRIX_PAD) * 4)


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
    ``k`` is the sum. Results of neighbouring columns (``result="col"``) or rows are neighbours in memory, ``lanes`` of them
    whole accesses."""

    outer: tuple[str, ...]
    row: Factor
    col: Factor
    result: Literal["row", "col"]
    lanes: int = 1


def product_passes(product: Product, tiling: Tiling, shape: MatrixShape | None = None) -> tuple[Pass, ...]:
    """The passes from loops (``outer``, row, col) around the sum over k to a grid of blocks; ``shape`` is that of the matrix
    units' product, where they take part."""
    parts = (PART,) if tiling.split > 1 else ()
    shape = shape if tiling.matrix else None
    blocks = (*parts, *product.outer, "row_block", "col_block")
    sides = ("row", "col") if product.result == "col" else ("col", "row")
    if shape is not None:
        inside = _warp_passes(product, tiling, sides, shape)
    else:
        inside = _thread_passes(product, tiling, sides)
    return (
        *((SplitSum("conv", "k", tiling.split, multiple=tiling.depth),) if parts else ()),
        Tile("row", tiling.rows, "row_block", "row"),
        Tile("col", tiling.cols, "col_block", "col"),
        Tile("k", tiling.depth, "k_block", "k"),
        Predicate("conv"),
        Reorder("conv", (*blocks, *sides)),
        RegisterTile(sides),
        Parallelize("conv", blocks),
        *_staging_passes("rows", "row", product.row, tiling, shape, in_order=bool(shape) or _reads_rows(product)),
        *_staging_passes("cols", "col", product.col, tiling, shape, in_order=bool(shape)),
        Simplify(keep_unit_loops=True),
        *_lane_passes("rows", product.row),
        *_lane_passes("cols", product.col),
        *inside,
        *((LaunchGrid("sum_", PLAIN_THREADS),) if parts else ()),
        *((PipelineCopies("k_block", FACTORS, tiling.stages),) if tiling.stages > 1 else ()),
        Simplify(),
        Synchronize(FACTORS if tiling.stages > 1 else ()),
    )


def _thread_passes(product: Product, tiling: Tiling, sides: tuple[str, str]) -> tuple[Pass, ...]:
    """Sums in the registers of threads."""
    along_cols = product.result == "col"
    run = product.lanes if product.lanes > 1 else RUN
    axes = {
        "row": _thread_axis("row", tiling.rows, tiling.row_tile, RUN if along_cols else 1),
        "col": _thread_axis("col", tiling.cols, tiling.col_tile, run if along_cols else RUN),
    }
    is_wide = along_cols and product.lanes > 1
    registers = ("row_outer", "row_inner", "col_outer", *(() if is_wide else ("col_inner",)))
    return (
        Tile("k", UNROLLED, "k_some", "k_term"),
        Distribute("conv", tuple(axes[side] for side in sides), ("k_block",)),
        Unroll("k_term"),
        *((WholeVectors("col_inner"), Vectorize("col_inner")) if is_wide else ()),
        *map(Unroll, registers),
        *((Simplify(keep_unit_loops=True), WidenReads("rows", UNROLLED)) if _reads_rows(product) else ()),
    )


def _reads_rows(product: Product) -> bool:
    """Whether threads read several terms of a row at once, so that their copy may be made in whole accesses too."""
    return product.row.along == "sum" and product.row.lanes == UNROLLED == product.lanes and product.result == "col"


def _warp_passes(product: Product, tiling: Tiling, sides: tuple[str, str], shape: MatrixShape) -> tuple[Pass, ...]:
    """Sums in the matrix units of warps; threads collect them from shared memory, whole rows at a time."""
    extents = {"row": tiling.rows, "col": tiling.cols}
    warps = {"row": tiling.rows // tiling.row_tile, "col": tiling.cols // tiling.col_tile}
    across, along = sides
    lanes = product.lanes if product.result == "col" else 1
    neighbours = min(tiling.threads, extents[along] // lanes)
    others = min(tiling.threads // neighbours, extents[across])
    axes = (
        ThreadAxis(across, extents[across] // others, others, 1),
        ThreadAxis(along, extents[along] // (neighbours * lanes), neighbours, lanes),
    )
    inner = f"{along}_inner"
    return (
        TensorizeWarps("conv", sides, "k", (warps[across], warps[along]), shape, "sums", MATRIX_PAD),
        Distribute("conv", axes, ("k_block",)),
        *((WholeVectors(inner), Vectorize(inner)) if lanes > 1 else ()),
    )


def _thread_axis(side: str, block: int, tile: int, run: int) -> ThreadAxis:
    inner = min(run, tile)
    return ThreadAxis(side, tile // inner, block // tile, inner)


def _staging_passes(
    into: str, side: str, factor: Factor, tiling: Tiling, shape: MatrixShape | None, *, in_order: bool
) -> tuple[Pass, ...]:
    """A factor's copy in shared memory: neighbouring threads read neighbours in memory. ``in_order`` they stay neighbours there;
    else those along the factor's own side are."""
    axes = ("k", side) if factor.along == "side" or not in_order else (side, "k")
    loops = (f"{into}_k", f"{into}_{side}") if factor.along == "side" else (f"{into}_{side}", f"{into}_k")
    is_wide = shape is None or (shape[2] == _WIDE_TERMS and axes[-1] == "k")
    stage = StageShared("k_block", factor.buffer, into, axes, PAD if is_wide else MATRIX_PAD)
    return stage, ShareLoops(loops, into, tiling.threads, factor.lanes)


def _lane_passes(into: str, factor: Factor) -> tuple[Pass, ...]:
    lane = f"{into}_lane"
    return (WholeVectors(lane), Vectorize(lane)) if factor.lanes > 1 else (Unroll(lane),)


def copy_stages(gpu: Gpu) -> tuple[int, ...]:
    """How many iterations ahead factors may be on their way, and one: devices before 8.0 wait for each copy."""
    return (3, 2, 1) if gpu.capability >= COPIES_SINCE else (1,)


def access_lanes(dtype: str, extent: int, most: int = RUN) -> int:
    """How many neighbours, ``most`` or fewer, are read or stored at once along an axis of so many elements, all of which such
    accesses cover."""
    lanes = min(most, ACCESS_BYTES // DTYPES[dtype].itemsize)
    return lanes if extent % lanes == 0 else 1


def tilings(rows: int, cols: int, *, matrix: bool) -> list[Tiling]:
    """Blocks worth a thought for a product of so many rows and columns: the larger, the fewer bytes pass through shared memory;
    the smaller, the more blocks there are."""
    found = []
    for block_rows, block_cols, row_tile, col_tile in _WARP_SHAPES if matrix else _SHAPES:
        too_wide = block_cols > 16 and block_cols >= 2 * cols
        too_long = block_rows > 16 and block_rows >= 2 * rows
        for depth in (32, 64) if matrix else (8, 16):
            tiling = Tiling(block_rows, block_cols, depth, row_tile, col_tile, 1, int(matrix))
            if not too_wide and not too_long and tiling.threads <= MOST_THREADS:
                found.append(tiling)
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
# The same of warps.
_WARP_SHAPES = (
    (256, 128, 64, 64),
    (128, 256, 64, 64),
    (128, 128, 64, 64),
    (128, 128, 64, 32),
    (256, 64, 64, 32),
    (128, 64, 64, 32),
    (64, 128, 32, 64),
    (128, 64, 32, 32),
    (64, 128, 32, 32),
    (64, 64, 32, 32),
    (128, 32, 32, 32),
    (32, 128, 32, 32),
    (64, 32, 32, 16),
    (32, 64, 16, 32),
    (32, 32, 16, 16),
    (16, 16, 16, 16),
)
