"""Weights of a matrix product: packed once into panels of made channels."""

from __future__ import annotations

from convgen.nests.build import weight_axes
from convgen.nests.nest import Nest, axis_letters
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.reorder import Reorder
from convgen.passes.tile import Tile
from convgen.spec import ConvSpec
from convgen.strategies.widening import wide_dtype

# Reduced channels that are copied of one made channel before the next: a line of float32.
LINE = 16


def panel_passes(spec: ConvSpec, nest: Nest, width: int, dot: int) -> tuple[Pass, ...]:
    """[groups] [panel of ``width`` made channels] [taps] [reduced] [made channel], zero beyond the last one; with several reduced
    channels for each made one where ``dot`` are added at once."""
    channels = nest.channels
    groups = ("g",) if channels.has_groups else ()
    reduced = ("ic",) if channels.has_reduced else ()
    place = weight_axes(spec, channels)
    taps = tuple(PackedAxis(len(place) + axis) for axis in range(spec.ndim))
    layout = (
        *(PackedAxis(place[name]) for name in groups),
        PackedAxis(place["oc"], "block", width),
        *taps,
        *(PackedAxis(place[name], "block" if dot > 1 else "whole", dot) for name in reduced),
        PackedAxis(place["oc"], "place", width),
        *((PackedAxis(place["ic"], "place", dot),) if dot > 1 else ()),
    )
    taps_labels = tuple(f"k{letter}" for letter in axis_letters(spec.ndim))
    labels = (*groups, "panel", *taps_labels, *reduced, "oc", *(("term",) if dot > 1 else ()))
    pack = Pack("weight", "packed", layout, labels=labels, dtype=wide_dtype(spec, dot))
    loops = tuple(f"packed_{label}" for label in labels)
    lines: tuple[Pass, ...] = ()
    if dot == 1 and reduced:
        # A line of the weights is used up before the next: those a row apart may all lie in one set of the cache.
        lines = (
            Reorder("pack_weight", ("packed_oc", "packed_ic")),
            Tile("packed_ic", LINE, "packed_line", "packed_ic"),
            Reorder("pack_weight", ("packed_line", "packed_oc", "packed_ic")),
        )
    return (pack, *lines, Parallelize("pack_weight", loops[:1]))
