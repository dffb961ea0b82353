"""A convolution by bilinear algorithms: source transform, contraction per point, inverse transform.

    u[p, c, oc]   = G w        for every pair of channels, once
    v[p, tile, c] = B^T x      for every tile of the source and channel
    m[p, tile, oc] = sum over c of v[p, tile, c] * u[p, c, oc]
    y[tile, oc]   = A^T m

where the matrices act along each spatial axis in turn (transforms/bilinear.py). A task is a block of T tiles, whose v and m stay
in the worker's memory (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016; the blocks are those of
Zlateski et al., "FFT convolutions are faster than Winograd on modern CPUs, here is why", 2018). v lies there as
[p][block of channels][tile][lane], so that what a register tile reads is close together, however many channels there are, and u
as [block of oc][p][c][oc], in the order of the loops.

Along an axis with dilation, results whose windows interleave belong to different tiles: those of one residue after another.
Groups of channels are convolutions of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from convgen.dtypes import DTYPES
from convgen.ir.build import add, ceildiv, minimum, mul, sub
from convgen.ir.nodes import (
    Alloc,
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
    Space,
    Stage,
    Stmt,
    Store,
    Value,
    Var,
)
from convgen.nests.build import SUMS, build_nest, unfolded_problem, weight_index
from convgen.nests.chain import SKEW, Chain, Position, point_number, tile_place, tile_position, tiles_of
from convgen.nests.classes import AxisClass, gather_classes
from convgen.nests.nest import Nest, axis_letters, group_axis, image_index, loops_around, pad_mode, reduced_axis
from convgen.spec import ConvSpec
from convgen.transforms.bilinear import AxisAlgorithm
from convgen.transforms.linear import LinearProgram


@dataclass(frozen=True)
class Blocking:
    """How work is divided: lanes of the source transform, of the contraction and of the inverse transform.

    With ``fused`` a task transforms its own part of the source; without, a stage of its own does so for the whole image, and
    the blocks of made channels are tasks too.
    """

    source_lanes: int
    made_lanes: int
    inverse_lanes: int
    fused: bool


@dataclass(frozen=True)
class ClassTiling:
    """The algorithms of one residue class, one for each axis, and how many tiles are a block."""

    algorithms: tuple[AxisAlgorithm, ...]
    tiles: int


def bilinear_nest(spec: ConvSpec, tilings: Sequence[ClassTiling], blocking: Blocking) -> Nest:
    """The program of a forward or data-gradient problem whose groups make several channels; a tiling for each residue class.

    Classes without taps keep the naive stage, which stores zeros. Loops that schedules refer to: ``e`` runs over the elements
    of a register, ``c_lane``, ``pixel``, ``oc_lane`` and ``y_lane`` are those of the contraction and the transforms.
    """
    nest = build_nest(spec)
    program = nest.program
    classes = gather_classes(unfolded_problem(spec))
    naive = [stage for stage in program.stages if stage.name.startswith("conv")]
    stages: list[Stage] = []
    buffers: list[Buffer] = []
    sizes = dict(nest.sizes)
    for stage, axes, tiling in zip(naive, classes, tilings, strict=True):
        if any(not axis.taps for axis in axes):
            stages.append(stage)
            continue
        suffix = stage.name.removeprefix("conv")
        part = _Class(spec, nest, axes, tiling.algorithms, blocking, suffix)
        sizes[f"T{suffix}"] = tiling.tiles
        stages += part.stages()
        buffers += part.buffers()
    others = tuple(stage for stage in program.stages if stage not in naive)
    program = replace(program, sizes=tuple(sizes), buffers=(*program.buffers, *buffers), stages=(*stages, *others))
    return replace(nest, program=program, sizes=sizes)


@dataclass(frozen=True)
class _Class:
    """One residue class of results."""

    spec: ConvSpec
    nest: Nest
    axes: tuple[AxisClass, ...]
    algorithms: tuple[AxisAlgorithm, ...]
    blocking: Blocking
    suffix: str

    # ---- sizes and buffers

    @property
    def points(self) -> int:
        return math.prod(algorithm.points for algorithm in self.algorithms)

    @property
    def tiles(self) -> Index:
        """Tiles in a block."""
        return Var(f"T{self.suffix}")

    @property
    def reduced(self) -> int:
        return self.nest.channels.reduced

    @property
    def channel_blocks(self) -> int:
        return -(-self.reduced // self.blocking.source_lanes)

    @property
    def counts(self) -> tuple[Index, ...]:
        """How many results there are along each axis."""
        letters = axis_letters(self.spec.ndim)
        return tuple(Var(f"count_{x}") if self.suffix else Var(f"O{x.upper()}") for x in letters)

    @property
    def _outputs(self) -> tuple[int, ...]:
        return tuple(algorithm.outputs for algorithm in self.algorithms)

    @property
    def tiles_along(self) -> tuple[Index, ...]:
        return tuple(map(tiles_of, self.axes, self._outputs, self.counts))

    @property
    def tile_count(self) -> Index:
        return mul("N", *self.tiles_along)

    @property
    def block_count(self) -> Index:
        return ceildiv(self.tile_count, self.tiles)

    @property
    def first_tile(self) -> Index:
        """The first tile of a block; the last block begins early, to be whole."""
        return minimum(mul("block", self.tiles), sub(self.tile_count, self.tiles))

    @property
    def made_blocks(self) -> Index:
        return ceildiv(Var("OC"), self.blocking.made_lanes)

    @property
    def accumulator(self) -> str:
        return DTYPES[self.spec.dtype].accumulator

    def buffers(self) -> tuple[Buffer, ...]:
        """u, v, m and what the transforms keep between axes."""
        blocking, points = self.blocking, self.points
        space: Space = "local" if blocking.fused else "workspace"
        groups = self._group_axis(Int(self.nest.channels.groups))
        blocks = () if blocking.fused else (*groups, self._whole_blocks())
        row = add(mul(self.tiles, self.channel_blocks * blocking.source_lanes), SKEW)
        sums = add(mul(self.tiles, blocking.made_lanes), SKEW)
        found = [
            self._buffer(
                "u", (*groups, self.made_blocks, Int(points), Int(self.reduced), Int(blocking.made_lanes)), "packed"
            ),
            self._buffer("v", (*blocks, Int(points), row), space),
            self._buffer("m", (Int(points), sums), "local"),
            self._buffer("taps", (*(Int(axis.taps) for axis in self.axes), Int(blocking.made_lanes)), "local"),
        ]
        for chain, lanes in (
            (self._weight_chain(), blocking.inverse_lanes),
            (self._source_chain(), blocking.source_lanes),
            (self._inverse_chain(), blocking.inverse_lanes),
        ):
            found += chain.buffers(lanes)
        return tuple(found)

    def _whole_blocks(self) -> Index:
        """The number of blocks in the program's own sizes."""
        values = {
            f"count_{x}": Int(axis.count) for x, axis in zip(axis_letters(self.spec.ndim), self.axes, strict=True)
        }
        counts = [values.get(n.name, n) if isinstance(n, Var) else n for n in self.counts]
        return ceildiv(mul("N", *map(tiles_of, self.axes, self._outputs, counts)), self.tiles)

    def _buffer(self, name: str, shape: tuple[Index, ...], space: Space) -> Buffer:
        return Buffer(self._name(name), self.accumulator, shape, space)

    def _group_axis(self, index: Index | None = None) -> tuple[Index, ...]:
        """The group, or the given index, where there are groups."""
        return group_axis(self.nest.channels, Var("g") if index is None else index)

    def _name(self, name: str) -> str:
        return f"{name}{self.suffix}"

    # ---- stages

    def stages(self) -> tuple[Stage, ...]:
        bindings = self._bindings()
        weights = Stage(f"transform_weight{self.suffix}", self._each_group(self._weight_transform()), ())
        source = self._source_transform()
        if self.blocking.fused:
            blocks = For("ob", self.made_blocks, self._contraction())
            body = (For("block", self.block_count, (*source, blocks), "parallel"),)
            return weights, Stage(f"conv{self.suffix}", self._each_group(body), bindings)
        transform = (For("block", self.block_count, source, "parallel"),)
        inner = For("block", self.block_count, self._contraction(), "parallel")
        conv = (For("ob", self.made_blocks, (inner,), "parallel"),)
        return (
            weights,
            Stage(f"transform_source{self.suffix}", self._each_group(transform), bindings),
            Stage(f"conv{self.suffix}", self._each_group(conv), bindings),
        )

    def _each_group(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        channels = self.nest.channels
        return (For("g", Int(channels.groups), body, "parallel"),) if channels.has_groups else body

    def _bindings(self) -> tuple[tuple[str, Index], ...]:
        if not self.suffix:
            return ()
        letters = axis_letters(self.spec.ndim)
        return tuple(
            (f"{name}_{letter}", Int(value))
            for letter, axis in zip(letters, self.axes, strict=True)
            for name, value in (("count", axis.count), ("offset", self._offset(axis)), ("start", axis.start))
        )

    @staticmethod
    def _offset(axis: AxisClass) -> int:
        """The source position of the first result's first tap, in rising order of positions."""
        return axis.offset + min(0, axis.tap_source_step * (axis.taps - 1))

    def _weight_transform(self) -> tuple[Stmt, ...]:
        """Taps are first copied to where vectors of made channels are neighbours."""
        lanes, inner = self.blocking.made_lanes, self.blocking.inverse_lanes
        letters = axis_letters(self.spec.ndim)
        oc = add(mul("ob", lanes), "u_lane")
        taps = tuple(_tap(axis, Var(f"t{letter}")) for axis, letter in zip(self.axes, letters, strict=True))
        weight = Load("weight", weight_index(self.spec, self.nest.channels, Var("g"), oc, Var("c"), taps))
        copied = Choose((Less(oc, Var("OC")),), weight, Const(0.0, self.accumulator))
        copy = Store(self._name("taps"), (*(Var(f"t{letter}") for letter in letters), Var("u_lane")), copied)
        along = tuple((f"t{letter}", Int(axis.taps)) for axis, letter in zip(self.axes, letters, strict=True))
        place = add(mul("w_block", inner), "w_lane")

        def read(position: Position) -> Value:
            return Load(self._name("taps"), (*position, place))

        def write(position: Position, value: Value) -> tuple[Stmt, ...]:
            target = (*self._group_axis(), Var("ob"), self._point(position), Var("c"), place)
            return (Store(self._name("u"), target, value),)

        body = self._weight_chain().body((Var("w_lane"),), read, write)
        transform = loops_around(body, (("w_block", Int(lanes // inner)), ("w_lane", Int(inner))))
        copies = loops_around((copy,), (("u_lane", Int(lanes)), *along))
        nest = (For("c", Int(self.reduced), (*copies, *transform), "parallel"),)
        return (For("ob", self.made_blocks, nest, "parallel"),)

    def _source_transform(self) -> tuple[Stmt, ...]:
        lanes = self.blocking.source_lanes
        channel = add(mul("c_block", lanes), "c_lane")
        n, tile = tile_position(add(self.first_tile, "tile"), self.tiles_along)
        channels = (*self._group_axis(), *reduced_axis(self.nest.channels, channel))
        blocks = () if self.blocking.fused else (*self._group_axis(), Var("block"))
        place = self._place_in_row("tile", "c_lane")

        def read(position: Position) -> Value:
            spatial = tuple(
                self._source_place(axis, t, i) for axis, (t, i) in enumerate(zip(tile, position, strict=True))
            )
            return PaddedLoad(self.nest.source, image_index(self.spec, n, channels, spatial), pad_mode(self.spec))

        def write(position: Position, value: Value) -> tuple[Stmt, ...]:
            return (Store(self._name("v"), (*blocks, self._point(position), place), value),)

        body = self._source_chain().body((Var("c_lane"),), read, write)
        if self.reduced % lanes:
            body = (If(Less(channel, Int(self.reduced)), body),)
        loops = (("tile", self.tiles), ("c_block", Int(self.channel_blocks)), ("c_lane", Int(lanes)))
        return loops_around(body, loops)

    def _place_in_row(self, tile: str, lane: str) -> Index:
        """Where a tile's channel lies among those of a point."""
        return add(mul(add(mul("c_block", self.tiles), tile), self.blocking.source_lanes), lane)

    def _contraction(self) -> tuple[Stmt, ...]:
        """The products of all points for one block of made channels, and their inverse transform."""
        lanes, groups = self.blocking.made_lanes, self._group_axis()
        blocks = () if self.blocking.fused else (*groups, Var("block"))
        first = mul("c_block", self.blocking.source_lanes)
        weight = Load(self._name("u"), (*groups, Var("ob"), Var("point"), add(first, "c"), Var("oc_lane")))
        source = Load(self._name("v"), (*blocks, Var("point"), self._place_in_row("pixel", "c")))
        size = self.blocking.source_lanes
        rest = minimum(size, sub(self.reduced, first)) if self.reduced % size else Int(size)
        sum_of_block = For("c", rest, (Store("acc", (), Fma(source, weight, Load("acc", ()))),))
        update = For("c_block", Int(self.channel_blocks), (sum_of_block,))
        finish = Store(self._name("m"), (Var("point"), add(mul("pixel", lanes), "oc_lane")), Load("acc", ()))
        alloc = Alloc(
            Buffer("acc", self.accumulator, (), "register"),
            (Store("acc", (), Const(0.0, self.accumulator)), update, finish),
        )
        loops = (("point", Int(self.points)), ("pixel", self.tiles), ("oc_lane", Int(lanes)))
        return (*loops_around((alloc,), loops), *self._inverse_transform())

    def _inverse_transform(self) -> tuple[Stmt, ...]:
        lanes, inner = self.blocking.made_lanes, self.blocking.inverse_lanes
        place = add(mul("y_block", inner), "y_lane")
        oc = add(mul("ob", lanes), place)
        n, tile = tile_position(add(self.first_tile, "tile"), self.tiles_along)
        target = SUMS if self.nest.program.has_buffer(SUMS) else self.nest.result

        def read(position: Position) -> Value:
            return Load(self._name("m"), (self._point(position), add(mul("tile", lanes), place)))

        def write(position: Position, value: Value) -> tuple[Stmt, ...]:
            inside, written = [], []
            for letter, axis, algorithm, count, t, i in zip(
                axis_letters(self.spec.ndim), self.axes, self.algorithms, self.counts, tile, position, strict=True
            ):
                along = tile_place(axis, algorithm.outputs, t, i)
                written.append(add(mul(along, axis.step), Var(f"start_{letter}") if self.suffix else Int(axis.start)))
                inside += [Less(along, count)] if algorithm.outputs > 1 or axis.interleaved > 1 else []
            place = image_index(self.spec, n, (*self._group_axis(), oc), tuple(written))
            body: tuple[Stmt, ...] = (Store(target, place, value),)
            for condition in reversed((*inside, Less(oc, Var("OC")))):
                body = (If(condition, body),)
            return body

        body = self._inverse_chain().body((Var("y_lane"),), read, write)
        loops = (("tile", self.tiles), ("y_block", Int(lanes // inner)), ("y_lane", Int(inner)))
        return loops_around(body, loops)

    def _source_place(self, axis: int, tile: Index, element: Index) -> Index:
        """Where an element of a tile lies along an axis of the source.

        The last tile reaches beyond what its results need. Zeros there cost nothing; other kinds of padding, and copies of the
        source, end where the last result's window ends.
        """
        letter, one = axis_letters(self.spec.ndim)[axis], self.axes[axis]
        first = tile_place(one, self.algorithms[axis].outputs, tile, Int(0))
        position = add(mul(first, one.source_step), mul(element, one.spacing))
        if pad_mode(self.spec) != "zeros" or self.spec.layout != "channels_last":
            last = add(mul(sub(self.counts[axis], 1), one.source_step), (one.taps - 1) * one.spacing)
            position = minimum(position, last)
        return add(position, Var(f"offset_{letter}") if self.suffix else Int(self._offset(one)))

    # ---- matrices along one axis after another

    def _source_chain(self) -> Chain:
        return self._chain("x", "input", [algorithm.input for algorithm in self.algorithms])

    def _weight_chain(self) -> Chain:
        return self._chain("w", "weight", [algorithm.weight for algorithm in self.algorithms])

    def _inverse_chain(self) -> Chain:
        return self._chain("y", "output", [algorithm.output for algorithm in self.algorithms])

    def _chain(self, name: str, kind: str, maps: list[LinearProgram]) -> Chain:
        labels = [f"{kind} transform of {algorithm.name}" for algorithm in self.algorithms]
        return Chain.of(name, self.suffix, self.accumulator, list(zip(maps, labels, strict=True)))

    def _point(self, position: Position) -> Index:
        return point_number(position, self.algorithms)


def _tap(axis: AxisClass, place: Index) -> Index:
    """The weight that meets the given element of a window, whose elements count in rising order of source positions."""
    rising = sub(axis.taps - 1, place) if axis.tap_source_step < 0 else place
    return add(mul(rising, axis.tap_step), axis.first_tap)
