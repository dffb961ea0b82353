"""Weight gradients in dot products of two neighbouring pixels of a row.

Pixels are what is summed, and where channels are last they are neighbours in neither image. So the one that elements are
broadcast from is copied with the pixels of a pair next to each other, or with its rows last: two of a channel are one operand.
Vectors of the other are interleaved where they are used; without padding it is read in place. Lanes run along the channels of the
image that is read with a stride, taps and padding, or where those are few along the other's; then rows are copied by their
residues modulo the stride. Rows of odd numbers of pixels end with one of zeros, times a pixel that perhaps no window reads: an
infinite one makes a sum NaN.
"""

from __future__ import annotations

from dataclasses import replace

from convgen.ir.build import add, ceildiv, mul
from convgen.ir.nodes import Index, Var
from convgen.machine import Machine
from convgen.nests.nest import Nest, axis_letters, pad_mode, spatial_axes
from convgen.passes.dot_products import DotProducts
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.interleave_copy import InterleaveCopy
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.round_up import RoundUp
from convgen.passes.tile import Tile
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec
from convgen.strategies.boxes import kept_steps
from convgen.strategies.copies import PaddedCopy
from convgen.strategies.direct_images import channels_last_order, image_labels, source_copy, vector_order
from convgen.strategies.dots import admits_dots
from convgen.tuning.cost import waste

# Terms of a dot product.
TERMS = 2
# Pixels of one residue that are copied at once, and the most residues, the copies of which stand one after another.
RESIDUE_LANES, MOST_RESIDUES = 16, 16
# Channels whose pixels are interleaved at once.
PAIR_LANES = 32
# Registers that interleaving takes: which lanes go where, and what is not interleaved yet.
INTERLEAVED = 4


def takes_pixel_dots(spec: ConvSpec, machine: Machine) -> bool:
    """Whether there are dot products of the type, both images have channels to share them, and what continues their rows is
    zero."""
    several = min(spec.made_channels, spec.reduced_channels) > 1
    return spec.dtype == "bfloat16" and admits_dots(spec, machine) and several and pad_mode(spec) == "zeros"


def parts_residues(spec: ConvSpec) -> bool:
    """Whether the stride is small enough for rows to be copied by their residues."""
    return spec.stride[-1] <= MOST_RESIDUES


def residue_waste(spec: ConvSpec) -> float:
    """How much longer the rows are that ``_source`` copies: padded, with the pixels of one more step, in whole vectors of every
    residue of the stride."""
    size, step = (spec.output_size if spec.transposed else spec.spatial_size)[-1], spec.stride[-1]
    length = size + sum(spec.padding[-1]) + step
    return length / size * (waste(length, step * RESIDUE_LANES) if step > 1 else 1.0)


def pair_passes(spec: ConvSpec, nest: Nest, square: int, *, turned: bool) -> tuple[Pass, ...]:
    """Both images as they are read, and rows of even numbers of pixels; ``turned`` as in a configuration."""
    last = f"o{axis_letters(spec.ndim)[-1]}"
    pairs = turned and spec.layout == "channels_last"
    in_place = pairs and not any(nest.low + nest.high)
    return (
        *(_in_place(spec, nest) if in_place else _source(spec, nest, square, turned=turned)),
        *(_pairs(spec, nest) if pairs else _plain(spec, nest, square, turned=turned)),
        RoundUp(last, TERMS),
        Tile(last, TERMS, last, f"{last}_term"),
    )


def pair_products(spec: ConvSpec) -> tuple[Pass, ...]:
    """Makes the two terms of a register tile's step one."""
    return (DotProducts(f"o{axis_letters(spec.ndim)[-1]}_term"),)


def _in_place(spec: ConvSpec, nest: Nest) -> tuple[Pass, ...]:
    """The image that is read with its padding, which has none: beyond the last pixel of an odd row are zeros."""
    width = _width(spec, len(nest.program.buffer(nest.source).shape))
    return (ExpandPadding(((nest.source, (width,)),)),)


def _source(spec: ConvSpec, nest: Nest, square: int, *, turned: bool) -> tuple[Pass, ...]:
    """The image that is read with its padding, and with as much more as the last pixel of an odd row needs; vectors of it, or the
    image as it lies."""
    order = vector_order(spec, nest) if turned else _rows_last(spec, len(nest.program.buffer(nest.source).shape))
    copy = source_copy(spec, nest, order, always=True)
    assert copy is not None
    letter, width = axis_letters(spec.ndim)[-1], _width(spec, len(copy.order))
    strided = kept_steps(spec)[-1] > 1
    extent = _even(Var(f"O{letter.upper()}")) if strided else add(copy.extents[width], spec.stride[-1])
    if not turned and spec.stride[-1] > 1:
        # Whole vectors of every residue.
        block = spec.stride[-1] * RESIDUE_LANES
        extent = mul(ceildiv(extent, block), block)
    copy = _with_rows(copy, width, extent, spec.dtype)
    return (*copy.of_whole_image(square), *(() if turned else _residues(spec, copy)))


def _residues(spec: ConvSpec, copy: PaddedCopy) -> tuple[Pass, ...]:
    """The copy once more, the pixels of a row by their residues modulo the stride."""
    step, last = spec.stride[-1], len(copy.order) - 1
    if step == 1:
        return ()
    layout = (
        *map(PackedAxis, range(last)),
        PackedAxis(last, "place", step),
        PackedAxis(last, "block", step, RESIDUE_LANES),
    )
    labels = (*(copy.labels[axis] for axis in copy.order[:last]), "residue", copy.width)
    return (
        Pack(copy.into, "rows", layout, "workspace", labels),
        Parallelize(f"pack_{copy.into}", tuple(f"rows_{label}" for label in labels[:2])),
        Tile(f"rows_{copy.width}", RESIDUE_LANES, "rows_block", "rows_lane"),
        Unroll("rows_residue"),
        Vectorize("rows_lane", spreads=True),
    )


def _plain(spec: ConvSpec, nest: Nest, square: int, *, turned: bool) -> tuple[Pass, ...]:
    """The other image as it lies, or vectors of it."""
    plain, letter = nest.plain, axis_letters(spec.ndim)[-1]
    rank = len(plain.shape)
    width = _width(spec, rank)
    order = tuple(range(rank)) if turned else channels_last_order(spec, rank)
    labels = image_labels(spec, nest.channels.has_groups, nest.channels.has_made)
    copy = PaddedCopy(plain.name, order, (0,) * rank, plain.shape, (), "zeros", labels, letter, into="paired")
    return _with_rows(copy, width, _even(plain.shape[width]), spec.dtype).of_whole_image(square)


def _pairs(spec: ConvSpec, nest: Nest) -> tuple[Pass, ...]:
    """The other image as [pairs of pixels] [channels] [pixels of a pair]: its rows interleaved."""
    plain = nest.plain
    rank = len(plain.shape)
    width = _width(spec, rank)
    layout = (
        *(
            PackedAxis(axis, "block" if axis == width else "whole", TERMS if axis == width else 1)
            for axis in range(rank)
        ),
        PackedAxis(width, "place", TERMS),
    )
    labels = (*image_labels(spec, nest.channels.has_groups, nest.channels.has_made), "term")
    loops = tuple(f"paired_{label}" for label in labels)
    lanes = min(PAIR_LANES, 1 << (spec.made_channels.bit_length() - 1))
    return (
        Pack(plain.name, "paired", layout, "workspace", labels),
        Parallelize(f"pack_{plain.name}", loops[:2]),
        InterleaveCopy(loops[-1]),
        Tile(loops[-2], lanes, f"{loops[-2]}_block", f"{loops[-2]}_lane", tail="overlap"),
        Vectorize(f"{loops[-2]}_lane"),
    )


def _rows_last(spec: ConvSpec, rank: int) -> tuple[int, ...]:
    """The axes of an image in the order batch, spatial but the width, channels, width; channels first as they lie."""
    if spec.layout == "channels_first":
        return tuple(range(rank))
    width = _width(spec, rank)
    return (*(axis for axis in range(rank) if axis != width), width)


def _with_rows(copy: PaddedCopy, width: int, extent: Index, dtype: str) -> PaddedCopy:
    """The copy with rows of ``extent`` pixels."""
    extents = (*copy.extents[:width], extent, *copy.extents[width + 1 :])
    return replace(copy, extents=extents, axes=tuple(sorted({*copy.axes, width})), dtype=dtype)


def _width(spec: ConvSpec, rank: int) -> int:
    """The axis along a row of an image of so many axes."""
    return spatial_axes(spec, rank)[-1]


def _even(extent: Index) -> Index:
    return mul(ceildiv(extent, TERMS), TERMS)
