"""Weight gradients in dot products of two neighbouring pixels of a row.

Pixels are what is summed, and where channels are last they are neighbours in neither image. So the one that elements are
broadcast from is copied with its rows last: two pixels of a channel are one operand. Vectors of the other, which has a stride,
taps and padding, are interleaved where they are used. Rows of an odd number of pixels end with one of zeros.
"""

from __future__ import annotations

from dataclasses import replace

from convgen.ir.build import add, ceildiv, mul
from convgen.ir.nodes import Index, Var
from convgen.machine import Machine
from convgen.nests.nest import Nest, axis_letters, pad_mode, spatial_axes
from convgen.passes.dot_products import DotProducts
from convgen.passes.pipeline import Pass
from convgen.passes.round_up import RoundUp
from convgen.passes.tile import Tile
from convgen.spec import ConvSpec
from convgen.strategies.boxes import kept_steps
from convgen.strategies.copies import PaddedCopy
from convgen.strategies.direct_images import channels_last_order, image_labels, source_copy, vector_order
from convgen.strategies.dots import adds_terms

# Terms of a dot product.
TERMS = 2
# Registers that interleaving takes: which lanes go where, and what is not interleaved yet.
INTERLEAVED = 4


def takes_pixel_dots(spec: ConvSpec, machine: Machine) -> bool:
    """Whether the machine adds products of the type, both images have channels to share them, and what continues their rows is
    zero.

    The instruction takes denormals for zeros, which "strict" does not admit.
    """
    if spec.dtype != "bfloat16" or not adds_terms(machine, spec.dtype) or spec.accuracy == "strict":
        return False
    return min(spec.made_channels, spec.reduced_channels) > 1 and pad_mode(spec) == "zeros"


def pair_passes(spec: ConvSpec, nest: Nest, square: int) -> tuple[Pass, ...]:
    """Both images as they are read, and rows of even numbers of pixels."""
    last = f"o{axis_letters(spec.ndim)[-1]}"
    copies = (_vectors(spec, nest), _rows(spec, nest))
    return (
        *(part for copy in copies for part in (copy.pad(), copy.tasks(), *copy.moves(square, whole=True))),
        RoundUp(last, TERMS),
        Tile(last, TERMS, last, f"{last}_term"),
    )


def pair_products(spec: ConvSpec) -> tuple[Pass, ...]:
    """Makes the two terms of a register tile's step one."""
    return (DotProducts(f"o{axis_letters(spec.ndim)[-1]}_term"),)


def _vectors(spec: ConvSpec, nest: Nest) -> PaddedCopy:
    """The image that is read with its padding, and with as much more as the last pixel of an odd row needs."""
    copy = source_copy(spec, nest, vector_order(spec, nest), always=True)
    assert copy is not None
    letter, width = axis_letters(spec.ndim)[-1], spatial_axes(spec, len(copy.order))[-1]
    strided = kept_steps(spec)[-1] > 1
    extent = _even(Var(f"O{letter.upper()}")) if strided else add(copy.extents[width], spec.stride[-1])
    return _with_rows(copy, width, extent, spec.dtype)


def _rows(spec: ConvSpec, nest: Nest) -> PaddedCopy:
    """The other image, with its rows last."""
    plain, letter = nest.plain, axis_letters(spec.ndim)[-1]
    rank = len(plain.shape)
    width = spatial_axes(spec, rank)[-1]
    order = tuple(range(rank))
    if spec.layout == "channels_last":
        order = (*(axis for axis in channels_last_order(spec, rank) if axis != width), width)
    labels = image_labels(spec, nest.channels.has_groups, nest.channels.has_made)
    copy = PaddedCopy(plain.name, order, (0,) * rank, plain.shape, (), "zeros", labels, letter, into="paired")
    return _with_rows(copy, width, _even(plain.shape[width]), spec.dtype)


def _with_rows(copy: PaddedCopy, width: int, extent: Index, dtype: str) -> PaddedCopy:
    """The copy with rows of ``extent`` pixels."""
    extents = (*copy.extents[:width], extent, *copy.extents[width + 1 :])
    return replace(copy, extents=extents, axes=tuple(sorted({*copy.axes, width})), dtype=dtype)


def _even(extent: Index) -> Index:
    return mul(ceildiv(extent, TERMS), TERMS)
