"""The schedule of depthwise for images whose channels are last: tiles of neighbouring pixels of a row times a vector of groups.
"""

from __future__ import annotations

from convgen.ir.build import add, mul
from convgen.ir.nodes import Index, Int, Less, Var
from convgen.nests.build import SUMS, build_nest, unfolded_problem
from convgen.nests.classes import AxisClass, gather_classes
from convgen.nests.nest import Nest, axis_letters
from convgen.passes.assume import Assume
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.fuse_epilogue import FuseEpilogue
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.parallelize import Parallelize
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
from convgen.strategies.copies import copy_passes
from convgen.strategies.direct_gather import pad_mode
from convgen.strategies.reference import spatial_axes


def pixels_schedule(spec: ConvSpec, rows: int, pixels: int, lanes: int, order: int) -> Schedule:
    """Register tiles of ``rows`` times ``pixels`` times ``lanes`` groups."""
    nest = build_nest(spec)
    letters = axis_letters(spec.ndim)
    taps = [f"k{letter}" for letter in letters]
    layout = (*(PackedAxis(1 + axis) for axis in range(spec.ndim)), PackedAxis(0))
    labels = (*taps, "g")
    outside = [f"o{letter}" for letter in letters[:-1]]
    inside = ["px", "g_lane"]
    tiles: tuple[Pass, ...] = (Tile(f"o{letters[-1]}", pixels, "tile", "px", tail="overlap"),)
    trimmed = taps[:-1]
    unrolled = [taps[-1]]
    if rows > 1:
        tiles += (Tile(outside[-1], rows, "rows", "row", tail="overlap"),)
        outside[-1] = "rows"
        inside = ["row", *inside]
        trimmed = taps[:-2]
        unrolled = taps[-2:]
    outer = [("n", "g_block", *outside, "tile"), ("n", *outside, "tile", "g_block"), ("n", *outside, "g_block", "tile")][
        order
    ]
    parallel = outer[: max(2, 1 + len(outside))] if order else outer[:2]
    passes: tuple[Pass, ...] = (
        *result_passes(nest),
        ExpandPadding(((nest.source, spatial_axes(spec, nest)),)),
        *(Trim(tap) for tap in trimmed if pad_mode(spec) == "zeros"),
        Pack("weight", "packed", layout, labels=labels),
        *copy_passes("pack_weight", "packed", labels, None),
        Tile("g", lanes, "g_block", "g_lane", tail="overlap"),
        *tiles,
        Reorder("conv", (*outer, *inside)),
        Parallelize("conv", parallel),
        Simplify(keep_unit_loops=True),
        RegisterTile(tuple(inside)),
        Vectorize("g_lane"),
        *(Unroll(loop) for loop in (*inside[:-1], *unrolled)),
        Simplify(),
        *_facts(spec, nest, (rows, pixels)),
        ShareReads(nest.source),
        Skip(),
        Simplify(),
    )
    return Schedule(nest, passes)


def row_extent(spec: ConvSpec) -> int:
    """The most pixels of a row that a tile may have: those of the shortest rows of any residue class."""
    return max(1, min((axes[-1].count for axes in gather_classes(unfolded_problem(spec))), default=1))


def result_passes(nest: Nest) -> tuple[Pass, ...]:
    """Fuses the epilogue; folds in parallel."""
    passes: list[Pass] = []
    if nest.program.has_buffer(SUMS):
        passes.append(FuseEpilogue("epilogue", SUMS))
    passes += [Parallelize(stage.name, ("i0",)) for stage in nest.program.stages if stage.name.startswith("fold")]
    return tuple(passes)


def _facts(spec: ConvSpec, nest: Nest, tile: tuple[int, int]) -> tuple[Assume, ...]:
    """What is known of rows: they hold a tile, and reads leave the source by no more than the nest says."""
    classes = gather_classes(unfolded_problem(spec))
    bound = len(classes) > 1
    result = []
    for i, axes in enumerate(classes):
        facts: tuple[Less, ...] = ()
        for a, extent in zip(range(spec.ndim)[-2:], tile[-spec.ndim :], strict=True):
            letter = axis_letters(spec.ndim)[a]
            size = Var(f"I{letter.upper()}")
            axis = axes[a]
            count: Index = Var(f"count_{letter}" if bound else f"O{letter.upper()}")
            offset: Index = Var(f"offset_{letter}") if bound else Int(axis.offset)
            reach = (axis.taps - 1) * axis.tap_source_step
            lowest = add(offset, min(0, reach))
            highest = add(mul(add(count, -1), axis.source_step), offset, max(0, reach))
            facts += (
                Less(Int(extent - 1), count),
                Less(Int(-1 - nest.low[a]), lowest),
                Less(highest, add(size, nest.high[a])),
            )
        result.append(Assume(f"conv{i}" if bound else "conv", facts))
    return tuple(result)
