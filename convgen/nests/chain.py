"""What programs by bilinear algorithms share: where tiles lie, and matrices that act along one axis after another.

Along an axis with dilation, pixels whose windows interleave belong to different tiles: those of one residue after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convgen.ir.build import add, ceildiv, floordiv, mod, mul
from convgen.ir.nodes import Alloc, Buffer, For, Index, Int, Load, Space, Stmt, Store, Transform, Value, Var
from convgen.nests.classes import AxisClass
from convgen.nests.nest import axis_letters, loops_around
from convgen.transforms.bilinear import AxisAlgorithm
from convgen.transforms.linear import LinearProgram

# A power-of-two distance between points would put all of them into the same few sets of the cache.
SKEW = 16

Position = tuple[Index, ...]


def tiles_of(axis: AxisClass, size: int, count: Index) -> Index:
    """The tiles of ``size`` pixels in so many along an axis."""
    return mul(ceildiv(ceildiv(count, axis.interleaved), size), axis.interleaved)


def tile_place(axis: AxisClass, size: int, tile: Index, element: Index) -> Index:
    """Which pixel along an axis an element of a tile of ``size`` is: tiles take the residues in turn."""
    interleaved = axis.interleaved
    row = add(mul(floordiv(tile, interleaved), size), element)
    return add(mul(row, interleaved), mod(tile, interleaved))


def tile_position(number: Index, tiles_along: Sequence[Index]) -> tuple[Index, tuple[Index, ...]]:
    """Batch element and place along each axis of a tile."""
    place: list[Index] = []
    rest = number
    for extent in reversed(tiles_along[1:]):
        place.append(mod(rest, extent))
        rest = floordiv(rest, extent)
    place.append(mod(rest, tiles_along[0]))
    return floordiv(rest, tiles_along[0]), tuple(reversed(place))


def point_number(position: Position, algorithms: Sequence[AxisAlgorithm]) -> Index:
    """The number of a point from its places along the axes."""
    number: Index = Int(0)
    for place, algorithm in zip(position, algorithms, strict=True):
        number = add(mul(number, algorithm.points), place)
    return number


@dataclass(frozen=True)
class _Step:
    """One axis' matrix: which axis, and the extents of all axes before and after it."""

    axis: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    map: LinearProgram
    label: str


@dataclass(frozen=True)
class Chain:
    """Matrices of all axes, applied in order around registers called ``name``; between two of them values are kept in local
    buffers, whose names end in ``suffix``."""

    name: str
    suffix: str
    dtype: str
    letters: str
    steps: tuple[_Step, ...]

    @staticmethod
    def of(name: str, suffix: str, dtype: str, maps: Sequence[tuple[LinearProgram, str]]) -> Chain:
        """The chain of a matrix, with its label, for each axis: of those that are not the identity, or the last one's."""
        extents = [linear.inputs for linear, _ in maps]
        busy = [axis for axis, (linear, _) in enumerate(maps) if not _is_identity(linear)] or [len(maps) - 1]
        steps = []
        for axis in busy:
            before = tuple(extents)
            extents[axis] = len(maps[axis][0].outputs)
            steps.append(_Step(axis, before, tuple(extents), *maps[axis]))
        return Chain(name, suffix, dtype, axis_letters(len(maps)), tuple(steps))

    def buffers(self, lanes: int) -> tuple[Buffer, ...]:
        """What is kept between two matrices, for so many lanes."""
        return tuple(
            Buffer(self._kept(number), self.dtype, (*map(Int, step.after), Int(lanes)), "local")
            for number, step in enumerate(self.steps[:-1])
        )

    def body(
        self,
        lane: tuple[Index, ...],
        read: Callable[[Position], Value],
        write: Callable[[Position, Value], tuple[Stmt, ...]],
    ) -> tuple[Stmt, ...]:
        """The loops: ``read`` gives the first matrix's values, ``write`` stores the last one's; ``e`` runs over registers."""
        body: list[Stmt] = []
        for number, step in enumerate(self.steps):
            position = tuple(Var("e" if axis == step.axis else f"i{x}") for axis, x in enumerate(self.letters))
            value = Load(self._kept(number - 1), (*position, *lane)) if number else read(position)
            result = Load(self.name, (Var("e"),))
            last = number == len(self.steps) - 1
            done = write(position, result) if last else (Store(self._kept(number), (*position, *lane), result),)
            count_in, count_out = step.before[step.axis], step.after[step.axis]
            register = Buffer(self.name, self.dtype, (Int(max(count_in, count_out)),), "register")
            registers = Alloc(
                register,
                (
                    For("e", Int(count_in), (Store(self.name, (Var("e"),), value),)),
                    Transform(self.name, step.map, step.label),
                    For("e", Int(count_out), done),
                ),
            )
            others = tuple((f"i{x}", Int(step.after[axis])) for axis, x in enumerate(self.letters) if axis != step.axis)
            body += loops_around((registers,), others)
        return tuple(body)

    def kept(self, space: Space, place: tuple[Index, ...]) -> tuple[Buffer, ...]:
        """What is kept between two matrices, at every place of an array of the given shape."""
        return tuple(
            Buffer(self._kept(number), self.dtype, (*map(Int, step.after), *place), space)
            for number, step in enumerate(self.steps[:-1])
        )

    def in_registers(
        self, read: Callable[[Position], Value], write: Callable[[Position, Value], tuple[Stmt, ...]]
    ) -> tuple[Stmt, ...]:
        """The same with what is kept between two matrices in registers: all loops must be unrolled."""
        body = self.body((), read, write)
        for number, step in enumerate(self.steps[:-1]):
            kept = Buffer(self._kept(number), self.dtype, tuple(map(Int, step.after)), "register")
            body = (Alloc(kept, body),)
        return body

    def _kept(self, number: int) -> str:
        return f"{self.name}_kept{number or ''}{self.suffix}"


def _is_identity(linear: LinearProgram) -> bool:
    return linear.outputs == tuple(range(linear.inputs))
