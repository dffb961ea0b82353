"""How direct's weights lie: a vector of made channels for each tap and reduced channel, or vectors of reduced channels."""

from __future__ import annotations

from convgen.nests.build import weight_axes
from convgen.nests.nest import Nest, axis_letters
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.reorder import Reorder
from convgen.spec import ConvSpec
from convgen.strategies.widening import wide_dtype


def pack_weights(spec: ConvSpec, nest: Nest, lanes: int, dot: int = 1, depth: int = 0) -> Pack:
    """[groups] [block of lanes] [taps] [reduced] [lane]; without made channels the groups are the lanes.

    For dot products a lane is ``dot`` neighbouring reduced channels, of which there are a multiple of ``depth`` for tiles.
    """
    channels = nest.channels
    axes = weight_axes(spec, channels)
    laned = axes["oc" if channels.has_made else "g"]
    layout = [PackedAxis(axes["g"])] if channels.has_groups and channels.has_made else []
    layout.append(PackedAxis(laned, "block", lanes))
    layout += [PackedAxis(len(axes) + tap) for tap in range(spec.ndim)]
    term: tuple[PackedAxis, ...] = ()
    if dot > 1:
        layout.append(PackedAxis(axes["ic"], "block", dot, max(1, depth // dot)))
        term = (PackedAxis(axes["ic"], "place", dot),)
    elif channels.has_reduced:
        layout.append(PackedAxis(axes["ic"]))
    labels = (*packed_labels(spec, nest), *(("term",) if term else ()))
    whole = (*layout, PackedAxis(laned, "place", lanes), *term)
    return Pack("weight", "packed", whole, labels=labels, dtype=wide_dtype(spec, dot))


def pack_terms(spec: ConvSpec, nest: Nest, made: int) -> tuple[Pass, ...]:
    """[block of made channels] [made channel] [taps] [reduced]."""
    axes = weight_axes(spec, nest.channels)
    taps = tuple(f"k{letter}" for letter in axis_letters(spec.ndim))
    layout = (
        PackedAxis(axes["oc"], "block", made),
        PackedAxis(axes["oc"], "place", made),
        *(PackedAxis(len(axes) + tap) for tap in range(spec.ndim)),
        PackedAxis(axes["ic"]),
    )
    labels = ("block", "lane", *taps, "ic")
    return (Pack("weight", "packed", layout, labels=labels), Parallelize("pack_weight", ("packed_block",)))


def packed_labels(spec: ConvSpec, nest: Nest) -> tuple[str, ...]:
    """What the axes of the packed weights are called."""
    channels = nest.channels
    groups = ("g",) if channels.has_groups and channels.has_made else ()
    taps = (f"k{letter}" for letter in axis_letters(spec.ndim))
    return (*groups, "block", *taps, *(("ic",) if channels.has_reduced else ()), "lane")


def pack_order(spec: ConvSpec, nest: Nest) -> tuple[Pass, ...]:
    """Taps inside channels, as the weights lie in memory: what is read together is used together."""
    labels = packed_labels(spec, nest)
    loops = tuple(f"packed_{label}" for label in labels)
    parallel = Parallelize("pack_weight", loops[:1])
    if "ic" not in labels:
        return (parallel,)
    taps = loops[labels.index("block") + 1 : labels.index("ic")]
    return (Reorder("pack_weight", ("packed_ic", *taps, "packed_lane")), parallel)
