"""A cost model that orders configurations before anything is compiled.

Time is that of the arithmetic, at the part of the peak that a register tile can reach (see ``_step_cycles``), plus that
of moving the data. Both are the terms of the roofline (Williams, Waterman and Patterson, "Roofline", 2009), but their
sum, not the larger, orders configurations that are bound by memory, and predicts better how much slower 7×7 images are.
Constants are those of a core with two ports for multiply-adds and two for loads; only ratios matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.tuning.space import Config

CLOCK_HZ = 3.75e9
FMA_PORTS = 2
LOAD_PORTS = 2
FMA_LATENCY = 4
# What starting and leaving an innermost loop costs.
LOOP_CYCLES = 4
# One scalar multiply-add with its tests for padding.
REFERENCE_CYCLES = 8
# What calling direct's stages costs, however small the problem.
DIRECT_CALL = 0.3e-6
# The part of the second-level cache that a block of weights may fill.
L2_SHARE = 0.75
# Bytes a second, read plus written, while everything fits the second-level cache and beyond it.
CACHE_BANDWIDTH = 68e9
MEMORY_BANDWIDTH = 29.5e9


@dataclass(frozen=True)
class _Tiling:
    """A problem as direct's register tiles see it.

    ``lanes_waste`` and ``overlap_waste`` are at least 1: work done over work that counts. A tile does ``steps``
    multiply-adds for each of its accumulators, in ``loops`` innermost loops, each of which costs ``LOOP_CYCLES`` more;
    ``shares_source`` says that an element of the source serves all lanes.
    """

    lanes_waste: float
    overlap_waste: float
    steps: float
    loops: float
    shares_source: bool


def predicted_seconds(spec: ConvSpec, machine: Machine, strategy_name: str, config: Config) -> float:
    """Returns an estimate for one thread with packed weights; only ratios mean anything.

    A strategy that the model does not know is taken to reach the peak, so that it is measured early rather than never.
    """
    peak = CLOCK_HZ * FMA_PORTS * _width(spec, machine)
    match strategy_name:
        case "reference":
            return spec.macs * REFERENCE_CYCLES / CLOCK_HZ
        case "direct":
            tiling = _tiling(spec, config)
            work = spec.macs * tiling.lanes_waste * tiling.overlap_waste
            compute = work / (peak * _tile_efficiency(spec, machine, config, tiling))
            compute += _weight_traffic(spec, machine, config, tiling) / MEMORY_BANDWIDTH
        case _:
            return spec.macs / peak + _moving_seconds(spec.bytes_moved, machine)
    return DIRECT_CALL + compute + _moving_seconds(spec.bytes_moved + _copied_bytes(spec), machine)


def rank(spec: ConvSpec, machine: Machine, candidates: Sequence[tuple[str, Config]]) -> list[tuple[str, Config]]:
    """Returns the (strategy name, configuration) pairs, the most promising first; equals stay in the order given."""
    return sorted(candidates, key=lambda candidate: predicted_seconds(spec, machine, *candidate))


def _width(spec: ConvSpec, machine: Machine) -> int:
    """Accumulators in a vector."""
    return machine.vector_bytes // DTYPES[DTYPES[spec.dtype].accumulator].itemsize


def _moving_seconds(size: int, machine: Machine) -> float:
    return size / (CACHE_BANDWIDTH if size <= machine.l2_bytes else MEMORY_BANDWIDTH)


def _weight_traffic(spec: ConvSpec, machine: Machine, config: Config, tiling: _Tiling) -> float:
    """Bytes of weights that come from beyond the second-level cache again and again: a block that does not fit it is read
    anew for each tile of pixels."""
    if spec.direction == "backward_weights" or not tiling.shares_source:
        return 0.0
    block = tiling.steps * config["lanes"] * DTYPES[spec.dtype].itemsize
    if block <= machine.l2_bytes * L2_SHARE:
        return 0.0
    pixels = spec.macs / max(1.0, tiling.steps * spec.groups * max(1, spec.out_channels // spec.groups))
    return spec.weight_bytes * pixels * tiling.overlap_waste / config["pixels"]


def _tile_efficiency(spec: ConvSpec, machine: Machine, config: Config, tiling: _Tiling) -> float:
    """The part of the peak that whole tiles reach: cycles of their multiply-adds over all cycles."""
    width = _width(spec, machine)
    vectors = -(-config["lanes"] // width)
    accumulators = config["pixels"] * vectors
    # A tile narrower than a vector occupies all of it.
    useful = config["pixels"] * config["lanes"] / width / FMA_PORTS
    step = _step_cycles(spec, machine, config["pixels"], vectors, tiling.shares_source)
    cycles = tiling.steps * step + tiling.loops * LOOP_CYCLES + accumulators
    return tiling.steps * useful / cycles if tiling.steps else 1.0


def _step_cycles(spec: ConvSpec, machine: Machine, pixels: int, vectors: int, shares_source: bool) -> float:
    """Cycles for one multiply-add of every accumulator of a tile: the most that one of three resources needs.

    The multiply-add ports; the load ports, for each vector of weights and each element or vector of the source; and
    latency, since an accumulator's next multiply-add waits for its last (eight in flight keep two ports busy). What
    does not fit the registers is stored and loaded again.
    """
    accumulators = pixels * vectors
    loads = vectors + (pixels if shares_source else accumulators)
    converts = loads if DTYPES[spec.dtype].accumulator != spec.dtype else 0
    spilled = max(0, accumulators + vectors + (vectors > 1) - machine.vector_registers)
    fma = (accumulators + converts) / FMA_PORTS
    load = (loads + spilled) / LOAD_PORTS + spilled
    return max(fma, load, float(FMA_LATENCY)) + spilled


def _tiling(spec: ConvSpec, config: Config) -> _Tiling:
    inner, outer = spec.in_channels // spec.groups, spec.out_channels // spec.groups
    makes_inner = (spec.direction == "backward_data") != (spec.direction == "backward_weights" and spec.transposed)
    made, reduced = (inner, outer) if makes_inner else (outer, inner)
    groups_as_lanes = made == 1 and spec.groups > 1
    lanes_waste = _waste(spec.groups if groups_as_lanes else made, config["lanes"])
    pixels = config["pixels"]
    if spec.direction == "backward_weights":
        images = spec.spatial_size if spec.transposed else spec.output_size
        rows = spec.batch * math.prod(images[:-1])
        overlap = _waste(reduced if reduced != 1 else spec.kernel_size[-1], pixels)
        return _Tiling(lanes_waste, overlap, rows * images[-1], rows, not groups_as_lanes)
    taps = float(math.prod(spec.kernel_size))
    if _writes_with_stride(spec):
        taps /= math.prod(spec.stride)
    loops = taps if reduced != 1 else taps / spec.kernel_size[-1]
    return _Tiling(lanes_waste, _pixel_waste(spec, pixels), taps * reduced, loops, not groups_as_lanes)


def _waste(extent: int, block: int) -> float:
    """Work in whole blocks over work needed."""
    return -(-extent // block) * block / extent if extent else 1.0


def _pixel_waste(spec: ConvSpec, pixels: int) -> float:
    """Pixels in tiles over pixels: an image's last tile overlaps the one before it.

    A result that is written with a stride falls into as many smaller images. A problem with neighbours on no axis is one
    image, in channels_last for the whole batch.
    """
    count = math.prod(spec.spatial_size if spec.direction == "backward_data" else spec.output_size)
    pointwise = all(k == 1 for k in spec.kernel_size) and all(s == 1 for s in spec.stride) and spec.padding_is_zero
    if pointwise and spec.layout == "channels_last":
        count *= spec.batch
    if _writes_with_stride(spec):
        count //= math.prod(spec.stride)
    return _waste(count, pixels)


def _writes_with_stride(spec: ConvSpec) -> bool:
    """Whether the result falls into residue classes of the stride, each with its part of the taps."""
    return spec.transposed == (spec.direction == "forward")


def _copied_bytes(spec: ConvSpec) -> int:
    """Bytes read and written only to move data: direct wants its images channels-last with their padding in place."""
    images = {"input": spec.input_bytes, "output": spec.output_bytes}
    gathers_output = spec.direction == "backward_data" or (spec.direction == "backward_weights" and spec.transposed)
    source, other = ("output", "input") if gathers_output else ("input", "output")
    copied = 0
    if spec.layout == "channels_first" or not spec.padding_is_zero:
        copied += images[source]
    if spec.layout == "channels_first":
        copied += images[other]
    if spec.direction == "backward_weights":
        copied += spec.weight_bytes
    return 2 * copied
