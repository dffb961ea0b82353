"""What a naive nest is, and how it sees arrays.

Channels are split into groups and channels per group; an axis that is always 1 is left out. Batch, spatial sizes and output
channels are run-time sizes; kernel, stride, dilation, groups and reduced channels are constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from convgen.ir.nodes import Buffer, For, Index, Int, PaddingMode, Program, Space, Stmt, Var
from convgen.ir.rewrite import substitute, substitute_block
from convgen.spec import ConvSpec


@dataclass(frozen=True)
class Channels:
    """The channels of a problem per group: ``reduced`` are summed over, ``made`` are those of the result, which have an axis even
    where it is one if ``keeps_made``."""

    groups: int
    reduced: int
    made: int
    keeps_made: bool = False

    @property
    def has_groups(self) -> bool:
        return self.groups > 1

    @property
    def has_reduced(self) -> bool:
        return self.reduced != 1

    @property
    def has_made(self) -> bool:
        return self.keeps_made or self.made != 1 or not self.has_groups


@dataclass(frozen=True)
class Nest:
    """A naive program, the values of its run-time sizes for one problem, and the buffers a schedule refers to.

    ``source`` is the image that is read with padding; ``low`` and ``high`` say, per spatial axis, by how much reads leave it.
    """

    program: Program
    sizes: Mapping[str, int]
    channels: Channels
    source: str
    result: str
    low: tuple[int, ...]
    high: tuple[int, ...]

    @property
    def plain(self) -> Buffer:
        """The other operand: of a weight gradient, the image that is read without padding."""
        return next(b for b in self.program.buffers if b.space == "operand" and b.name != self.source)


def with_constant(nest: Nest, name: str) -> Nest:
    """The nest with one of its sizes as a constant."""
    value = {name: Int(nest.sizes[name])}

    def constant(buffer: Buffer) -> Buffer:
        return replace(buffer, shape=tuple(substitute(extent, value) for extent in buffer.shape))

    program = nest.program
    stages = tuple(replace(stage, body=substitute_block(stage.body, value)) for stage in program.stages)
    sizes = {size: number for size, number in nest.sizes.items() if size != name}
    program = replace(program, sizes=tuple(sizes), buffers=tuple(map(constant, program.buffers)), stages=stages)
    return replace(nest, program=program, sizes=sizes)


def with_bindings(nest: Nest) -> Nest:
    """The nest with what is bound a stage as constants: stages that differ in them no longer share a kernel."""
    stages = tuple(
        replace(stage, body=substitute_block(stage.body, dict(stage.bindings)), bindings=())
        for stage in nest.program.stages
    )
    return replace(nest, program=replace(nest.program, stages=stages))


def axis_letters(ndim: int) -> str:
    """The letters of the spatial axes: w, hw or dhw."""
    return "dhw"[-ndim:]


def image_index(spec: ConvSpec, n: Index, channels: tuple[Index, ...], spatial: tuple[Index, ...]) -> tuple[Index, ...]:
    """An index into an image (or its shape) in the order of the problem's layout."""
    if spec.layout == "channels_first":
        return (n, *channels, *spatial)
    return (n, *spatial, *channels)


def image_buffer(
    spec: ConvSpec, name: str, dtype: str, channels: tuple[Index, ...], spatial: tuple[str, ...], space: Space
) -> Buffer:
    """A buffer of an image with run-time batch and spatial sizes."""
    return Buffer(name, dtype, image_index(spec, Var("N"), channels, tuple(map(Var, spatial))), space)


def group_axis(channels: Channels, index: Index) -> tuple[Index, ...]:
    """The index of the group, where there is a group axis."""
    return (index,) if channels.has_groups else ()


def reduced_axis(channels: Channels, index: Index) -> tuple[Index, ...]:
    """The index of the reduced channel, where there is such an axis."""
    return (index,) if channels.has_reduced else ()


def made_axis(channels: Channels, index: Index) -> tuple[Index, ...]:
    """The index of the made channel, where there is such an axis."""
    return (index,) if channels.has_made else ()


def spatial_axes(spec: ConvSpec, rank: int) -> tuple[int, ...]:
    """The spatial axes of an image buffer of so many axes."""
    first = 1 if spec.layout == "channels_last" else rank - spec.ndim
    return tuple(range(first, first + spec.ndim))


def pad_mode(spec: ConvSpec) -> PaddingMode:
    """How the source continues beyond its edges; that of a data gradient is always surrounded by zeros."""
    match spec.padding_mode:
        case "reflect" | "replicate" | "circular" as mode if spec.direction != "backward_data":
            return mode
        case _:
            return "zeros"


def loops_around(body: tuple[Stmt, ...], nest: tuple[tuple[str, Index], ...]) -> tuple[Stmt, ...]:
    """The body inside the loops, the first outermost."""
    for var, extent in reversed(nest):
        body = (For(var, extent, body),)
    return body


def channel_loops(channels: Channels) -> tuple[tuple[str, Index], ...]:
    """The loops over groups and made channels that exist."""
    loops: tuple[tuple[str, Index], ...] = ()
    if channels.has_groups:
        loops += (("g", Int(channels.groups)),)
    if channels.has_made:
        loops += (("oc", Var("OC")),)
    return loops
