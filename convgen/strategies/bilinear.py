"""What all bilinear algorithms share: sizes of blocks, the estimate of their time, and the schedule.

The transforms run in vectors of channels; the contraction of a point is a matrix product in register tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.nests.bilinear import Blocking, ClassTiling, bilinear_nest
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import AxisClass, gather_classes
from convgen.nests.nest import Nest, spatial_axes
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.pipeline import Pass
from convgen.passes.register_tile import RegisterTile
from convgen.passes.simplify import Simplify
from convgen.passes.tile import Tile
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.direct_gather import result_passes, source_passes
from convgen.transforms.bilinear import AxisAlgorithm
from convgen.transforms.error import relative_error
from convgen.transforms.linear import LinearProgram
from convgen.tuning.cost import (
    CACHE_BANDWIDTH,
    CALL_SECONDS,
    CLOCK_HZ,
    FMA_PORTS,
    L2_SHARE,
    LOAD_PORTS,
    MEMORY_BANDWIDTH,
    moving_seconds,
    peak,
    tile_efficiency,
    vector_width,
    waste,
)
from convgen.tuning.space import Config

# Blocks that leave each of so many workers some are preferred.
MIN_BLOCKS = 4
# The part of the second-level cache that a task's points and sums may fill; the weights pass through the rest.
POINTS_SHARE = 0.4
# Vectors of made channels in a register tile, which keep the weights of a point in the first-level cache.
USUAL_VECTORS = 2
# Images of so many register tiles lose little in the last one.
PLENTY = 4
# Registers that hold no accumulators: vectors of weights and the broadcast of the source.
OTHER_REGISTERS = 3

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
        return "direction='backward_weights' has no transform over pixels here"
    if spec.dtype == "int8":
        return "dtype='int8' has no fractions"
    if spec.groups > 1:
        return f"groups={spec.groups} leaves too few channels to share a transform"
    if spec.in_channels == 0 or 0 in spec.result_shape:
        return "there is nothing to sum"
    axes = [axis for group in gather_classes(unfolded_problem(spec)) for axis in group if axis.taps > 1]
    if any(abs(axis.tap_source_step) != 1 for axis in axes):
        return f"dilation={spec.dilation} leaves gaps in the window"
    return None


def shapes(spec: ConvSpec, choose: Choose) -> tuple[Shape, ...]:
    """The classes of a problem under algorithms chosen for each axis; those without taps are left out."""
    found = []
    for axes in gather_classes(unfolded_problem(spec)):
        if all(axis.taps for axis in axes):
            algorithms = tuple(map(choose, axes))
            counts = (-(-axis.count // a.outputs) for axis, a in zip(axes, algorithms, strict=True))
            found.append(Shape(algorithms, spec.batch * math.prod(counts)))
    return tuple(found)


def bilinear_error(spec: ConvSpec, found: tuple[Shape, ...]) -> float:
    """The relative L2 error of the least accurate class, and the rounding of the result."""
    dtype = DTYPES[spec.dtype]
    unit = DTYPES[dtype.accumulator].unit_roundoff
    errors = (relative_error(shape.algorithms, spec.reduced_channels, unit) for shape in found)
    return max(errors, default=0.0) + (dtype.unit_roundoff if dtype.unit_roundoff > unit else 0.0)


def blocked_configs(spec: ConvSpec, machine: Machine, found: tuple[Shape, ...], **fixed: int) -> tuple[Config, ...]:
    """``fixed`` with the register tiles and blocks that are worth measuring, the most promising first."""
    smallest = min(shape.tiles for shape in found)
    configs = []
    for vectors in (USUAL_VECTORS, 4):
        most, lanes = _most_pixels(machine, vectors), _lanes(spec, machine, vectors)
        for fused in (1, 0):
            pixels, tiles = _block(spec, machine, found, lanes, min(most, smallest), bool(fused))
            configs.append(Config.of(**fixed, pixels=pixels, lanes=lanes, tiles=tiles, fused=fused))
    return tuple(dict.fromkeys(configs))


def usual_config(spec: ConvSpec, machine: Machine, found: tuple[Shape, ...], **fixed: int) -> Config | None:
    """The configuration of images with tiles in plenty, the same whatever their size, so that they share a kernel; else None."""
    most = _most_pixels(machine, USUAL_VECTORS)
    if min(shape.tiles for shape in found) < PLENTY * most:
        return None
    lanes = _lanes(spec, machine, USUAL_VECTORS)
    tiles = most * max(1, _fitting(spec, machine, found, lanes, fused=True) // most)
    return Config.of(**fixed, pixels=most, lanes=lanes, tiles=tiles, fused=1)


def _most_pixels(machine: Machine, vectors: int) -> int:
    return max(1, (machine.vector_registers - OTHER_REGISTERS) // vectors)


def _lanes(spec: ConvSpec, machine: Machine, vectors: int) -> int:
    return min(vectors * vector_width(spec, machine), 1 << max(0, spec.made_channels - 1).bit_length())


def _fitting(spec: ConvSpec, machine: Machine, found: tuple[Shape, ...], lanes: int, *, fused: bool) -> int:
    """How many tiles' points and sums fit the cache."""
    size = DTYPES[DTYPES[spec.dtype].accumulator].itemsize
    row = max(shape.points for shape in found) * size * ((spec.reduced_channels if fused else 0) + lanes)
    return max(1, int(machine.l2_bytes * POINTS_SHARE) // row)


def _block(
    spec: ConvSpec, machine: Machine, found: tuple[Shape, ...], lanes: int, most: int, fused: bool
) -> tuple[int, int]:
    """(pixels of a register tile, tiles of a block) that waste the least of what fits the cache."""
    largest = max(found, key=lambda shape: shape.points * shape.tiles)
    fitting = _fitting(spec, machine, found, lanes, fused=fused)
    enough = max(1, min(fitting, -(-largest.tiles // MIN_BLOCKS)))

    def wasted(pixels: int, tiles: int) -> float:
        whole = waste(largest.tiles, tiles) * waste(tiles, pixels)
        return whole * (1 + 1 / pixels) * (1 + 1 / tiles)

    options = [
        (pixels, min(largest.tiles, pixels * max(1, enough // pixels))) for pixels in range(max(1, most // 2), most + 1)
    ]
    return min(options, key=lambda option: wasted(*option))


def bilinear_seconds(spec: ConvSpec, machine: Machine, found: tuple[Shape, ...], config: Config) -> float:
    """The transforms' and the contraction's cycles, and the bytes that pass through the caches."""
    width = vector_width(spec, machine)
    size = DTYPES[DTYPES[spec.dtype].accumulator].itemsize
    made, reduced = spec.made_channels, spec.reduced_channels
    efficiency = tile_efficiency(spec, machine, pixels=config["pixels"], lanes=config["lanes"], steps=reduced, loops=1)
    seconds = CALL_SECONDS + moving_seconds(spec.bytes_moved, machine)
    for shape in found:
        tiles = min(config["tiles"], shape.tiles)
        blocks = -(-shape.tiles // tiles)
        computed = blocks * tiles * waste(tiles, config["pixels"])
        lanes = made * waste(made, config["lanes"])
        seconds += shape.points * computed * reduced * lanes / (peak(spec, machine) * efficiency)
        source = _transform_cycles([a.input for a in shape.algorithms]) * -(-reduced // width)
        inverse = _transform_cycles([a.output for a in shape.algorithms]) * -(-made // width)
        seconds += blocks * tiles * (source + inverse) / CLOCK_HZ
        weights = shape.points * reduced * lanes * size
        near = weights <= machine.l2_bytes * L2_SHARE / 2
        seconds += weights * blocks / (CACHE_BANDWIDTH if near else MEMORY_BANDWIDTH)
        if not config["fused"]:
            points = shape.points * shape.tiles * reduced * size
            seconds += moving_seconds(points, machine) * (1 + lanes / config["lanes"])
    return seconds


def _transform_cycles(maps: list[LinearProgram]) -> float:
    """Cycles of one vector of channels through the maps of all axes: arithmetic, loads and stores."""
    extents = [linear.inputs for linear in maps]
    cycles = 0.0
    for axis, linear in enumerate(maps):
        others = math.prod(extents[:axis] + extents[axis + 1 :])
        made = len(linear.outputs)
        if linear.outputs != tuple(range(linear.inputs)):
            cycles += others * (linear.operations.total / FMA_PORTS + linear.inputs / LOAD_PORTS + made)
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
    passes: tuple[Pass, ...] = (
        *result_passes(spec, nest),
        *_source_passes(spec, nest),
        Tile("pixel", config["pixels"], "pixels", "px", tail="overlap"),
        Simplify(keep_unit_loops=True),
        RegisterTile(("px", "oc_lane")),
        Vectorize("oc_lane"),
        Vectorize("c_lane"),
        Vectorize("y_lane"),
        Unroll("px"),
        Unroll("e"),
        Simplify(),
    )
    return Schedule(nest, passes)


def _source_passes(spec: ConvSpec, nest: Nest) -> tuple[Pass, ...]:
    """Padding is tested where a tile is read; only another layout is copied first."""
    if spec.layout == "channels_first":
        return source_passes(spec, nest)
    rank = len(nest.program.buffer(nest.source).shape)
    return (ExpandPadding(((nest.source, spatial_axes(spec, rank)),)),)
