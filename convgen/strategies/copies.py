"""The passes for what only moves data: in vectors where both sides run along the same axis, in transposed squares elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.ir.nodes import Index, Int, PaddingMode
from convgen.machine import Machine
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.pad import Pad
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.split_padding import SplitPadding
from convgen.passes.tile import Tile
from convgen.passes.transpose_blocks import TransposeBlocks
from convgen.passes.vectorize import Vectorize

MAX_LANES = 64
MIN_LANES = 4
MAX_SQUARE = 16


def square_size(dtype: str, machine: Machine) -> int:
    """Rows and columns of a square that is transposed in registers."""
    return max(2, min(MAX_SQUARE, machine.vector_bytes // DTYPES[dtype].itemsize))


def copy_tasks(stage: str, loops: tuple[str, ...]) -> Pass:
    """The first two loops of a copy are its tasks; the last stays inside one."""
    return Parallelize(stage, loops[: max(1, min(2, len(loops) - 1))])


def vector_passes(loop: str, extent: Index) -> tuple[Pass, ...]:
    """The loop in vectors, unless its extent is known to be too small."""
    match extent:
        case Int(count) if count < MIN_LANES:
            return ()
        case Int(count):
            lanes = next(n for n in (MAX_LANES, 32, 16, 8, 4) if n <= count)
        case _:
            lanes = MAX_SQUARE
    block, lane = f"{loop}_block", f"{loop}_lane"
    return (Tile(loop, lanes, block, lane), Vectorize(lane))


@dataclass(frozen=True)
class PaddedCopy:
    """A copy of ``source`` called ``into``, ordered by ``order``, with its padding; its loops are called ``into_label``.

    ``low`` says by how much the copy begins before the source along each axis, and ``extents`` how long it is; ``axes`` are
    those that reads leave. ``labels`` name the source's axes; ``width`` is its last spatial one; ``dtype`` is the copy's type,
    by default the source's; with ``steps`` it is of every so manieth position of an axis.
    """

    source: str
    order: tuple[int, ...]
    low: tuple[int, ...]
    extents: tuple[Index, ...]
    axes: tuple[int, ...]
    mode: PaddingMode
    labels: tuple[str, ...]
    width: str
    dtype: str = ""
    steps: tuple[int, ...] = ()
    into: str = "padded"

    @property
    def stage(self) -> str:
        return f"pad_{self.source}"

    @property
    def loops(self) -> tuple[str, ...]:
        """The loops of the copy, outermost first."""
        return tuple(f"{self.into}_{self.labels[axis]}" for axis in self.order)

    def pad(self) -> Pass:
        """The pass that makes the copy a stage."""
        return Pad(
            self.source, self.into, self.low, self.extents, self.order, self.mode, self.labels, self.dtype, self.steps
        )

    def tasks(self) -> Pass:
        """For a copy of a whole image: its rows are the tasks, or its planes."""
        return Parallelize(self.stage, self.loops[: self.loops.index(self.row)][:2])

    def of_whole_image(self, square: int) -> tuple[Pass, ...]:
        """The passes that make a stage of it, in squares of ``square`` elements where its last axis changes."""
        return (self.pad(), self.tasks(), *self.moves(square, whole=True))

    @property
    def row(self) -> str:
        """The first loop within a row, along it or, where that comes first, along what lies next to each other in the source."""
        return min(f"{self.into}_{self.width}", f"{self.into}_{self.labels[-1]}", key=self.loops.index)

    def moves(self, square: int, *, whole: bool) -> tuple[Pass, ...]:
        """The padding apart from what is inside; that in vectors, or in squares where the last axis changes.

        Rows of a ``whole`` image are tasks, so that each is filled on its own.
        """
        width, first, last = f"{self.into}_{self.width}", f"{self.into}_{self.labels[-1]}", self.loops[-1]
        extent, transposed = self.extents[self.order[-1]], first != last
        nest = self.row if whole or self.mode != "zeros" else self.loops[0]
        # Without padding along the width there is nothing to fill but zeros.
        split: tuple[Pass, ...] = (SplitPadding(nest, self.axes),)
        if not self.axes:
            split = (ExpandPadding(((self.source, ()),)),)
        elif self.mode == "zeros" or (self.labels.index(self.width) in self.axes and not (transposed or last == width)):
            split += vector_passes(f"{last}_fill", extent)
        inside = (
            (TransposeBlocks(nest if self.axes else self.row, last, first, square),)
            if transposed
            else vector_passes(last, extent)
        )
        return (*split, *inside)
