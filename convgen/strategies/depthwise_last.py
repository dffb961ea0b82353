"""The schedule of depthwise for images whose channels are last: tiles of neighbouring pixels times a vector of groups.

A window's taps along the last axis are unrolled, so that each vector of the source is loaded once for all pixels of a row of the
tile that it belongs to. Rows of taps outside of the image are left out of the loop over them; of the columns only those that
can lie outside are tested, once for a tile and row.
"""

from __future__ import annotations

from convgen.machine import Machine
from convgen.nests.build import SUMS, build_nest, weight_axes
from convgen.nests.nest import Nest, axis_letters, pad_mode, spatial_axes, with_constant
from convgen.passes.collapse import Collapse
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.flatten import Flatten
from convgen.passes.fuse_epilogue import FuseEpilogue
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.parallelize import Parallelize
from convgen.passes.peel_border import PeelBorder
from convgen.passes.pipeline import Pass
from convgen.passes.register_tile import RegisterTile
from convgen.passes.reorder import Reorder
from convgen.passes.share_reads import ShareReads
from convgen.passes.simplify import Simplify
from convgen.passes.skip import Skip
from convgen.passes.tile import Tile
from convgen.passes.trim import Trim
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.copies import copy_tasks
from convgen.strategies.depthwise_facts import assume_tiles
from convgen.strategies.tiles import tile_prefetches
from convgen.tuning.space import Config

# Where the loop over blocks of groups stands: outside of an image, innermost, or around the tiles of a row.
GROUPS_FIRST, GROUPS_LAST, GROUPS_IN_ROWS = 0, 1, 2


def last_schedule(spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
    """Register tiles of ``rows`` rows of ``pixels`` pixels times ``lanes`` made channels. Taps of several rows are unrolled too.

    Groups and their made channels are one loop in the tile, and one axis of what it accesses.
    """
    rows, pixels, lanes, order = (config[name] for name in ("rows", "pixels", "lanes", "order"))
    nest = with_constant(build_nest(spec), "OC")
    channels = nest.channels
    lane_loops = ("g_in", "oc") if channels.has_made else ("g_in",)
    letters = axis_letters(spec.ndim)
    taps = [f"k{letter}" for letter in letters]
    tiled = 2 if rows > 1 else 1
    trimmed, unrolled = taps[:-tiled], taps[-tiled:]
    outer, inner = _loops(letters, tiled, order)
    tasks = 2 if order == GROUPS_FIRST else max(2, len(letters))
    passes: tuple[Pass, ...] = (
        *result_passes(nest),
        ExpandPadding(((nest.source, spatial_axes(spec, len(nest.program.buffer(nest.source).shape))),)),
        *(Trim(tap) for tap in trimmed if pad_mode(spec) == "zeros" and any(nest.low + nest.high)),
        *_pack_passes(spec, nest, taps),
        Tile("g", lanes // channels.made, "g_block", "g_in", tail="overlap"),
        Tile(f"o{letters[-1]}", pixels, "tile", "px", tail="overlap"),
        *((Tile(f"o{letters[-2]}", rows, "rows", "row", tail="overlap"),) if tiled == 2 else ()),
        Reorder("conv", (*outer, *inner[:-1], *lane_loops)),
        Collapse(lane_loops, "g_lane"),
        *(Flatten(buffers, 2) for buffers in _flattened(spec, nest)),
        Parallelize("conv", outer[:tasks]),
        Simplify(keep_unit_loops=True),
        RegisterTile(inner),
        *((Unroll("ic"),) if channels.has_reduced else ()),
        Vectorize("g_lane", spreads=True),
        *(Unroll(loop) for loop in (*inner[:-1], *unrolled)),
        Simplify(),
        *assume_tiles(spec, nest, (rows, pixels)[-tiled:]),
        ShareReads(nest.source),
        Skip(),
        *tile_prefetches(spec, nest, machine),
        PeelBorder("tile"),
    )
    return Schedule(nest, passes)


def _loops(letters: str, tiled: int, order: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The loops around a register tile and those in it."""
    rows = tuple(f"o{letter}" for letter in letters[:-tiled]) + ("rows",) * (tiled - 1)
    outer = {
        GROUPS_FIRST: ("n", "g_block", *rows, "tile"),
        GROUPS_LAST: ("n", *rows, "tile", "g_block"),
        GROUPS_IN_ROWS: ("n", *rows, "g_block", "tile"),
    }
    return outer[order], (*("row",) * (tiled - 1), "px", "g_lane")


def _flattened(spec: ConvSpec, nest: Nest) -> tuple[tuple[str, ...], ...]:
    """The buffers whose groups and channels are to be one axis."""
    channels = nest.channels
    named = ("packed", nest.result, *spec.epilogue.operands) if channels.has_made else ()
    named += (nest.source,) if channels.has_reduced else ()
    return (named,) if named else ()


def _pack_passes(spec: ConvSpec, nest: Nest, taps: list[str]) -> tuple[Pass, ...]:
    """Weights as [taps][reduced][groups][made]."""
    axes = weight_axes(spec, nest.channels)
    layout = [PackedAxis(len(axes) + axis) for axis in range(len(taps))]
    labels = (*taps, *(name for name in ("ic", "g", "oc") if name in axes))
    layout += [PackedAxis(axes[name]) for name in labels[len(taps) :]]
    return (
        Pack("weight", "packed", tuple(layout), labels=labels),
        copy_tasks("pack_weight", tuple(f"packed_{label}" for label in labels)),
    )


def result_passes(nest: Nest) -> tuple[Pass, ...]:
    """Fuses the epilogue; what folds back a data gradient is parallel."""
    stages = [stage.name for stage in nest.program.stages if stage.name.startswith("fold")]
    fused = (FuseEpilogue("epilogue", SUMS),) if nest.program.has_buffer(SUMS) else ()
    return (*fused, *(Parallelize(name, ("i0",)) for name in stages))
