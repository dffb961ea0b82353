"""Weights of a matrix product: packed once into panels of made channels."""

from __future__ import annotations

from convgen.nests.build import weight_axes
from convgen.nests.nest import Nest, axis_letters
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.spec import ConvSpec
from convgen.strategies.widening import wide_dtype


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
    return (pack, Parallelize("pack_weight", (f"packed_{labels[0]}",)))
