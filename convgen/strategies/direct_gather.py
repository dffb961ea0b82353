"""The schedule of direct for forward and data-gradient problems, which sum over taps and channels."""

from __future__ import annotations

import math

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.nests.build import build_nest, unfolded_problem
from convgen.nests.classes import gather_classes, is_one_class
from convgen.nests.nest import Nest, axis_letters, pad_mode
from convgen.passes.collapse import Collapse
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.prefetch import PrefetchReads
from convgen.passes.reorder import Reorder
from convgen.passes.round_up import RoundUp
from convgen.passes.tensorize import LANES
from convgen.passes.tile import Tile
from convgen.passes.unsigned import Unsigned
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.boxes import Box, box_extent, box_source_bytes, choose_box, inside_share, is_by_rows
from convgen.strategies.copies import square_size
from convgen.strategies.direct_boxes import boxed, is_boxed
from convgen.strategies.direct_images import result_passes, source_order, source_passes, terms_lanes
from convgen.strategies.direct_packing import pack_order, pack_terms, pack_weights
from convgen.strategies.direct_whole import is_whole, whole_schedule
from convgen.strategies.dots import adds_bytes, dot_of, dot_passes
from convgen.strategies.matrix import matrix_passes, pieces_of, split_passes
from convgen.strategies.merging import merged_pixels
from convgen.strategies.tiles import PREFETCHED_BYTES, most_taps, register_tile_passes, sum_tile_passes, tile_prefetches
from convgen.tuning.space import Config

# So many register tiles are one task: enough to share the work, and few enough that their part of the source stays in cache.
TASK_TILES = 16
# Rows of taps are left out where that leaves less than this part of the products.
WORTHWHILE = 0.97
# Terms of a short sum.
SHORT_SUM = 512
# Pixels of a common register tile.
FEW_PIXELS = 6
# The part of the first-level cache that all weights may fill.
L1_SHARE = 0.75


def gather_schedule(spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
    """Register tiles of ``pixels`` of an image, row after row, times ``lanes`` made channels.

    Each block of weights meets all pixels before the next block does; with ``pixels_first`` each part of an image meets all
    weights, which is better where the weights stay in cache. Where images must be copied the parts are then boxes, each
    computed from a copy of its own.
    """
    problem = merged_pixels(spec)
    if is_whole(config):
        return whole_schedule(problem, config, machine)
    nest = build_nest(problem)
    lanes, square = config["lanes"], square_size(spec.dtype, machine)
    lane = "oc" if nest.channels.has_made else "g"
    terms, dot, depth = terms_lanes(config), dot_of(config), config.get("matrix", 0)
    weights: tuple[Pass, ...] = (
        Tile(lane, lanes, f"{lane}_block", f"{lane}_lane"),
        *(
            pack_terms(problem, nest, lanes)
            if terms
            else (pack_weights(problem, nest, LANES if depth else lanes, dot, depth), *pack_order(problem, nest))
        ),
        *((RoundUp("ic", depth or dot),) if dot > 1 else ()),
    )
    box = gather_box(spec, config, machine) if config["pixels_first"] else None
    if box is not None:
        nest, passes = boxed(problem, nest, box, config, square, weights)
    else:
        passes = (
            *result_passes(problem, nest, square),
            *source_passes(problem, nest, square, source_order(problem, nest, config), depth or dot),
            *weights,
            *_loop_order(problem, nest, lane, config, _takes_turns(problem, machine)),
        )
    if adds_bytes(problem, config):
        passes = (*passes, Unsigned("padded", "packed", "offsets"))
    loop = f"{lane}_lane"
    if depth:
        passes = (*passes, *split_passes("padded", config))
        tile = matrix_passes("px", loop, "ic", config["height"], depth)
    else:
        dots = dot_passes("ic", dot, nest.channels.reduced)
        tile = sum_tile_passes(loop, terms) if terms else register_tile_passes(loop, dots)
    prefetches = *_prefetches(problem, nest, config, machine), *tile_prefetches(problem, nest, machine)
    return Schedule(nest, (*passes, *tile, *prefetches))


def _prefetches(problem: ConvSpec, nest: Nest, config: Config, machine: Machine) -> tuple[Pass, ...]:
    """Where the processor sees no stream: weights of a line whose taps are left out in part, and images that tiles of a few made
    channels read in place, are asked for ahead of their use if they come from beyond the second-level cache."""
    ahead = PREFETCHED_BYTES // DTYPES[problem.dtype].itemsize
    source = problem.output_bytes if problem.direction == "backward_data" else problem.input_bytes
    if terms_lanes(config):
        in_place = not is_boxed(problem) and source > machine.l2_bytes
        return (PrefetchReads(nest.source, ahead),) if in_place else ()
    trimmed = is_by_rows(config) and problem.ndim == 1 and config["lanes"] > 1
    return (PrefetchReads("packed", ahead),) if trimmed and problem.weight_bytes > machine.l2_bytes else ()


def most_pixels(spec: ConvSpec, *, pixels_first: bool) -> int:
    """The most pixels that a register tile may have: those of an image, of the smallest residue class; in boxes of a plane."""
    problem = merged_pixels(spec)
    if pixels_first and is_boxed(problem):
        return box_extent(problem)
    counts = [math.prod(axis.count for axis in axes) for axes in gather_classes(unfolded_problem(problem))]
    return max(1, min(counts, default=1))


def gather_box(spec: ConvSpec, config: Config, machine: Machine) -> Box | None:
    """The box that a task computes with ``pixels_first``; None where nothing is copied."""
    problem = merged_pixels(spec)
    if not is_boxed(problem):
        return None
    return choose_box(problem, config["pixels"], config["lanes"], machine, by_rows=is_by_rows(config))


def leaves_out_rows(spec: ConvSpec) -> bool:
    """Whether rows of taps outside of the image, or taps of a line, are worth leaving out."""
    problem = merged_pixels(spec)
    return pad_mode(problem) == "zeros" and is_boxed(problem) and inside_share(problem, FEW_PIXELS) < WORTHWHILE


def takes_dots(spec: ConvSpec, config: Config) -> bool:
    """Whether sums can be made of dot products: those of bytes need a copy of the image, and windows that are complete."""
    problem = merged_pixels(spec)
    if problem.dtype != "int8":
        return True
    plain = not is_by_rows(config) and not is_whole(config) and is_one_class(unfolded_problem(problem))
    return plain and problem.layout == "channels_last" and is_boxed(problem)


def takes_tiles(spec: ConvSpec, config: Config) -> bool:
    """Whether the matrix unit can have the image: in place or as a copy, in pieces only as one in which channels stay last."""
    problem = merged_pixels(spec)
    if pieces_of(config) > 1 and not (problem.layout == "channels_last" and is_boxed(problem)):
        return False
    return rounds_up(spec, config) or spec.reduced_channels % config["matrix"] == 0


def rounds_up(spec: ConvSpec, config: Config) -> bool:
    """Whether the image is copied, with zeros around it, so that its channels can be rounded up too."""
    problem = merged_pixels(spec)
    return not is_whole(config) and pad_mode(problem) == "zeros" and is_boxed(problem)


def has_short_sums(spec: ConvSpec) -> bool:
    """Whether what a register tile does beside its sums, such as finding its pixels, takes long: rows are worth it then."""
    problem = merged_pixels(spec)
    return problem.ndim > 1 and math.prod(problem.kernel_size) * problem.reduced_channels <= SHORT_SUM


def prefers_pixels_first(spec: ConvSpec, tile: tuple[int, int], machine: Machine) -> bool:
    """Whether a part of an image should meet all weights before the next part does: where the weights, those of a residue class,
    stay in cache, or the part does while they pass by; and there are parts for all cores."""
    weights_stay = spec.weight_bytes * most_taps(spec) // math.prod(spec.kernel_size) <= machine.l2_bytes // 2
    box = gather_box(spec, Config.of(pixels=tile[0], lanes=tile[1]), machine)
    if box is None:
        return weights_stay
    part_stays = box_source_bytes(merged_pixels(spec), box, tile[1]) <= machine.l2_bytes // 2
    return (weights_stay or part_stays) and spec.batch * box.count >= machine.cores


def _takes_turns(spec: ConvSpec, machine: Machine) -> bool:
    """Whether each register tile of pixels meets all blocks of weights before the next does: where the weights stay in the
    first-level cache. It writes the channels of a channels_last pixel in one go."""
    return (
        spec.layout == "channels_last"
        and spec.groups == 1
        and spec.made_channels > 1
        and spec.weight_bytes <= machine.l1d_bytes * L1_SHARE
    )


def _loop_order(spec: ConvSpec, nest: Nest, lane: str, config: Config, takes_turns: bool) -> tuple[Pass, ...]:
    """Blocks of channels and parts of images are the tasks."""
    rows = [f"o{letter}" for letter in axis_letters(spec.ndim)]
    if is_by_rows(config):
        return _row_order(spec, nest, lane, config, takes_turns)
    groups = ["g"] if nest.channels.has_groups and nest.channels.has_made else []
    block = f"{lane}_block"
    outer = (*groups, block, "n")
    flat = rows[0] if len(rows) == 1 else "flat"
    merge: tuple[Pass, ...] = () if len(rows) == 1 else (Collapse(tuple(rows), flat),)
    order: tuple[Pass, ...] = ()
    tasks = (*outer, "part")
    if config["pixels_first"]:
        order = (Reorder("conv", ("n", "part", block)),)
        tasks = (*groups, "n", "part", block)
        if takes_turns:
            order += (Reorder("conv", ("tile", block)),)
            tasks = ("n", "part")
    return (
        Reorder("conv", (*outer, *rows, f"{lane}_lane")),
        *merge,
        Tile(flat, config["pixels"], "tiles", "px", tail="overlap"),
        Tile("tiles", TASK_TILES, "part", "tile", tail="clamp"),
        *order,
        Parallelize("conv", tasks),
    )


def _row_order(spec: ConvSpec, nest: Nest, lane: str, config: Config, takes_turns: bool) -> tuple[Pass, ...]:
    """Rows of images are the tasks; their register tiles do not cross into the next."""
    order = ("tile", f"{lane}_block") if takes_turns else (f"{lane}_block", "tile")
    *outer, row = (f"o{letter}" for letter in axis_letters(spec.ndim))
    groups = ["g"] if nest.channels.has_groups and nest.channels.has_made else []
    tasks = ("n", *outer)
    return (
        Tile(row, config["pixels"], "tile", "px", tail="overlap"),
        Reorder("conv", ("n", *outer, *groups, *order, "px", f"{lane}_lane")),
        Parallelize("conv", tasks),
    )
