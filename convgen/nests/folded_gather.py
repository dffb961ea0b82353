"""The data gradient under a padding mode without scratch memory: each pixel looks for all that its copies were used for."""

from __future__ import annotations

from convgen.dtypes import DTYPES
from convgen.ir.build import add, continued, floordiv, minimum, mod, mul, sub
from convgen.ir.nodes import Alloc, Buffer, Const, Fma, If, Index, Int, Less, Load, Program, Stage, Stmt, Store, Var
from convgen.nests.build import weight_index
from convgen.nests.fold import border_position
from convgen.nests.nest import (
    Channels,
    Nest,
    axis_letters,
    channel_loops,
    group_axis,
    image_buffer,
    image_index,
    loops_around,
    made_axis,
    reduced_axis,
)
from convgen.spec import ConvSpec


def build_folded_gather(spec: ConvSpec) -> Nest:
    """One stage ``conv``: along every axis, over the positions of the padded image that show the pixel (itself, and the borders
    that continue it) and over the taps that a window puts there.

    It tests every border position for every pixel, where ``build_nest`` computes the padded image's gradient once, and folds it.
    """
    letters = axis_letters(spec.ndim)
    channels = Channels(spec.groups, spec.reduced_channels, spec.made_channels)
    reads, writes = tuple(f"I{c.upper()}" for c in letters), tuple(f"O{c.upper()}" for c in letters)
    dtype = DTYPES[spec.dtype]
    group = group_axis(channels, Int(channels.groups))
    taps = tuple(map(Int, spec.kernel_size))
    shape = weight_index(spec, channels, Int(channels.groups), Var("OC"), Int(channels.reduced), taps)
    reduced, made = reduced_axis(channels, Int(channels.reduced)), made_axis(channels, Var("OC"))
    buffers = (
        image_buffer(spec, "grad_output", spec.dtype, (*group, *reduced), reads, "operand"),
        Buffer("weight", spec.dtype, shape, "operand"),
        image_buffer(spec, "grad_input", dtype.result, (*group, *made), writes, "result"),
    )
    sizes = {"N": spec.batch, **dict(zip(reads, spec.output_size, strict=True))}
    sizes |= dict(zip(writes, spec.spatial_size, strict=True)) | {"OC": channels.made}
    program = Program("conv", tuple(sizes), buffers, (_stage(spec, channels, letters),))
    nothing = (0,) * spec.ndim
    return Nest(program, sizes, channels, "grad_output", "grad_input", nothing, nothing)


def _stage(spec: ConvSpec, channels: Channels, letters: str) -> Stage:
    dtype = DTYPES[spec.dtype].accumulator
    n, g, oc, ic = Var("n"), Var("g"), Var("oc"), Var("ic")
    group = group_axis(channels, g)
    windows = tuple(_window(spec, axis, letter) for axis, letter in enumerate(letters))
    source = image_index(spec, n, (*group, *reduced_axis(channels, ic)), windows)
    taps = tuple(Var(f"k{letter}") for letter in letters)
    product = Fma(
        Load("grad_output", source),
        Load("weight", weight_index(spec, channels, g, oc, ic, taps)),
        Load("acc", ()),
    )
    body: tuple[Stmt, ...] = (Store("acc", (), product),)
    if channels.has_reduced:
        body = loops_around(body, (("ic", Int(channels.reduced)),))
    for axis, letter in reversed(list(enumerate(letters))):
        for condition in _conditions(spec, axis, letter):
            body = (If(condition, body),)
        loops = ((f"b{letter}", Int(1 + _borders(spec, axis))), (f"k{letter}", Int(spec.kernel_size[axis])))
        body = loops_around(body, loops)
    pixels = tuple((f"o{letter}", Var(f"O{letter.upper()}")) for letter in letters)
    place = image_index(
        spec, n, (*group, *made_axis(channels, oc)), tuple(Var(pixel) for pixel, _ in pixels)
    )  # fmt: skip
    whole = (Store("acc", (), Const(0.0, dtype)), *body, Store("grad_input", place, Load("acc", ())))
    alloc = Alloc(Buffer("acc", dtype, (), "register"), whole)
    return Stage("conv", loops_around((alloc,), (("n", Var("N")), *pixels, *channel_loops(channels))))


def _borders(spec: ConvSpec, axis: int) -> int:
    """How many positions of the padded image are not the image's own."""
    return sum(max(0, side) for side in spec.padding[axis])


def _position(spec: ConvSpec, axis: int, letter: str) -> Index:
    """The padded image's position: the pixel's own where the border's number is 0, else that border's."""
    low, high = spec.padding[axis]
    own = add(f"o{letter}", low)
    if not _borders(spec, axis):
        return own
    border = Var(f"b{letter}")
    is_border = minimum(border, 1)
    other = border_position(sub(border, 1), low, high, Var(f"O{letter.upper()}"))
    return add(mul(sub(1, is_border), own), mul(is_border, other))


def _offset(spec: ConvSpec, axis: int, letter: str) -> Index:
    """Where the window that puts the tap there begins."""
    return sub(_position(spec, axis, letter), mul(f"k{letter}", spec.dilation[axis]))


def _window(spec: ConvSpec, axis: int, letter: str) -> Index:
    return floordiv(_offset(spec, axis, letter), spec.stride[axis])


def _conditions(spec: ConvSpec, axis: int, letter: str) -> tuple[Less, ...]:
    """The position is one of the padded image's and shows the pixel; a window begins at the offset."""
    low, high = spec.padding[axis]
    size = Var(f"O{letter.upper()}")
    own = Var(f"o{letter}")
    position, offset = _position(spec, axis, letter), _offset(spec, axis, letter)
    origin = continued(sub(position, low), size, spec.padding_mode)
    return (
        Less(_window(spec, axis, letter), Var(f"I{letter.upper()}")),
        Less(mod(offset, spec.stride[axis]), Int(1)),
        Less(Int(-1), offset),
        Less(sub(origin, own), Int(1)),
        Less(sub(own, origin), Int(1)),
        Less(position, add(size, low + high)),
        Less(Int(-1), position),
    )
