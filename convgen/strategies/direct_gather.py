"""The schedule of direct for forward and data-gradient problems, which sum over taps and channels."""

from __future__ import annotations

import math

from convgen.ir.nodes import Var
from convgen.nests.build import SUMS, build_nest, unfolded_problem
from convgen.nests.classes import gather_classes
from convgen.nests.nest import Nest, axis_letters, pad_mode, spatial_axes
from convgen.passes.collapse import Collapse
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.fuse_epilogue import FuseEpilogue
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.pad import Pad
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.relayout import Relayout
from convgen.passes.reorder import Reorder
from convgen.passes.tile import Tile
from convgen.passes.unpack import Unpack
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.copies import copy_passes
from convgen.strategies.tiles import register_tile_passes

# So many register tiles are one task: enough to share the work, and few enough that their part of the source stays in cache.
TASK_TILES = 16


def gather_schedule(spec: ConvSpec, pixels: int, lanes: int, pixels_first: bool) -> Schedule:
    """Register tiles of ``pixels`` of an image, row after row, times ``lanes`` made channels.

    Each block of weights meets all pixels before the next block does; with ``pixels_first`` each part of an image meets all
    weights, which is better where the weights stay in cache.
    """
    problem = merged_pixels(spec)
    nest = build_nest(problem)
    lane = "oc" if nest.channels.has_made else "g"
    passes = (
        *result_passes(problem, nest),
        *source_passes(problem, nest),
        Tile(lane, lanes, f"{lane}_block", f"{lane}_lane"),
        _pack_weights(problem, nest, lanes),
        *copy_passes("pack_weight", "packed", packed_labels(problem, nest)[:2], None),
        *_loop_order(problem, nest, lane, pixels, pixels_first),
        *register_tile_passes(f"{lane}_lane"),
    )
    return Schedule(nest, passes)


def gather_extent(spec: ConvSpec) -> int:
    """The most pixels that a register tile may have: those of an image, of the smallest residue class."""
    counts = [math.prod(axis.count for axis in axes) for axes in gather_classes(unfolded_problem(merged_pixels(spec)))]
    return max(1, min(counts, default=1))


def merged_pixels(spec: ConvSpec) -> ConvSpec:
    """A pointwise problem has no neighbours: its spatial axes (in channels_last the batch too) are one."""
    if not spec.is_pointwise or ("residual" in spec.epilogue.steps and spec.layout != "channels_last"):
        return spec
    merge_batch = spec.layout == "channels_last" and spec.batch > 0
    size = math.prod(spec.spatial_size) * (spec.batch if merge_batch else 1)
    return spec.replace(
        batch=1 if merge_batch else spec.batch,
        spatial_size=(size,),
        kernel_size=(1,),
        stride=(1,),
        padding=(0,),
        dilation=(1,),
        output_padding=(0,),
    )


def image_labels(spec: ConvSpec, has_groups: bool, has_channels: bool) -> tuple[str, ...]:
    """What the axes of an image buffer are called, in the order of the problem's layout."""
    channels = (*(("g",) if has_groups else ()), *(("c",) if has_channels else ()))
    letters = tuple(axis_letters(spec.ndim))
    return ("n", *channels, *letters) if spec.layout == "channels_first" else ("n", *letters, *channels)


def channels_last_order(spec: ConvSpec, rank: int) -> tuple[int, ...]:
    """The axes of an image buffer of the problem's layout in the order batch, spatial, channels."""
    if spec.layout == "channels_last":
        return tuple(range(rank))
    spatial = tuple(range(rank - spec.ndim, rank))
    return (0, *spatial, *range(1, rank - spec.ndim))


def result_passes(spec: ConvSpec, nest: Nest) -> tuple[Pass, ...]:
    """Fuses the epilogue; for channels_first, results are kept channels-last until the last stage copies them.

    A residual that is not channels-last cannot be read in vectors: there the last stage is the epilogue itself.
    """
    program = nest.program
    rank = len(program.buffer(nest.result).shape)
    order = channels_last_order(spec, rank)
    folded = program.buffer(nest.result).space == "workspace"
    apart = spec.layout == "channels_first" and "residual" in spec.epilogue.steps
    passes: list[Pass] = []
    if program.has_buffer(SUMS) and not apart:
        passes.append(FuseEpilogue("epilogue", SUMS))
    if apart or (folded and spec.layout == "channels_first"):
        passes.append(Relayout(SUMS if apart else nest.result, order))
    elif spec.layout == "channels_first":
        labels = image_labels(spec, nest.channels.has_groups, nest.channels.has_made)
        passes += [Unpack(nest.result, "unpacked", order, labels)]
        passes += [Parallelize("unpack", tuple(f"unpacked_{label}" for label in labels[:2]))]
    if apart:
        passes.append(Parallelize("epilogue", ("e_n", f"e_o{axis_letters(spec.ndim)[0]}")))
    if folded:
        passes += [Parallelize(stage.name, ("i0",)) for stage in program.stages if stage.name.startswith("fold")]
    return tuple(passes)


def source_passes(spec: ConvSpec, nest: Nest) -> tuple[Pass, ...]:
    """Copies the source where it must be padded or its lanes are not last; else reads it in place."""
    shape = nest.program.buffer(nest.source).shape
    order = channels_last_order(spec, len(shape))
    grouped_lanes = not nest.channels.has_made and nest.channels.has_reduced
    if grouped_lanes:
        order = (*order[:-2], order[-1], order[-2])
    if spec.layout == "channels_last" and not grouped_lanes and not any(nest.low) and not any(nest.high):
        return (ExpandPadding(((nest.source, ()),)),)
    spatial = spatial_axes(spec, len(shape))
    low, extents = [0] * len(shape), list(shape)
    for axis, before, letter in zip(spatial, nest.low, axis_letters(spec.ndim), strict=True):
        low[axis], extents[axis] = before, Var(f"P{letter.upper()}")
    labels = image_labels(spec, nest.channels.has_groups, nest.channels.has_reduced)
    last = extents[order[-1]] if order[-1] == len(shape) - 1 else None
    return (
        Pad(nest.source, "padded", tuple(low), tuple(extents), order, pad_mode(spec), labels),
        ExpandPadding(((nest.source, spatial),)),
        *copy_passes(f"pad_{nest.source}", "padded", tuple(labels[axis] for axis in order), last),
    )


def _pack_weights(spec: ConvSpec, nest: Nest, lanes: int) -> Pack:
    """[groups] [block of lanes] [taps] [reduced] [lane]; without made channels the groups are the lanes."""
    channels = nest.channels
    axis = 0
    places: dict[str, int] = {}
    made_first = spec.transposed == (spec.direction == "backward_data")
    pair = ("made", "reduced") if made_first else ("reduced", "made")
    present = {"groups": channels.has_groups, "made": channels.has_made, "reduced": channels.has_reduced}
    for name in ("groups", *pair):
        if present[name]:
            places[name] = axis
            axis += 1
    laned = places["made"] if channels.has_made else places["groups"]
    layout = [PackedAxis(places["groups"])] if channels.has_groups and channels.has_made else []
    layout.append(PackedAxis(laned, "block", lanes))
    layout += [PackedAxis(axis + tap) for tap in range(spec.ndim)]
    if channels.has_reduced:
        layout.append(PackedAxis(places["reduced"]))
    labels = packed_labels(spec, nest)
    return Pack("weight", "packed", (*layout, PackedAxis(laned, "place", lanes)), labels=labels)


def packed_labels(spec: ConvSpec, nest: Nest) -> tuple[str, ...]:
    """What the axes of the packed weights are called."""
    channels = nest.channels
    groups = ("g",) if channels.has_groups and channels.has_made else ()
    taps = (f"k{letter}" for letter in axis_letters(spec.ndim))
    return (*groups, "block", *taps, *(("ic",) if channels.has_reduced else ()), "lane")


def _loop_order(spec: ConvSpec, nest: Nest, lane: str, pixels: int, pixels_first: bool) -> tuple[Pass, ...]:
    """Blocks of channels and parts of images are the tasks."""
    rows = [f"o{letter}" for letter in axis_letters(spec.ndim)]
    groups = ["g"] if nest.channels.has_groups and nest.channels.has_made else []
    block = f"{lane}_block"
    outer = (*groups, block, "n")
    flat = rows[0] if len(rows) == 1 else "flat"
    merge: tuple[Pass, ...] = () if len(rows) == 1 else (Collapse(tuple(rows), flat),)
    return (
        Reorder("conv", (*outer, *rows, f"{lane}_lane")),
        *merge,
        Tile(flat, pixels, "tiles", "px", tail="overlap"),
        Tile("tiles", TASK_TILES, "part", "tile", tail="clamp"),
        *((Reorder("conv", ("n", "part", block)),) if pixels_first else ()),
        Parallelize("conv", (*groups, "n", "part", block) if pixels_first else (*outer, "part")),
    )
