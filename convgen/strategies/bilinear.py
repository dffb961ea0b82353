"""What all bilinear algorithms share: sizes of blocks, the estimate of their time, and the schedule.

The transforms run in vectors of channels; the contraction of a point is a matrix product in register tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.ir.nodes import Int
from convgen.machine import Machine
from convgen.nests.bilinear import Blocking, ClassTiling, bilinear_nest
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import AxisClass, gather_classes
from convgen.nests.nest import Nest, spatial_axes
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.pipeline import Pass
from convgen.passes.prefetch import PrefetchReads, PrefetchWrites
from convgen.passes.register_tile import RegisterTile
from convgen.passes.simplify import Simplify
from convgen.passes.tile import Tile
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule, windows_refusal
from convgen.strategies.copies import square_size
from convgen.strategies.direct_images import result_passes, source_passes, vector_order
from convgen.strategies.tiles import PREFETCHED_BYTES, even_pixels, most_rows
from convgen.transforms.bilinear import AxisAlgorithm
from convgen.transforms.error import relative_error
from convgen.transforms.linear import LinearProgram, spilled
from convgen.tuning.cost import (
    CALL_SECONDS,
    FMA_PORTS,
    L2_SHARE,
    LOAD_PORTS,
    moving_seconds,
    peak,
    tile_efficiency,
    turned_seconds,
    vector_width,
    waste,
)
from convgen.tuning.rates import rates_of
from convgen.tuning.space import Config

# In so many blocks may the tiles of an image fall.
BLOCK_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
# Vectors of made channels in a register tile, which keep the weights of a point in the first-level cache.
USUAL_VECTORS = 2
# Images of so many register tiles lose little in the last one.
PLENTY = 4
# A group of fewer channels has none to share a transform.
FEWEST_CHANNELS = 4
# The part of the first-level cache that the weights of a point may fill.
L1_SHARE = 0.5
# The part of the time to fetch vectors from the second-level cache that multiply-adds do not hide.
LINES_SHARE = 0.3
# Bytes a second that are read from memory, over those that a copy moves.
MEMORY_READS = 0.6
# Cycles to store a value that the registers do not hold, or to load it again.
SPILL_CYCLES = 7
# Bytes a second of points that pass through the last cache or come from memory, in lines far apart, over those of a copy.
SCATTERED_POINTS, FAR_POINTS = 0.5, 0.1
# The parts of the last cache, where others have theirs, that points fill when the first of them, and all, come from memory.
LAST_SHARE, LOST_SHARE = 0.25, 0.65
# Time to write results beyond the caches tile by tile, over that to copy them.
SCATTERED_WRITES = 6.0
# All weights come from memory where they are more than so many times a core's share of the last cache.
STREAMED_SHARES = 3
# The part of the time to fetch weights, or to use them, that the other does not hide.
EXPOSED_SHARE = 0.5

Choose = Callable[[AxisClass], AxisAlgorithm]


@dataclass(frozen=True)
class Shape:
    """One residue class: its algorithms and the number of its tiles."""

    algorithms: tuple[AxisAlgorithm, ...]
    tiles: int

    @property
    def points(self) -> int:
        return math.prod(algorithm.points for algorithm in self.algorithms)

    @property
    def saves(self) -> bool:
        """Whether it takes fewer products than the sums themselves."""
        return self.points < math.prod(a.outputs * a.taps for a in self.algorithms)


def general_refusal(spec: ConvSpec) -> str | None:
    """Why no bilinear algorithm applies to a problem, whatever its matrices."""
    if spec.direction == "backward_weights":
        return "direction='backward_weights' is left to winograd_weights"
    if spec.dtype == "int8":
        return "dtype='int8' has no fractions"
    if spec.groups > 1 and min(spec.made_channels, spec.reduced_channels) < FEWEST_CHANNELS:
        return f"groups={spec.groups} leaves too few channels to share a transform"
    if spec.in_channels == 0 or 0 in spec.result_shape:
        return "there is nothing to sum"
    return windows_refusal(spec)


def shapes(spec: ConvSpec, choose: Choose) -> tuple[Shape, ...]:
    """The classes of a problem under algorithms chosen for each axis; those without taps are left out."""
    found = []
    for axes in gather_classes(unfolded_problem(spec)):
        if all(axis.taps for axis in axes):
            algorithms = tuple(map(choose, axes))
            found.append(Shape(algorithms, spec.batch * math.prod(map(_tiles_along, axes, algorithms))))
    return tuple(found)


def _tiles_along(axis: AxisClass, algorithm: AxisAlgorithm) -> int:
    return -(-axis.longest_run // algorithm.outputs) * axis.interleaved


def bilinear_error(spec: ConvSpec, found: tuple[Shape, ...]) -> float:
    """The relative L2 error of the least accurate class, and the rounding of the result."""
    dtype = DTYPES[spec.dtype]
    unit = DTYPES[dtype.accumulator].unit_roundoff
    errors = (relative_error(shape.algorithms, spec.reduced_channels, unit) for shape in found)
    return max(errors, default=0.0) + (dtype.unit_roundoff if dtype.unit_roundoff > unit else 0.0)


def blocked_configs(spec: ConvSpec, machine: Machine, found: tuple[Shape, ...], **fixed: int) -> tuple[Config, ...]:
    """``fixed`` with the register tiles and blocks that are worth measuring: the best blocks for each kind of register tile."""
    largest = max(found, key=lambda shape: shape.points * shape.tiles)
    smallest = min(shape.tiles for shape in found)
    configs = []
    for vectors in (USUAL_VECTORS, 4):
        most, lanes = min(smallest, most_rows(machine, vectors)), _lanes(spec, machine, vectors)
        for fused in (1, 0):
            options = [
                Config.of(**fixed, pixels=even_pixels(tiles, most), lanes=lanes, tiles=tiles, fused=fused)
                for tiles in _blocks(largest.tiles, most)
            ]
            configs.append(min(options, key=lambda config: bilinear_seconds(spec, machine, found, config)))
    return tuple(dict.fromkeys(configs))


def usual_config(spec: ConvSpec, machine: Machine, found: tuple[Shape, ...], **fixed: int) -> Config | None:
    """The configuration of images with tiles in plenty, whose kernel is the same whatever their size; None for others."""
    most, lanes = most_rows(machine, USUAL_VECTORS), _lanes(spec, machine, USUAL_VECTORS)
    fewest = min(shape.tiles for shape in found)
    if fewest < PLENTY * most:
        return None
    options = [
        Config.of(**fixed, pixels=most, lanes=lanes, tiles=min(fewest, -(-tiles // most) * most), fused=1)
        for tiles in _blocks(fewest, most)
    ]
    return min(options, key=lambda config: bilinear_seconds(spec, machine, found, config))


def _blocks(tiles: int, smallest: int) -> list[int]:
    """Sizes of blocks worth a thought: all tiles, a half of them, a third, .. down to a register tile."""
    counts = [count for count in BLOCK_COUNTS if tiles // count >= smallest] or [1]
    return sorted({-(-tiles // count) for count in counts})


def _lanes(spec: ConvSpec, machine: Machine, vectors: int) -> int:
    return min(vectors * vector_width(spec, machine), 1 << max(0, spec.made_channels - 1).bit_length())


def bilinear_seconds(spec: ConvSpec, machine: Machine, found: tuple[Shape, ...], config: Config) -> float:
    """The transforms' and the contraction's cycles, the bytes that pass through the caches, and images that are turned."""
    width, rates = vector_width(spec, machine), rates_of(machine)
    size = DTYPES[DTYPES[spec.dtype].accumulator].itemsize
    made, reduced = spec.made_channels, spec.reduced_channels
    # Points are kept in the type that sums have.
    points_spec = spec.replace(dtype=DTYPES[spec.dtype].accumulator)
    efficiency = tile_efficiency(
        points_spec, machine, pixels=config["pixels"], lanes=config["lanes"], steps=reduced, loops=1
    )
    total, all_points = 0.0, sum(shape.points for shape in found)
    for shape in found:
        tiles = min(config["tiles"], shape.tiles)
        blocks = -(-shape.tiles // tiles)
        computed = blocks * tiles * waste(tiles, config["pixels"])
        lanes = made * waste(made, config["lanes"])
        contraction = shape.points * computed * reduced * lanes / (peak(spec, machine) * efficiency)
        if reduced * config["lanes"] * size > machine.l1d_bytes * L1_SHARE:
            # Each register tile fetches the weights of its point from the second-level cache.
            rows = computed / config["pixels"] * shape.points * reduced * lanes / width
            contraction += LINES_SHARE * rows * rates.line / rates.clock
        row, share = shape.points * size, shape.points / all_points
        weights, points = _streamed_seconds(spec, machine, row, lanes, config, shape.tiles, share)
        # Weights are asked for while others are used.
        seconds = max(contraction, weights) + EXPOSED_SHARE * min(contraction, weights) + points
        source = transform_cycles([a.input for a in shape.algorithms], machine) * -(-reduced // width)
        inverse = transform_cycles([a.output for a in shape.algorithms], machine) * -(-made // width)
        seconds += blocks * tiles * (source + inverse) * rates.transform / rates.clock
        if not config["fused"]:
            apart = shape.points * size * shape.tiles * reduced
            lost = _lost(apart, machine)
            seconds += apart * (1 / rates.last + (1 - lost) / rates.last + lost / (FAR_POINTS * rates.memory))
        if config["fused"]:
            # Blocks are the tasks.
            seconds *= waste(spec.groups * blocks, machine.cores)
        total += spec.groups * seconds
    if spec.ndim > 1 and spec.result_bytes > machine.l3_bytes:
        # A tile's rows lie on different pages of memory.
        total += SCATTERED_WRITES * spec.result_bytes / rates.memory
    if spec.layout == "channels_first":
        total += turned_seconds(spec, machine, source=True) + turned_seconds(spec, machine, source=False)
    return CALL_SECONDS + moving_seconds(spec.bytes_moved, machine) + total


def _streamed_seconds(
    spec: ConvSpec, machine: Machine, row: int, made: float, config: Config, all_tiles: int, share: float
) -> tuple[float, float]:
    """The times in which weights, and points and their sums, come from beyond the second-level cache, which holds a block's sums
    first and then its points.

    ``row`` is the bytes of all points of one tile and channel, and ``share`` this class' part of all weights.
    """
    tiles, reduced = min(config["tiles"], all_tiles), spec.reduced_channels
    blocks = -(-all_tiles // tiles)
    points, sums, weights = row * tiles * reduced, row * tiles * config["lanes"], row * reduced * made
    kept = min(1.0, max(0.0, machine.l2_bytes - sums) / points)
    weights_kept = min(1.0, max(0.0, machine.l2_bytes - sums - points) / weights)
    points_read = blocks * points * (1 - kept) * (1 + made / config["lanes"])
    points_read += 2 * blocks * made / config["lanes"] * max(0.0, sums - machine.l2_bytes)
    weights_read = weights * (weights > machine.l2_bytes) + (blocks - 1) * weights * (1 - weights_kept)
    rates = rates_of(machine)
    rate = rates.shared
    # What does not stay in the last-level cache, of which idle cores leave some, comes from memory.
    shares = spec.groups * weights / share / machine.l3_bytes
    missed = min(1.0, max(0.0, (shares - 1) / (STREAMED_SHARES - 1)))
    weights_read *= 1 + missed * (rate / (MEMORY_READS * rates.memory) - 1)
    lost = _lost(points + sums, machine)
    points_seconds = (1 - lost) / (SCATTERED_POINTS * rates.last) + lost / (FAR_POINTS * rates.memory)
    return weights_read / rate, points_read * points_seconds


def _lost(nbytes: float, machine: Machine) -> float:
    """The part of so many bytes of points that leave the last cache before they are read again."""
    return min(1.0, max(0.0, (nbytes / machine.l3_bytes - LAST_SHARE) / (LOST_SHARE - LAST_SHARE)))


def transform_cycles(maps: list[LinearProgram], machine: Machine) -> float:
    """Cycles of one vector of channels through the maps of all axes: arithmetic, loads, stores, and what the registers do not
    hold."""
    extents = [linear.inputs for linear in maps]
    cycles = 0.0
    for axis, linear in enumerate(maps):
        others = math.prod(extents[:axis] + extents[axis + 1 :])
        made = len(linear.outputs)
        if linear.outputs != tuple(range(linear.inputs)):
            spills = SPILL_CYCLES * spilled(linear, machine.vector_registers)
            cycles += others * (linear.operations.total / FMA_PORTS + linear.inputs / LOAD_PORTS + made + spills)
        extents[axis] = made
    return cycles + math.prod(extents)


def bilinear_schedule(spec: ConvSpec, choose: Choose, config: Config, machine: Machine) -> Schedule:
    """Register tiles of ``pixels`` image tiles times ``lanes`` made channels, in blocks of ``tiles`` image tiles."""
    width = min(vector_width(spec, machine), config["lanes"])
    found = iter(shapes(spec, choose))
    tilings = [
        ClassTiling((shape := next(found)).algorithms, min(config["tiles"], shape.tiles))
        if all(axis.taps for axis in axes)
        else ClassTiling((), 0)
        for axes in gather_classes(unfolded_problem(spec))
    ]
    lanes = min(vector_width(spec, machine), 1 << max(0, spec.reduced_channels - 1).bit_length())
    nest = bilinear_nest(spec, tilings, Blocking(lanes, config["lanes"], width, bool(config["fused"])))
    square = square_size(spec.dtype, machine)
    passes: tuple[Pass, ...] = (
        *result_passes(spec, nest, square),
        *_source_passes(spec, nest, square),
        Tile("pixel", config["pixels"], "pixels", "px", tail="overlap"),
        Simplify(keep_unit_loops=True),
        RegisterTile(("px", "oc_lane")),
        Vectorize("oc_lane"),
        Vectorize("c_lane"),
        Vectorize("w_lane"),
        Vectorize("y_lane"),
        Unroll("px"),
        Unroll("e"),
        Simplify(),
        *_prefetches(spec, nest, config, machine),
        *_image_prefetches(spec, nest, choose, config),
    )
    return Schedule(nest, passes)


def _prefetches(spec: ConvSpec, nest: Nest, config: Config, machine: Machine) -> tuple[Pass, ...]:
    """Weights that do not stay in the second-level cache are asked for ahead of their use, if they are read in vectors."""
    size = DTYPES[DTYPES[spec.dtype].accumulator].itemsize
    weights = [buffer for buffer in nest.program.buffers if buffer.space == "packed"]
    points = sum(extent.value for buffer in weights if isinstance(extent := buffer.shape[-3], Int))
    streamed = points * spec.groups * spec.made_channels * spec.reduced_channels * size
    if config["lanes"] == 1 or streamed <= machine.l2_bytes * L2_SHARE:
        return ()
    return tuple(PrefetchReads(buffer.name, PREFETCHED_BYTES // size) for buffer in weights)


def _image_prefetches(spec: ConvSpec, nest: Nest, choose: Choose, config: Config) -> tuple[Pass, ...]:
    """What the next tile along the last axis reads and writes, with dilation the next of the same residue, is asked for now: it
    lies in too many rows for the processor to foresee, and in a network few images stay in a core's own caches."""
    if spec.layout != "channels_last":
        return ()
    lines = [axes[-1] for axes in gather_classes(unfolded_problem(spec)) if all(axis.taps for axis in axes)]
    # Of classes with tiles of several sizes the largest leave no pixel out.
    tile, width = max(choose(line).outputs * line.interleaved for line in lines), spec.ndim
    reads = (PrefetchReads(nest.source, tile * lines[0].source_step, axis=width),) if nest.channels.reduced > 1 else ()
    if config["lanes"] == 1:
        return reads
    written = tile * lines[0].step
    added = (PrefetchReads("residual", written, axis=width),) if "residual" in spec.epilogue.steps else ()
    return (*reads, PrefetchWrites(nest.result, written, axis=width), *added)


def _source_passes(spec: ConvSpec, nest: Nest, square: int) -> tuple[Pass, ...]:
    """Padding is tested where a tile is read; only another layout is copied first, with all that tiles read."""
    if spec.layout == "channels_first":
        return source_passes(spec, nest, square, vector_order(spec, nest), gapless=True)
    rank = len(nest.program.buffer(nest.source).shape)
    return (ExpandPadding(((nest.source, spatial_axes(spec, rank)),)),)
