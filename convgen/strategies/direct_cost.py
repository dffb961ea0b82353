"""What direct's configurations cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.nests.nest import pad_mode
from convgen.spec import ConvSpec
from convgen.strategies.boxes import (
    Box,
    box_source_bytes,
    copies_blocks,
    copies_of_box,
    inside_share,
    is_by_rows,
    kept_share,
    rewritten_bytes,
)
from convgen.strategies.direct_gather import gather_box
from convgen.strategies.direct_images import FEW_CHANNELS, terms_lanes
from convgen.strategies.direct_whole import is_whole, row_waste
from convgen.strategies.dots import dot_of
from convgen.strategies.matrix import is_matrix_config, matrix_efficiency
from convgen.strategies.merging import merged_pixels
from convgen.strategies.widening import widened
from convgen.tuning.cost import (
    CALL_SECONDS,
    L2_SHARE,
    LOOP_CYCLES,
    moving_seconds,
    peak,
    pixels_made,
    streaming_seconds,
    streaming_waste,
    tile_efficiency,
    turned_seconds,
    vector_width,
    waste,
)
from convgen.tuning.rates import rates_of
from convgen.tuning.space import Config

# The part of the second-level cache that a block of weights may fill, and how much of the block is fetched again for each part of
# it that overflows.
BLOCK_SHARE = 0.9
OVERFLOW_MISSES = 2.0
# Loops over so few channels are no loops once LLVM has unrolled them.
UNROLLED_REDUCED = 4
# The part of the time to fetch the weights of a row that its multiply-adds do not hide.
EXPOSED_SHARE = 0.25
# Where groups are lanes LLVM unrolls the taps of a row up to so many multiply-adds and loads once what neighbouring pixels share;
# each vector that the registers do not hold meanwhile is stored and loaded.
UNROLLED, KEPT_CYCLES = 128, 2.0
# Adding the lanes of a vector.
SUM_CYCLES = 6.0
# Pixels of a tile that crosses rows have a place each, moved once a loop; so many fit the registers, others are spilled.
PLACE_CYCLES, SPILL_CYCLES, HELD_PLACES = 0.3, 1.2, 8


@dataclass(frozen=True)
class _Tiling:
    """A problem as direct's register tiles see it.

    ``lanes_waste`` and ``overlap_waste`` are at least 1: work done over work that counts. ``steps``, ``loops`` and
    ``shares_source`` are those of ``tile_efficiency``.
    """

    lanes_waste: float
    overlap_waste: float
    steps: float
    loops: float
    shares_source: bool


def direct_seconds(spec: ConvSpec, config: Config, machine: Machine) -> float:
    """The arithmetic of the tiles, the weights that do not stay in cache, the images and their copies.

    Lanes along groups read a vector of the source for each multiply-add, which the rows of an image do not leave in the
    first-level cache; those of a copy of their own do.
    """
    spec = merged_pixels(spec)
    if is_whole(config):
        return _whole_seconds(spec, config, machine)
    box, rates = None, rates_of(machine)
    if config["pixels_first"]:
        box = gather_box(spec, config, machine)
    terms = terms_lanes(config)
    if terms:
        return _sum_seconds(spec, config, terms, box, machine)
    tiling = _tiling(spec, config, box)
    work = spec.macs * tiling.lanes_waste * tiling.overlap_waste
    if is_by_rows(config) and pad_mode(spec) == "zeros":
        work *= inside_share(spec, config["pixels"])
    efficiency = _efficiency(spec, config, tiling, box, machine)
    compute = work / (peak(spec, machine) * efficiency)
    if tiling.shares_source:
        compute *= streaming_waste(spec, machine, config["lanes"])
        # Each box meets all weights.
        compute += streaming_seconds(spec, machine) * (1 if box is None else spec.batch * box.count)
    compute += _weight_traffic(spec, machine, config, tiling) / rates.memory
    if not tiling.shares_source:
        compute += _kept_seconds(spec, config, tiling, machine)
    if not tiling.shares_source and (box is None or not copies_blocks(spec, config["lanes"])):
        compute += work / vector_width(spec, machine) * rates.line / rates.clock
    if box is None:
        moved = spec.bytes_moved + _copied_bytes(spec) + _rewritten_bytes(spec, config, machine)
        return CALL_SECONDS + compute + moving_seconds(moved, machine) + _turned_seconds(spec, config, machine)
    return (
        CALL_SECONDS
        + compute
        + moving_seconds(spec.bytes_moved, machine)
        + _box_seconds(spec, box, config["lanes"], machine)
    )


def _efficiency(spec: ConvSpec, config: Config, tiling: _Tiling, box: Box | None, machine: Machine) -> float:
    """The part of the vector units' peak that tiles reach."""
    if is_matrix_config(config):
        width = vector_width(spec, machine)
        return matrix_efficiency(config, config["pixels"], config["lanes"], tiling.steps, width)
    return tile_efficiency(
        spec if box is None else widened(spec),
        machine,
        pixels=config["pixels"],
        lanes=config["lanes"],
        steps=tiling.steps,
        loops=tiling.loops,
        shares_source=tiling.shares_source,
        fetches_weights=_fetches_weights(spec, config, tiling, machine),
        dot=dot_of(config),
    )


def _kept_seconds(spec: ConvSpec, config: Config, tiling: _Tiling, machine: Machine) -> float:
    """The time to store vectors of the source that a tile of groups reads for several taps, and to load them again."""
    pixels, vectors, taps = config["pixels"], -(-config["lanes"] // vector_width(spec, machine)), spec.kernel_size[-1]
    if taps == 1 or spec.writes_with_stride or pixels * vectors * taps > UNROLLED:
        return 0.0
    read = min(pixels * taps, (pixels - 1) * spec.stride[-1] + (taps - 1) * spec.dilation[-1] + 1)
    shared = pixels * taps > read
    spilled = max(0, vectors * (pixels + read + 1) - machine.vector_registers) if shared else 0
    tiles = spec.macs * tiling.lanes_waste * tiling.overlap_waste / (tiling.steps * pixels * config["lanes"])
    return tiles * tiling.steps / taps * spilled * KEPT_CYCLES / rates_of(machine).clock


def _sum_seconds(spec: ConvSpec, config: Config, terms: int, box: Box | None, machine: Machine) -> float:
    """Tiles whose lanes lie along what is summed: multiply-adds, the sums of lanes, the image and its copies."""
    tiling = _tiling(spec, config, box)
    vectors = config["lanes"] * vector_width(spec, machine)
    efficiency = tile_efficiency(
        spec, machine, pixels=config["pixels"], lanes=vectors, steps=tiling.steps / terms, loops=tiling.loops
    )
    seconds = CALL_SECONDS + spec.macs * tiling.overlap_waste / (peak(spec, machine) * efficiency)
    seconds += math.prod(spec.result_shape) * tiling.overlap_waste * SUM_CYCLES / rates_of(machine).clock
    if box is not None:
        return seconds + moving_seconds(spec.bytes_moved, machine) + _box_seconds(spec, box, config["lanes"], machine)
    moved = spec.bytes_moved + _copied_bytes(spec)
    return seconds + moving_seconds(moved, machine) + _turned_seconds(spec, config, machine)


def _turned_seconds(spec: ConvSpec, config: Config, machine: Machine) -> float:
    """The time to turn whole images with channels first: their source only where its channels are not a few to broadcast."""
    if spec.layout != "channels_first":
        return 0.0
    broadcast = spec.groups == 1 and spec.reduced_channels <= FEW_CHANNELS and not terms_lanes(config)
    source = 0.0 if broadcast else turned_seconds(spec, machine, source=True)
    return source + turned_seconds(spec, machine, source=False)


def _whole_seconds(spec: ConvSpec, config: Config, machine: Machine) -> float:
    """Tiles that are whole rows or planes: the products that are left, and what does not stay in cache meanwhile."""
    pixels, lanes, rates = config["pixels"], config["lanes"], rates_of(machine)
    tiling = _tiling(spec, config, None)
    efficiency = tile_efficiency(
        spec,
        machine,
        pixels=pixels,
        lanes=lanes,
        steps=tiling.steps,
        loops=tiling.loops,
        fetches_weights=_fetches_weights(spec, config, tiling, machine),
        dot=dot_of(config),
    )
    work = spec.macs * tiling.lanes_waste * row_waste(spec, config) * kept_share(spec)
    compute = work / (peak(spec, machine) * efficiency)
    if config["whole"] == 1:
        compute = compute * streaming_waste(spec, machine, lanes) + streaming_seconds(spec, machine)
        compute += EXPOSED_SHARE * _weight_traffic(spec, machine, config, tiling) / rates.last
    seconds = CALL_SECONDS + compute + moving_seconds(spec.bytes_moved, machine)
    images = spec.bytes_moved - spec.weight_bytes
    if config["pixels_first"] or images <= machine.l2_bytes * L2_SHARE:
        return seconds
    return seconds + images * (-(-spec.made_channels // lanes) - 1) / rates.stream


def _fetches_weights(spec: ConvSpec, config: Config, tiling: _Tiling, machine: Machine) -> bool:
    """Whether a block of weights is more than the first-level cache holds."""
    return tiling.steps * config["lanes"] * DTYPES[spec.dtype].itemsize > machine.l1d_bytes


def _box_seconds(spec: ConvSpec, box: Box, lanes: int, machine: Machine) -> float:
    """The copies of all boxes, and results that are turned on their way out or, written with a stride, as a whole image."""
    classes = math.prod(spec.stride) if spec.writes_with_stride else 1
    rates = rates_of(machine)
    boxes, copied = spec.batch * box.count, box_source_bytes(spec, box, lanes)
    seconds = boxes * rewritten_bytes(spec, math.prod(box.result), lanes, copied, machine) / rates.memory
    bandwidth = rates.cache if copied <= machine.l2_bytes else rates.memory
    seconds += 2 * boxes * copies_of_box(spec, lanes) * classes * copied / bandwidth
    if spec.layout == "channels_last":
        return seconds
    seconds += turned_seconds(spec, machine, source=False)
    return seconds + (2 * spec.result_bytes / rates.memory if spec.writes_with_stride else 0.0)


def _rewritten_bytes(spec: ConvSpec, config: Config, machine: Machine) -> int:
    """What is moved because all pixels meet one block of channels before the next."""
    if config["pixels_first"]:
        return 0
    return int(rewritten_bytes(spec, pixels_made(spec), config["lanes"], 0.0, machine))


def _weight_traffic(spec: ConvSpec, machine: Machine, config: Config, tiling: _Tiling) -> float:
    """Bytes of weights that come from beyond the second-level cache again and again: a block that does not fit it is read
    anew for each tile of pixels."""
    if not tiling.shares_source:
        return 0.0
    block = tiling.steps * config["lanes"] * DTYPES[spec.dtype].itemsize
    missed = min(1.0, OVERFLOW_MISSES * max(0.0, 1 - machine.l2_bytes * BLOCK_SHARE / block)) if block else 0.0
    pixels = spec.macs / max(1.0, tiling.steps * spec.groups * max(1, spec.out_channels // spec.groups))
    return missed * spec.weight_bytes * pixels * tiling.overlap_waste / config["pixels"]


def _tiling(spec: ConvSpec, config: Config, box: Box | None) -> _Tiling:
    made, reduced = spec.made_channels, spec.reduced_channels
    groups_as_lanes = made == 1 and spec.groups > 1
    lanes_waste = waste(spec.groups if groups_as_lanes else made, config["lanes"])
    pixels = config["pixels"]
    taps = float(math.prod(spec.kernel_size))
    if spec.writes_with_stride:
        taps /= math.prod(spec.stride)
    # So few channels are unrolled, and the taps of a row are the innermost loop.
    loops = taps if reduced > UNROLLED_REDUCED else taps / spec.kernel_size[-1]
    if spec.ndim > 1 and not is_by_rows(config) and not is_whole(config) and not spec.is_pointwise:
        loops *= 1 + (PLACE_CYCLES * pixels + SPILL_CYCLES * max(0, pixels - HELD_PLACES)) / LOOP_CYCLES
    overlap = _pixel_waste(spec, pixels) if box is None else waste(box.run, pixels)
    return _Tiling(lanes_waste, overlap, taps * reduced, loops, not groups_as_lanes)


def _pixel_waste(spec: ConvSpec, pixels: int) -> float:
    """Pixels in tiles over pixels: an image's last tile overlaps the one before it.

    A result that is written with a stride falls into as many smaller images. A problem with neighbours on no axis is one
    image, in channels_last for the whole batch.
    """
    count = math.prod(spec.spatial_size if spec.direction == "backward_data" else spec.output_size)
    if spec.is_pointwise and spec.layout == "channels_last":
        count *= spec.batch
    if spec.writes_with_stride:
        count //= math.prod(spec.stride)
    return waste(count, pixels)


def _copied_bytes(spec: ConvSpec) -> int:
    """Bytes read and written to copy whole images: direct wants them channels-last with their padding in place."""
    images = {"input": spec.input_bytes, "output": spec.output_bytes}
    source, other = ("output", "input") if spec.direction == "backward_data" else ("input", "output")
    copied = 0
    if spec.layout == "channels_first" or not spec.padding_is_zero:
        copied += images[source]
    if spec.layout == "channels_first":
        copied += images[other]
    return 2 * copied
