"""depthwise: groups of one channel; a thread has a run of pixels, or all taps of a window, of a few neighbouring channels.

Such problems are bound by memory: an image passes by once, and what neighbouring windows share comes from the first-level
cache. Weight gradients sum over all pixels: threads sum a part of them each, for all taps, and the parts are added in order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.gpu import Gpu
from convgen.nests.nest import axis_letters
from convgen.passes.collapse import Collapse
from convgen.passes.launch_grid import LaunchGrid
from convgen.passes.pipeline import Pass
from convgen.passes.predicate import Predicate
from convgen.passes.register_tile import RegisterTile
from convgen.passes.reorder import Reorder
from convgen.passes.simplify import Simplify
from convgen.passes.split_sum import PART, SplitSum
from convgen.passes.tile import Tile
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.passes.whole_vectors import WholeVectors
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule, windows_refusal
from convgen.strategies.cuda.base import (
    PLAIN_THREADS,
    element_passes,
    gpu_nest,
    packed_weights,
    plain_passes,
    result_row,
)
from convgen.strategies.cuda.gemm import access_lanes
from convgen.strategies.direct_weights import plain_size
from convgen.strategies.reference import sum_error_bound
from convgen.tuning.space import Config

PIXELS = (8, 4, 2, 1)
THREADS = 128
# Sums of a thread, and threads that sum parts of one weight gradient.
MOST_SUMS = 64
MOST_PARTS = 512
FEWEST_TERMS = 32
# The part of the bandwidth that is reached where a window's rows come from the caches.
REACHED = 0.7
LOAD_COST = 6.0


@dataclass(frozen=True)
class Depthwise:
    """Register tiles of ``pixels`` of a row, or of all taps, times ``lanes`` channels; ``parts`` of a weight gradient's sums."""

    name: str = "depthwise"

    def refusal(self, spec: ConvSpec, gpu: Gpu) -> str | None:
        if spec.groups == 1 or spec.made_channels != 1 or spec.reduced_channels != 1:
            return f"groups={spec.groups} are not of one channel each"
        if 0 in spec.result_shape or not spec.macs:
            return "there is nothing to sum"
        if spec.direction == "backward_weights" and math.prod(spec.kernel_size) > MOST_SUMS:
            return f"kernel_size={spec.kernel_size} has more than {MOST_SUMS} taps, which a thread cannot hold"
        return windows_refusal(spec)

    def default(self, spec: ConvSpec, gpu: Gpu) -> Config:
        return self.space(spec, gpu)[0]

    def space(self, spec: ConvSpec, gpu: Gpu) -> tuple[Config, ...]:
        last = spec.layout == "channels_last"
        if spec.direction == "backward_weights":
            taps = math.prod(spec.kernel_size)
            most = access_lanes(spec.dtype, spec.groups) if last else 1
            lanes = [lanes for lanes in dict.fromkeys((most, 1)) if lanes * taps <= MOST_SUMS] or [1]
            return tuple(Config.of(lanes=n, parts=_parts(spec, n, gpu)) for n in lanes)
        channels = tuple(dict.fromkeys((access_lanes(spec.result_dtype, spec.groups), 1))) if last else (1,)
        row = result_row(spec)
        configs = [
            Config.of(pixels=pixels, lanes=lanes)
            for lanes in channels
            for pixels in PIXELS
            if pixels == 1 or pixels < 2 * row
        ]
        return tuple(sorted(configs, key=lambda config: self.predicted_seconds(spec, config, gpu)))

    def error_bound(self, spec: ConvSpec) -> float:
        return sum_error_bound(spec)

    def predicted_seconds(self, spec: ConvSpec, config: Config, gpu: Gpu) -> float:
        tile = config.get("pixels", math.prod(spec.kernel_size))
        moved = spec.bytes_moved / (REACHED * gpu.bandwidth)
        if spec.direction == "backward_weights":
            size = DTYPES[DTYPES[spec.dtype].accumulator].itemsize
            moved += 2 * config["parts"] * math.prod(spec.result_shape) * size / gpu.bandwidth
        row = result_row(spec)
        waste = math.ceil(row / tile) * tile / row if "pixels" in dict(config.values) else 1.0
        cost = (1 + LOAD_COST / (config["lanes"] * min(tile, 4))) * waste
        return max(moved, spec.macs * cost / gpu.peak)

    def schedule(self, spec: ConvSpec, config: Config, gpu: Gpu) -> Schedule:
        return (
            _weights_schedule(spec, config) if spec.direction == "backward_weights" else _gather_schedule(spec, config)
        )


def _parts(spec: ConvSpec, lanes: int, gpu: Gpu) -> int:
    """As many as give every multiprocessor threads, of so many terms or more."""
    terms = spec.batch * math.prod(plain_size(spec))
    wanted = gpu.multiprocessors * gpu.threads_per_multiprocessor * lanes / spec.groups
    return max(1, min(MOST_PARTS, math.ceil(wanted), terms // FEWEST_TERMS))


def _gather_schedule(spec: ConvSpec, config: Config) -> Schedule:
    nest = gpu_nest(spec)
    letters = axis_letters(spec.ndim)
    others = ("n", *(f"o{letter}" for letter in letters[:-1]))
    last = spec.layout == "channels_last"
    is_wide = config["lanes"] > 1
    lanes: tuple[Pass, ...] = (WholeVectors("lane"), Vectorize("lane")) if is_wide else (Unroll("lane"),)
    blocks = (*others, "strip", "channels") if last else ("channels", *others, "strip")
    passes: tuple[Pass, ...] = (
        *plain_passes(spec, nest),
        packed_weights(spec, nest),
        Tile(f"o{letters[-1]}", config["pixels"], "strip", "px"),
        Tile("g", config["lanes"], "channels", "lane"),
        Predicate("conv"),
        Reorder("conv", (*blocks, "px", "lane")),
        RegisterTile(("px", "lane")),
        LaunchGrid("conv", THREADS),
        *lanes,
        Unroll("px"),
        Unroll(f"k{letters[-1]}"),
        *element_passes(nest, "pack_"),
        Simplify(),
    )
    return Schedule(nest, passes)


def _weights_schedule(spec: ConvSpec, config: Config) -> Schedule:
    nest = gpu_nest(spec)
    letters = axis_letters(spec.ndim)
    taps = tuple(f"k{letter}" for letter in letters)
    pixels = ("n", *(f"o{letter}" for letter in letters))
    parts = config["parts"]
    split: tuple[Pass, ...] = (SplitSum("conv", "term", parts),) if parts > 1 else ()
    part = (PART,) if split else ()
    passes: tuple[Pass, ...] = (
        *plain_passes(spec, nest),
        Collapse(taps, "tap"),
        Collapse(pixels, "term"),
        *split,
        Tile("g", config["lanes"], "channels", "lane"),
        Predicate(),
        Reorder("conv", (*part, "channels", "tap", "lane")),
        RegisterTile(("tap", "lane")),
        LaunchGrid("conv", THREADS),
        # The gradient of neighbouring channels is not stored side by side: lanes are sums of their own.
        Unroll("lane"),
        Unroll("tap"),
        *((LaunchGrid("sum_", PLAIN_THREADS),) if split else ()),
        Simplify(),
    )
    return Schedule(nest, passes)
