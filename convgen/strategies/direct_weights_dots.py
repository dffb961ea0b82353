"""Weight gradients in dot products of two neighbouring pixels of a row.

What is summed are pixels, which lie next to each other in neither image where channels are last. The image that elements are broadcast from
is copied with its rows last, so that two pixels of a channel are one operand; the vectors of the other are interleaved where
they are used. Rows of an odd number of pixels end with one of zeros.
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
from convgen.strategies.dots import FEWEST_LANES, adds_terms
from convgen.tuning.space import Config

# Terms of a dot product.
TERMS = 2


def takes_pixel_dots(spec: ConvSpec, config: Config, machine: Machine) -> bool:
    """Whether the machine adds products of the type, both images have channels to share them, and what continues them is zero.

    Rows that elements are broadcast from are copied without gaps, so there the stride must be 1. The instruction takes denormals
    for zeros, which "strict" does not admit.
    """
    if spec.dtype != "bfloat16" or not adds_terms(machine, spec.dtype) or spec.accuracy == "strict":
        return False
    few = min(spec.made_channels, spec.reduced_channels) < 2 or config["lanes"] < FEWEST_LANES
    if few or pad_mode(spec) != "zeros":
        return False
    return bool(config["turned"]) or spec.stride[-1] == 1


def pair_passes(spec: ConvSpec, nest: Nest, square: int, *, turned: bool) -> tuple[Pass, ...]:
    """Both images as they are read, and rows of even numbers of pixels, ``turned`` with the source along the lanes."""
    last = f"o{axis_letters(spec.ndim)[-1]}"
    copies = (_source_copy(spec, nest, as_rows=not turned), _plain_copy(spec, nest, as_rows=turned))
    return (
        *(part for copy in copies for part in (copy.pad(), copy.tasks(), *copy.moves(square, whole=True))),
        RoundUp(last, TERMS),
        Tile(last, TERMS, last, f"{last}_term"),
    )


def pair_products(spec: ConvSpec) -> tuple[Pass, ...]:
    """Makes the two terms of a register tile's step one."""
    return (DotProducts(f"o{axis_letters(spec.ndim)[-1]}_term"),)


def _source_copy(spec: ConvSpec, nest: Nest, *, as_rows: bool) -> PaddedCopy:
    """The image that is read with its padding, and with as much more as the last pixel of an odd row needs."""
    copy = source_copy(spec, nest, vector_order(spec, nest), always=True)
    assert copy is not None
    letter = axis_letters(spec.ndim)[-1]
    width = spatial_axes(spec, len(copy.order))[-1]
    strided = kept_steps(spec)[-1] > 1
    extent = _even(Var(f"O{letter.upper()}")) if strided else add(copy.extents[width], spec.stride[-1])
    return _as_read(spec, copy, width, extent, as_rows=as_rows)


def _plain_copy(spec: ConvSpec, nest: Nest, *, as_rows: bool) -> PaddedCopy:
    plain = nest.plain
    rank = len(plain.shape)
    labels = image_labels(spec, nest.channels.has_groups, nest.channels.has_made)
    order, width = channels_last_order(spec, rank), spatial_axes(spec, rank)[-1]
    letter = axis_letters(spec.ndim)[-1]
    copy = PaddedCopy(plain.name, order, (0,) * rank, plain.shape, (), "zeros", labels, letter, into="paired")
    return _as_read(spec, copy, width, _even(plain.shape[width]), as_rows=as_rows)


def _as_read(spec: ConvSpec, copy: PaddedCopy, width: int, extent: Index, *, as_rows: bool) -> PaddedCopy:
    """The copy with rows of ``extent`` pixels, of the type it has, its rows last or its channels."""
    order = copy.order
    if as_rows:
        order = tuple(range(len(order))) if spec.layout == "channels_first" else _rows_last(order, width)
    extents = (*copy.extents[:width], extent, *copy.extents[width + 1 :])
    axes = tuple(sorted({*copy.axes, width}))
    return replace(copy, order=order, extents=extents, axes=axes, dtype=spec.dtype)


def _rows_last(order: tuple[int, ...], width: int) -> tuple[int, ...]:
    return (*(axis for axis in order if axis != width), width)


def _even(extent: Index) -> Index:
    return mul(ceildiv(extent, TERMS), TERMS)
