"""A weight gradient by bilinear algorithms: both images are transformed, and so are the sums of all tiles' points.

    u[p, tile, oc] = G dy    for every tile of the gradient of the output and made channel
    v[p, tile, c]  = B^T x   for the window of the input that goes with it, and reduced channel
    m[p, oc, c]    = sum over tiles of u[p, tile, oc] * v[p, tile, c]
    dw[oc, c]      = A^T m

where the matrices act along each spatial axis in turn: F(taps, pixels), whose results are the taps and whose weights are the
pixels of a tile (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016, on the gradient of the weights).
Pixels beyond the edge count as zeros.

A task makes one block of made times reduced channels, and of its sums those of one share of the tiles. Sums are partial ones of a
block of tiles, added in order, so that errors grow with the length of a block and the number of blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from convgen.dtypes import DTYPES
from convgen.ir.build import add, ceildiv, floordiv, minimum, mod, mul, sub
from convgen.ir.nodes import (
    Alloc,
    Arith,
    Buffer,
    Choose,
    Const,
    Fma,
    For,
    If,
    Index,
    Int,
    Less,
    Load,
    PaddedLoad,
    Stage,
    Stmt,
    Store,
    Value,
    Var,
)
from convgen.nests.build import build_nest
from convgen.nests.chain import SKEW, Chain, Position, point_number, tile_place, tile_position, tiles_of
from convgen.nests.classes import AxisClass, forward_classes
from convgen.nests.nest import Nest, axis_letters, group_axis, image_index, loops_around, pad_mode, reduced_axis
from convgen.spec import ConvSpec
from convgen.transforms.bilinear import AxisAlgorithm
from convgen.transforms.linear import LinearProgram


@dataclass(frozen=True)
class GradientBlocking:
    """How work is divided. A register tile is ``pixels`` made channels times ``lanes`` reduced ones; a task has ``rows`` by
    ``columns`` of them and one of ``shares`` of the tiles, in blocks of ``tiles``, one or more; ``vector`` channels are
    transformed at once.

    With ``fused`` a task transforms what it needs of a block into memory of its own; without, stages do so for whole images.
    """

    pixels: int
    lanes: int
    rows: int
    columns: int
    tiles: int
    shares: int
    vector: int
    fused: bool


def gradient_axes(spec: ConvSpec) -> tuple[AxisClass, ...]:
    """For each axis the pixels of the image that is read without padding, and what each meets of the other."""
    return tuple(forward_classes(spec, axis)[0] for axis in range(spec.ndim))


def gradient_nest(spec: ConvSpec, algorithms: Sequence[AxisAlgorithm], blocking: GradientBlocking) -> Nest:
    """The program of a weight gradient with several channels a group on either side, by an algorithm for each axis.

    Loops that schedules refer to: ``e`` runs over the elements of a register, ``px`` and ``lane`` are those of a register tile,
    ``c_lane``, ``k_lane`` and ``y_lane`` those of the transforms, ``turn_c`` and ``turn_tap`` those of the copy of the result.
    """
    nest = build_nest(spec)
    program = nest.program
    part = _Gradient(spec, nest, gradient_axes(spec), tuple(algorithms), blocking)
    sizes = {**nest.sizes, "T": blocking.tiles}
    buffers = (*program.buffers, *part.buffers())
    program = replace(program, sizes=tuple(sizes), buffers=buffers, stages=part.stages())
    return replace(nest, program=program, sizes=sizes)


@dataclass(frozen=True)
class _Gradient:
    spec: ConvSpec
    nest: Nest
    axes: tuple[AxisClass, ...]
    algorithms: tuple[AxisAlgorithm, ...]
    blocking: GradientBlocking

    # ---- sizes and buffers

    @property
    def points(self) -> int:
        return math.prod(algorithm.points for algorithm in self.algorithms)

    @property
    def made(self) -> int:
        """Made channels of a task."""
        return self.blocking.rows * self.blocking.pixels

    @property
    def made_row(self) -> int:
        """The same in whole vectors."""
        return -(-self.made // self.blocking.vector) * self.blocking.vector

    @property
    def reduced(self) -> int:
        """Reduced channels of a task."""
        return self.blocking.columns * self.blocking.lanes

    @property
    def made_blocks(self) -> Index:
        return ceildiv(Var("OC"), self.made)

    @property
    def reduced_blocks(self) -> int:
        return -(-self.nest.channels.reduced // self.reduced)

    @property
    def counts(self) -> tuple[Index, ...]:
        """The pixels along each axis of the image that is read without padding."""
        return tuple(Var(f"O{letter.upper()}") for letter in axis_letters(self.spec.ndim))

    @property
    def pixels(self) -> tuple[int, ...]:
        """Those of a tile."""
        return tuple(algorithm.taps for algorithm in self.algorithms)

    @property
    def tiles_along(self) -> tuple[Index, ...]:
        return tuple(map(tiles_of, self.axes, self.pixels, self.counts))

    @property
    def tile_count(self) -> Index:
        return mul("N", *self.tiles_along)

    @property
    def blocks(self) -> Index:
        return ceildiv(self.tile_count, "T")

    @property
    def blocks_of_share(self) -> Index:
        return ceildiv(self.blocks, self.blocking.shares)

    @property
    def block(self) -> Index:
        """The number of a block, of those of all shares."""
        return add(mul("share", self.blocks_of_share), "block") if self._is_shared else Var("block")

    @property
    def tiles_of_block(self) -> Index:
        return minimum("T", sub(self.tile_count, mul(self.block, "T")))

    @property
    def accumulator(self) -> str:
        return DTYPES[self.spec.dtype].accumulator

    @property
    def _is_shared(self) -> bool:
        return self.blocking.shares > 1

    def buffers(self) -> tuple[Buffer, ...]:
        """u, v, m, the part of the result that is turned, and what the transforms keep between axes."""
        groups = self._group_axis(Int(self.nest.channels.groups))
        tiles = Var("T") if self.blocking.fused else self.tile_count
        found = []
        for name, blocks, row in (
            ("u", self.made_blocks, self.made_row),
            ("v", Int(self.reduced_blocks), self.reduced),
        ):
            shape = (Int(self.points), add(mul(tiles, row), SKEW))
            whole = Buffer(name, self.accumulator, (*groups, blocks, *shape), "workspace")
            found.append(Buffer(name, self.accumulator, shape, "local") if self.blocking.fused else whole)
        # A row more keeps points from falling into the same few sets of the cache.
        sums = (Int(self.points), Int(self.made * self.blocking.columns + 1), Int(self.blocking.lanes))
        if self._is_shared:
            before = (Int(self.blocking.shares), *groups, self.made_blocks, Int(self.reduced_blocks))
            found.append(Buffer("m", self.accumulator, (*before, *sums), "workspace"))
        else:
            found.append(Buffer("m", self.accumulator, sums, "local"))
        result = self.nest.program.buffer(self.nest.result)
        found.append(Buffer("turned", result.dtype, (Int(self._taps), Int(self.reduced)), "local"))
        for chain in (self._plain_chain(), self._source_chain(), self._inverse_chain()):
            found += chain.buffers(self.blocking.vector)
        return tuple(found)

    @property
    def _taps(self) -> int:
        return math.prod(self.spec.kernel_size)

    def _group_axis(self, index: Index | None = None) -> tuple[Index, ...]:
        return group_axis(self.nest.channels, Var("g") if index is None else index)

    # ---- stages

    def stages(self) -> tuple[Stage, ...]:
        shares: tuple[tuple[str, Index], ...] = (("share", Int(self.blocking.shares)),) if self._is_shared else ()
        inverse = self._inverse_transform()
        sums = self._sums() if self._is_shared else (*self._sums(), *inverse)
        blocks: tuple[tuple[str, Index], ...] = (("ob", self.made_blocks), ("cb", Int(self.reduced_blocks)))
        stages = [Stage("conv", self._tasks(sums, (*shares, *blocks)))]
        if self._is_shared:
            stages.append(Stage("transform_sums", self._tasks(inverse, blocks)))
        if not self.blocking.fused:
            tiles: tuple[tuple[str, Index], ...] = (("tile", self.tile_count),)
            plain = (For("ob", self.made_blocks, self._plain_transform()),)
            source = (For("cb", Int(self.reduced_blocks), self._source_transform()),)
            stages = [
                Stage("transform_plain", self._tasks(plain, tiles)),
                Stage("transform_source", self._tasks(source, tiles)),
                *stages,
            ]
        return tuple(stages)

    def _tasks(self, body: tuple[Stmt, ...], nest: tuple[tuple[str, Index], ...]) -> tuple[Stmt, ...]:
        groups: tuple[tuple[str, Index], ...] = ()
        if self.nest.channels.has_groups:
            groups = (("g", Int(self.nest.channels.groups)),)
        for name, extent in reversed((*groups, *nest)):
            body = (For(name, extent, body, "parallel"),)
        return body

    # ---- transforms of both images

    def _plain_transform(self) -> tuple[Stmt, ...]:
        """Of one tile and a block of made channels; pixels beyond the edge are zeros."""
        vector = self.blocking.vector
        place = add(mul("k_block", vector), "k_lane")
        oc = add(mul("ob", self.made), place)
        n, tile = tile_position(self._tile, self.tiles_along)
        image = next(b for b in self.nest.program.buffers if b.space == "operand" and b.name != self.nest.source)

        def read(position: Position) -> Value:
            spatial = tuple(map(tile_place, self.axes, self.pixels, tile, position))
            inside = tuple(
                Less(pixel, count)
                for axis, size, pixel, count in zip(self.axes, self.pixels, spatial, self.counts, strict=True)
                if size * axis.interleaved > 1
            )
            load = Load(image.name, image_index(self.spec, n, (*self._group_axis(), oc), spatial))
            return Choose((*inside, Less(oc, Var("OC"))), load, Const(0.0, self.accumulator))

        def write(position: Position, value: Value) -> tuple[Stmt, ...]:
            return (
                Store(
                    "u", self._place("u", self._point(position), add(self._row("tile", self.made_row), place)), value
                ),
            )

        body = self._plain_chain().body((Var("k_lane"),), read, write)
        return loops_around(body, (("k_block", Int(self.made_row // vector)), ("k_lane", Int(vector))))

    def _source_transform(self) -> tuple[Stmt, ...]:
        """Of the window of one tile and a block of reduced channels."""
        vector, channels = self.blocking.vector, self.nest.channels
        place = add(mul("c_block", vector), "c_lane")
        channel = add(mul("cb", self.reduced), place)
        n, tile = tile_position(self._tile, self.tiles_along)

        def read(position: Position) -> Value:
            spatial = tuple(map(self._source_place, range(self.spec.ndim), tile, position))
            index = image_index(self.spec, n, (*self._group_axis(), *reduced_axis(channels, channel)), spatial)
            value: Value = PaddedLoad(self.nest.source, index, pad_mode(self.spec))
            if channels.reduced % self.reduced:
                value = Choose((Less(channel, Int(channels.reduced)),), value, Const(0.0, self.accumulator))
            return value

        def write(position: Position, value: Value) -> tuple[Stmt, ...]:
            return (
                Store("v", self._place("v", self._point(position), add(self._row("tile", self.reduced), place)), value),
            )

        body = self._source_chain().body((Var("c_lane"),), read, write)
        return loops_around(body, (("c_block", Int(self.reduced // vector)), ("c_lane", Int(vector))))

    def _source_place(self, axis: int, tile: Index, element: Index) -> Index:
        """Where an element of a tile's window lies along an axis of the source.

        The last tile's window reaches beyond what its pixels meet. Zeros there cost nothing; other kinds of padding, and copies
        of the source, end where the last pixel's window ends, and what is read there instead meets zeros.
        """
        one = self.axes[axis]
        first = tile_place(one, self.pixels[axis], tile, Int(0))
        position = add(mul(first, one.source_step), mul(element, one.spacing))
        if pad_mode(self.spec) != "zeros" or self.spec.layout != "channels_last":
            last = add(mul(sub(self.counts[axis], 1), one.source_step), (one.taps - 1) * one.spacing)
            position = minimum(position, last)
        return add(position, one.offset)

    @property
    def _tile(self) -> Index:
        """The number of a tile of all: where a task transforms its own, loop ``tile`` runs over those of a block."""
        return add(mul(self.block, "T"), "tile") if self.blocking.fused else Var("tile")

    @staticmethod
    def _row(tile: str | Index, row: int) -> Index:
        return mul(tile, row)

    def _place(self, name: str, point: Index, place: Index) -> tuple[Index, ...]:
        """An index into u or v: the blocks of whole images are kept apart."""
        if self.blocking.fused:
            return point, place
        return (*self._group_axis(), Var("ob" if name == "u" else "cb"), point, place)

    # ---- sums

    def _sums(self) -> tuple[Stmt, ...]:
        blocks = minimum(self.blocks_of_share, sub(self.blocks, mul("share", self.blocks_of_share)))
        if not self._is_shared:
            blocks = self.blocks
        if self.blocking.fused:
            transforms = (*self._plain_transform(), *self._source_transform())
            body = (For("tile", self.tiles_of_block, transforms), For("point", Int(self.points), self._products()))
            return (For("block", blocks, body),)
        return (For("point", Int(self.points), (For("block", blocks, self._products()),)),)

    def _products(self) -> tuple[Stmt, ...]:
        """The sums of one block of tiles at one point, added to those of the blocks before."""
        lanes, pixels = self.blocking.lanes, self.blocking.pixels
        tile: Index = Var("t") if self.blocking.fused else add(mul(self.block, "T"), "t")
        row = add(mul("k_tile", pixels), "px")
        u = Load("u", self._place("u", Var("point"), add(self._row(tile, self.made_row), row)))
        v = Load("v", self._place("v", Var("point"), add(self._row(tile, self.reduced), mul("c_tile", lanes), "lane")))
        acc = Load("acc", ())
        place = self._sum_place(Var("share"), row, "c_tile", Var("lane"))
        # The broadcast operand comes second, as in other products.
        body = (
            Store("acc", (), Const(0.0, self.accumulator)),
            For("t", self.tiles_of_block, (Store("acc", (), Fma(v, u, acc)),)),
            If(Less(Int(0), Var("block")), (Store("m", place, Arith("+", Load("m", place), acc)),)),
            If(Less(Var("block"), Int(1)), (Store("m", place, acc),)),
        )
        alloc = Alloc(Buffer("acc", self.accumulator, (), "register"), body)
        loops: tuple[tuple[str, Index], ...] = (
            ("k_tile", Int(self.blocking.rows)),
            ("c_tile", Int(self.blocking.columns)),
            ("px", Int(pixels)),
            ("lane", Int(lanes)),
        )
        return loops_around((alloc,), loops)

    def _sum_place(
        self, share: Index, row: Index, column: str, lane: Index, point: Index | None = None
    ) -> tuple[Index, ...]:
        at = Var("point") if point is None else point
        place = (at, add(mul(row, self.blocking.columns), column), lane)
        return (share, *self._group_axis(), Var("ob"), Var("cb"), *place) if self._is_shared else place

    # ---- the result

    def _inverse_transform(self) -> tuple[Stmt, ...]:
        """The taps of a task's channels, turned to where they belong: taps are last in the weights."""
        vector, lanes, channels = self.blocking.vector, self.blocking.lanes, self.nest.channels
        oc = add(mul("ob", self.made), "k")
        lane = add(mul("y_block", vector), "y_lane")

        def read(position: Position) -> Value:
            point = self._point(position)
            found: list[Value] = [
                Load("m", self._sum_place(Int(share), Var("k"), "c_tile", lane, point))
                for share in range(self.blocking.shares)
            ]
            total = found[0]
            for value in found[1:]:
                total = Arith("+", total, value)
            return total

        def write(position: Position, value: Value) -> tuple[Stmt, ...]:
            tap: Index = Int(0)
            for place, algorithm in zip(position, self.algorithms, strict=True):
                tap = add(mul(tap, algorithm.outputs), place)
            return (Store("turned", (tap, add(mul("c_tile", lanes), lane)), value),)

        body = self._inverse_chain().body((Var("y_lane"),), read, write)
        loops: tuple[tuple[str, Index], ...] = (
            ("c_tile", Int(self.blocking.columns)),
            ("y_block", Int(lanes // vector)),
            ("y_lane", Int(vector)),
        )
        taken: list[Index] = []
        rest: Index = Var("turn_tap")
        for size in reversed(self.spec.kernel_size[1:]):
            taken.insert(0, mod(rest, size))
            rest = floordiv(rest, size)
        channel = add(mul("cb", self.reduced), "turn_c")
        place = (*self._group_axis(), oc, *reduced_axis(channels, channel), rest, *taken)
        copy = Store(self.nest.result, place, Load("turned", (Var("turn_tap"), Var("turn_c"))))
        count = minimum(self.reduced, sub(channels.reduced, mul("cb", self.reduced)))
        if channels.reduced % self.reduced == 0:
            count = Int(self.reduced)
        turned = loops_around((copy,), (("turn_c", count), ("turn_tap", Int(self._taps))))
        inside = If(Less(oc, Var("OC")), (*loops_around(body, loops), *turned))
        return (For("k", Int(self.made), (inside,)),)

    # ---- matrices along one axis after another

    def _plain_chain(self) -> Chain:
        return self._chain("d", "pixel", [algorithm.weight for algorithm in self.algorithms])

    def _source_chain(self) -> Chain:
        return self._chain("x", "input", [algorithm.input for algorithm in self.algorithms])

    def _inverse_chain(self) -> Chain:
        return self._chain("y", "output", [algorithm.output for algorithm in self.algorithms])

    def _chain(self, name: str, kind: str, maps: list[LinearProgram]) -> Chain:
        labels = [f"{kind} transform of {algorithm.name}" for algorithm in self.algorithms]
        return Chain.of(name, "", self.accumulator, list(zip(maps, labels, strict=True)))

    def _point(self, position: Position) -> Index:
        return point_number(position, self.algorithms)
