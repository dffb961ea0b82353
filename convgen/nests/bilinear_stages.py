"""A convolution by bilinear algorithms, a stage a step, with all points of the image in memory between them.

    u[p, c, oc]   = G w          stage transform_weight
    v[p, tile, c] = B^T x        stage transform_source
    m[p, tile, oc] = sum over c of v[p, tile, c] * u[p, c, oc]     stage conv
    y[tile, oc]   = A^T m        stage inverse

The matrices act along each spatial axis in turn (nests/chain.py), all of them in registers or, where these are too many,
``apart``: in a stage for each axis, with memory between them. The sums are a matrix product for each point. All extents but the
batch are constants. Where a processor has thousands of threads this order keeps them all busy with one thing at a time (Lavin and
Gray, "Fast algorithms for convolutional neural networks", 2016, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from convgen.dtypes import DTYPES
from convgen.ir.build import add, minimum, mul
from convgen.ir.nodes import (
    Alloc,
    Buffer,
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
from convgen.ir.rewrite import perfect_nest
from convgen.nests.build import SUMS, weight_index
from convgen.nests.chain import Chain, Position, point_number, tile_place, tile_position, tiles_of
from convgen.nests.classes import AxisClass
from convgen.nests.nest import Nest, group_axis, image_index, loops_around, pad_mode, reduced_axis
from convgen.spec import ConvSpec
from convgen.transforms.bilinear import AxisAlgorithm


def staged_bilinear_nest(
    spec: ConvSpec,
    nest: Nest,
    classes: Sequence[tuple[AxisClass, ...]],
    choices: Sequence[tuple[AxisAlgorithm, ...]],
    *,
    apart: bool = False,
) -> Nest:
    """``nest``, the naive one of a forward or data-gradient problem with constant sizes, with each residue class' stage replaced
    by those above; ``choices`` has the algorithms of each class, which all have taps.

    Loops that schedules refer to: ``e`` and ``ih``, ``iw``, .. run over registers; ``point``, ``g``, ``tile``, ``oc`` and ``c``
    are those of the sums.
    """
    naive = [stage for stage in nest.program.stages if stage.name.startswith("conv")]
    stages: list[Stage] = []
    buffers: list[Buffer] = []
    for stage, axes, algorithms in zip(naive, classes, choices, strict=True):
        part = _Class(spec, nest, axes, algorithms, stage.name.removeprefix("conv"), apart)
        stages += part.stages()
        buffers += part.buffers()
    others = tuple(stage for stage in nest.program.stages if stage not in naive)
    program = replace(nest.program, buffers=(*nest.program.buffers, *buffers), stages=(*stages, *others))
    return replace(nest, program=program)


@dataclass(frozen=True)
class _Class:
    """One residue class of results."""

    spec: ConvSpec
    nest: Nest
    axes: tuple[AxisClass, ...]
    algorithms: tuple[AxisAlgorithm, ...]
    suffix: str
    apart: bool

    @property
    def points(self) -> int:
        return math.prod(algorithm.points for algorithm in self.algorithms)

    @property
    def tiles_along(self) -> tuple[Index, ...]:
        sizes = zip(self.axes, self.algorithms, strict=True)
        return tuple(tiles_of(axis, algorithm.outputs, Int(axis.count)) for axis, algorithm in sizes)

    @property
    def tiles(self) -> Index:
        return mul("N", *self.tiles_along)

    @property
    def dtype(self) -> str:
        return DTYPES[self.spec.dtype].accumulator

    def buffers(self) -> tuple[Buffer, ...]:
        """u, v and m, and what is kept between the stages of axes."""
        channels = self.nest.channels
        points, groups = Int(self.points), group_axis(channels, Int(channels.groups))
        reduced, made = Int(channels.reduced), Int(channels.made)
        kept = (
            *self._chain("w", "weight").kept("packed", (*groups, reduced, made)),
            *self._chain("x", "input").kept("workspace", (*groups, self.tiles, reduced)),
            *self._chain("y", "output").kept("workspace", (*groups, self.tiles, made)),
        )
        return (
            Buffer(self._name("u"), self.dtype, (points, *groups, reduced, made), "packed"),
            Buffer(self._name("v"), self.dtype, (points, *groups, self.tiles, reduced), "workspace"),
            Buffer(self._name("m"), self.dtype, (points, *groups, self.tiles, made), "workspace"),
            *(kept if self.apart else ()),
        )

    def stages(self) -> tuple[Stage, ...]:
        return (
            *self._weight_transform(),
            *self._source_transform(),
            Stage(f"conv{self.suffix}", self._contraction()),
            *self._inverse_transform(),
        )

    def _name(self, name: str) -> str:
        return f"{name}{self.suffix}"

    def _group(self) -> tuple[Index, ...]:
        return group_axis(self.nest.channels, Var("g"))

    def _each_group(self) -> tuple[tuple[str, Index], ...]:
        channels = self.nest.channels
        return (("g", Int(channels.groups)),) if channels.has_groups else ()

    def _chain(self, name: str, which: str) -> Chain:
        maps = [(getattr(a, which), f"{which} transform of {a.name}") for a in self.algorithms]
        return Chain.of(name, self.suffix, self.dtype, maps)

    def _transform(
        self,
        name: str,
        chain: Chain,
        loops: tuple[tuple[str, Index], ...],
        read: Callable[[Position], Value],
        write: Callable[[Position, Value], tuple[Stmt, ...]],
    ) -> tuple[Stage, ...]:
        """The matrices of all axes inside the loops: one stage, or one for each axis."""
        if not self.apart:
            return (Stage(f"{name}{self.suffix}", loops_around(chain.in_registers(read, write), loops)),)
        stages = []
        for number, part in enumerate(chain.body(tuple(Var(var) for var, _ in loops), read, write)):
            nest, body = perfect_nest((part,))
            others = tuple((loop.var, loop.extent) for loop in nest)
            stages.append(Stage(f"{name}{self.suffix}_{number}", loops_around(body, (*others, *loops))))
        return tuple(stages)

    def _point(self, position: Position) -> Index:
        return point_number(position, self.algorithms)

    def _weight_transform(self) -> tuple[Stage, ...]:
        channels = self.nest.channels

        def read(position: Position) -> Value:
            taps = tuple(_tap(axis, place) for axis, place in zip(self.axes, position, strict=True))
            return Load("weight", weight_index(self.spec, channels, Var("g"), Var("oc"), Var("c"), taps))

        def write(position: Position, value: Value) -> tuple[Stmt, ...]:
            return (Store(self._name("u"), (self._point(position), *self._group(), Var("c"), Var("oc")), value),)

        loops = (*self._each_group(), ("c", Int(channels.reduced)), ("oc", Int(channels.made)))
        return self._transform("transform_weight", self._chain("w", "weight"), loops, read, write)

    def _source_transform(self) -> tuple[Stage, ...]:
        channels = self.nest.channels
        n, tile = tile_position(Var("tile"), self.tiles_along)
        channel = (*self._group(), *reduced_axis(channels, Var("c")))

        def read(position: Position) -> Value:
            spatial = tuple(map(self._source_place, self.axes, self.algorithms, tile, position))
            return PaddedLoad(self.nest.source, image_index(self.spec, n, channel, spatial), pad_mode(self.spec))

        def write(position: Position, value: Value) -> tuple[Stmt, ...]:
            return (Store(self._name("v"), (self._point(position), *self._group(), Var("tile"), Var("c")), value),)

        loops = (*self._each_group(), ("tile", self.tiles), ("c", Int(channels.reduced)))
        return self._transform("transform_source", self._chain("x", "input"), loops, read, write)

    def _source_place(self, axis: AxisClass, algorithm: AxisAlgorithm, tile: Index, element: Index) -> Index:
        """Where an element of a tile lies along an axis of the source. The last tile reaches beyond what its results need: zeros
        there cost nothing; other kinds of padding end where the last result's window ends."""
        first = tile_place(axis, algorithm.outputs, tile, Int(0))
        position = add(mul(first, axis.source_step), mul(element, axis.spacing))
        if pad_mode(self.spec) != "zeros":
            position = minimum(position, (axis.count - 1) * axis.source_step + (axis.taps - 1) * axis.spacing)
        return add(position, axis.offset + min(0, axis.tap_source_step * (axis.taps - 1)))

    def _contraction(self) -> tuple[Stmt, ...]:
        channels = self.nest.channels
        weight = Load(self._name("u"), (Var("point"), *self._group(), Var("c"), Var("oc")))
        source = Load(self._name("v"), (Var("point"), *self._group(), Var("tile"), Var("c")))
        update = Store("acc", (), Fma(source, weight, Load("acc", ())))
        place = (Var("point"), *self._group(), Var("tile"), Var("oc"))
        body: tuple[Stmt, ...] = (
            Store("acc", (), Const(0.0, self.dtype)),
            For("c", Int(channels.reduced), (update,)),
            Store(self._name("m"), place, Load("acc", ())),
        )
        alloc = Alloc(Buffer("acc", self.dtype, (), "register"), body)
        loops = (("point", Int(self.points)), *self._each_group(), ("tile", self.tiles), ("oc", Int(channels.made)))
        return loops_around((alloc,), loops)

    def _inverse_transform(self) -> tuple[Stage, ...]:
        channels = self.nest.channels
        n, tile = tile_position(Var("tile"), self.tiles_along)
        target = SUMS if self.nest.program.has_buffer(SUMS) else self.nest.result

        def read(position: Position) -> Value:
            return Load(self._name("m"), (self._point(position), *self._group(), Var("tile"), Var("oc")))

        def write(position: Position, value: Value) -> tuple[Stmt, ...]:
            inside, written = [], []
            for axis, algorithm, t, i in zip(self.axes, self.algorithms, tile, position, strict=True):
                along = tile_place(axis, algorithm.outputs, t, i)
                written.append(add(mul(along, axis.step), axis.start))
                inside += [Less(along, Int(axis.count))] if axis.count % (algorithm.outputs * axis.interleaved) else []
            place = image_index(self.spec, n, (*self._group(), Var("oc")), tuple(written))
            body: tuple[Stmt, ...] = (Store(target, place, value),)
            for condition in reversed(inside):
                body = (If(condition, body),)
            return body

        loops = (*self._each_group(), ("tile", self.tiles), ("oc", Int(channels.made)))
        return self._transform("inverse", self._chain("y", "output"), loops, read, write)


def _tap(axis: AxisClass, place: Index) -> Index:
    """The weight that meets the given element of a window, whose elements count in rising order of source positions."""
    if axis.tap_source_step < 0:
        return add(mul(place, -axis.tap_step), (axis.taps - 1) * axis.tap_step + axis.first_tap)
    return add(mul(place, axis.tap_step), axis.first_tap)
