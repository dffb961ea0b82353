"""The schedule of direct for weight gradients, which sum over batch and pixels."""

from __future__ import annotations

from convgen.nests.build import build_nest
from convgen.nests.nest import Nest, axis_letters
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.reorder import Reorder
from convgen.passes.tile import Tile
from convgen.passes.unpack import Unpack
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.direct_images import (
    channels_last_order,
    image_labels,
    source_passes,
    turned_loop,
    turning_passes,
    vector_order,
)
from convgen.strategies.tiles import register_tile_passes


def weights_schedule(spec: ConvSpec, factor: int, lanes: int, square: int) -> Schedule:
    """Register tiles of ``factor`` reduced channels times ``lanes`` made channels; for one channel per group, of the taps of
    the last axis times ``lanes`` groups. Each tile is summed over the whole batch."""
    nest = build_nest(spec)
    channels = nest.channels
    lane = "oc" if channels.has_made else "g"
    taps = [f"k{letter}" for letter in axis_letters(spec.ndim)]
    tiled = "ic" if channels.has_reduced else taps[-1]
    outer = [*taps, *(["g"] if channels.has_groups and channels.has_made else []), f"{lane}_block", "ic"]
    outer = [loop for loop in outer if loop != tiled and (loop != "ic" or channels.has_reduced)]
    passes = (
        *source_passes(spec, nest, square, vector_order(spec, nest)),
        *_plain_passes(spec, nest, square),
        *_result_passes(spec, nest),
        Reorder("conv", (*(loop for loop in outer if loop != f"{lane}_block"), tiled, lane)),
        Tile(lane, lanes, f"{lane}_block", f"{lane}_lane"),
        Reorder("conv", (*outer, tiled, f"{lane}_lane")),
        Parallelize("conv", tuple(outer)),
        Tile(tiled, factor, "tile", "px", tail="overlap"),
        *register_tile_passes(f"{lane}_lane"),
    )
    return Schedule(nest, passes)


def weights_extent(spec: ConvSpec) -> int:
    """The most that a register tile may have of what it is tiled along: reduced channels, or taps of the last axis."""
    return max(1, spec.reduced_channels if spec.reduced_channels != 1 else spec.kernel_size[-1])


def _plain_passes(spec: ConvSpec, nest: Nest, square: int) -> tuple[Pass, ...]:
    """The image that is read without padding, with its channels last."""
    if spec.layout == "channels_last":
        return ()
    plain = next(b for b in nest.program.buffers if b.space == "operand" and b.name != nest.source)
    order = channels_last_order(spec, len(plain.shape))
    layout = tuple(map(PackedAxis, order))
    named = image_labels(spec, nest.channels.has_groups, nest.channels.has_made)
    labels = tuple(named[axis] for axis in order)
    pack = Pack(plain.name, "plain", layout, "workspace", labels)
    loops = f"plain_{labels[-1]}", f"plain_{named[-1]}"
    turned = turning_passes("plain_n", *loops, square)
    return (pack, *turned, Parallelize(f"pack_{plain.name}", ("plain_n", *turned_loop(*loops))))


def _result_passes(spec: ConvSpec, nest: Nest) -> tuple[Pass, ...]:
    """The gradient is made as [taps][groups][reduced][made], so that lanes are stored together."""
    channels = nest.channels
    first = int(channels.has_groups)
    made = (first,) if channels.has_made else ()
    reduced = (first + len(made),) if channels.has_reduced else ()
    rank = len(nest.program.buffer(nest.result).shape)
    taps = tuple(range(rank - spec.ndim, rank))
    groups = (0,) if channels.has_groups else ()
    order = (*taps, *groups, *reduced, *made) if channels.has_made else (*taps, *reduced, *groups)
    names = (*(("g",) if groups else ()), *(("oc",) if made else ()), *(("ic",) if reduced else ()))
    labels = (*names, *(f"k{letter}" for letter in axis_letters(spec.ndim)))
    return (Unpack(nest.result, "unpacked", order, labels), Parallelize("unpack", (f"unpacked_{labels[0]}",)))
