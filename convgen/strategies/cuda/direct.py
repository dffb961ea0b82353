"""direct: a thread computes a few pixels of a few channels in its registers, and reads both factors from where they lie.

Nothing is shared but by the caches: it suits sums too short, and groups too narrow, for blocks that pass through shared memory.
In channels_last a thread's channels are neighbours, as are the threads'; in channels_first neighbouring threads have neighbouring
pixels, and each a few channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.gpu import Gpu
from convgen.nests.nest import axis_letters
from convgen.passes.launch_grid import LaunchGrid
from convgen.passes.pipeline import Pass
from convgen.passes.predicate import Predicate
from convgen.passes.register_tile import RegisterTile
from convgen.passes.reorder import Reorder
from convgen.passes.simplify import Simplify
from convgen.passes.tile import Tile
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.passes.whole_vectors import WholeVectors
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule, windows_refusal
from convgen.strategies.cuda.base import element_passes, gpu_nest, packed_weights, plain_passes, result_row
from convgen.strategies.cuda.gemm import access_lanes
from convgen.strategies.reference import sum_error_bound
from convgen.tuning.space import Config

# Sums of a thread, and what a row of an image is cut into.
MOST_SUMS = 32
PIXELS = (8, 4, 2, 1)
CHANNELS = (8, 4, 1)
THREADS = 128
# A load from the first-level cache, in multiply-adds of a thread.
LOAD_COST = 4.0


@dataclass(frozen=True)
class Direct:
    """Register tiles of ``pixels`` of a row times ``lanes`` channels."""

    name: str = "direct"

    def refusal(self, spec: ConvSpec, gpu: Gpu) -> str | None:
        if spec.direction == "backward_weights":
            return "the sums of a weight gradient are too few for threads that share nothing"
        if 0 in spec.result_shape or not spec.macs:
            return "there is nothing to sum"
        return windows_refusal(spec)

    def default(self, spec: ConvSpec, gpu: Gpu) -> Config:
        return self.space(spec, gpu)[0]

    def space(self, spec: ConvSpec, gpu: Gpu) -> tuple[Config, ...]:
        row, made = result_row(spec), spec.made_channels
        configs = []
        for lanes in _channel_tiles(spec):
            for pixels in PIXELS:
                if pixels * lanes <= MOST_SUMS and (pixels == 1 or pixels < 2 * row) and lanes < 2 * made:
                    configs.append(Config.of(pixels=pixels, lanes=lanes))
        return tuple(sorted(configs, key=lambda config: self.predicted_seconds(spec, config, gpu)))

    def error_bound(self, spec: ConvSpec) -> float:
        return sum_error_bound(spec)

    def predicted_seconds(self, spec: ConvSpec, config: Config, gpu: Gpu) -> float:
        pixels, lanes = config["pixels"], config["lanes"]
        sums = pixels * lanes
        row, made = result_row(spec), spec.made_channels
        waste = math.ceil(row / pixels) * pixels / row * math.ceil(made / lanes) * lanes / made
        loads = pixels + math.ceil(lanes / access_lanes(spec.dtype, made))
        threads = math.prod(spec.result_shape) / sums
        busy = min(1.0, threads / (gpu.multiprocessors * gpu.threads_per_multiprocessor / 2))
        cost = (1 + LOAD_COST * loads / sums) * waste * (2 if spec.dtype == "float64" else 1)
        return max(spec.macs * cost / (gpu.peak * busy), spec.bytes_moved / gpu.bandwidth)

    def schedule(self, spec: ConvSpec, config: Config, gpu: Gpu) -> Schedule:
        nest = gpu_nest(spec, keeps_made=True)
        letters = axis_letters(spec.ndim)
        row = f"o{letters[-1]}"
        others = ("n", *(f"o{letter}" for letter in letters[:-1]))
        group = ("g",) if nest.channels.has_groups else ()
        last = spec.layout == "channels_last"
        blocks = (*others, "strip", *group, "channels") if last else (*group, "channels", *others, "strip")
        is_wide = last and config["lanes"] > 1 and spec.made_channels % config["lanes"] == 0
        is_wide = is_wide and config["lanes"] == access_lanes(spec.result_dtype, spec.made_channels)
        lanes: tuple[Pass, ...] = (WholeVectors("lane"), Vectorize("lane")) if is_wide else (Unroll("lane"),)
        passes: tuple[Pass, ...] = (
            *plain_passes(spec, nest),
            packed_weights(spec, nest),
            Tile(row, config["pixels"], "strip", "px"),
            Tile("oc", config["lanes"], "channels", "lane"),
            Predicate("conv"),
            Reorder("conv", (*blocks, "px", "lane")),
            RegisterTile(("px", "lane")),
            LaunchGrid("conv", THREADS),
            *lanes,
            Unroll("px"),
            *element_passes(nest, "pack_"),
            Simplify(),
        )
        return Schedule(nest, passes)


def _channel_tiles(spec: ConvSpec) -> tuple[int, ...]:
    """How many channels a thread may have: as many as an access has, or a few one by one."""
    if spec.layout == "channels_last":
        return tuple(dict.fromkeys((access_lanes(spec.result_dtype, spec.made_channels), 1)))
    return CHANNELS
