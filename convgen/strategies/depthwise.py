"""depthwise: one reduced channel per group, bound by memory, so that each pixel is fetched once and nothing is copied.

Padding is dealt with inside the kernel: rows of taps outside of the image are left out, and of the columns only those near the
border are tested. Lanes run along the groups of an image whose channels are last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.depthwise_cost import last_seconds
from convgen.strategies.depthwise_facts import smallest_tile
from convgen.strategies.depthwise_last import GROUPS_FIRST, GROUPS_IN_ROWS, GROUPS_LAST, last_schedule
from convgen.strategies.reference import sum_error_bound
from convgen.tuning.cost import vector_width, waste
from convgen.tuning.space import Config

# Taps of the last axis are unrolled, and compiling takes as long as there are multiply-adds in a kernel.
MAX_TAPS = 31
MAX_UNROLLED = 256
# Of each kind: tiles of one row, and of two.
MAX_CONFIGS = 4


@dataclass(frozen=True)
class Depthwise:
    """Register tiles of ``rows`` x ``pixels`` x ``lanes`` groups; ``order`` says where the loop over the groups stands."""

    name: str = "depthwise"

    def refusal(self, spec: ConvSpec, machine: Machine) -> str | None:
        if spec.direction == "backward_weights":
            return "direction='backward_weights' is summed over pixels, not over a window"
        if spec.groups == 1 or spec.reduced_channels != 1:
            return f"groups={spec.groups} do not leave one channel to sum over in each group"
        if spec.made_channels != 1:
            return f"groups={spec.groups} with {spec.made_channels} results each: lanes along groups need one"
        if spec.layout != "channels_last":
            return "layout='channels_first' has no groups to run lanes along"
        if spec.kernel_size[-1] > MAX_TAPS:
            return f"kernel_size={spec.kernel_size} is wider than the {MAX_TAPS} taps that are unrolled"
        return None

    def default(self, spec: ConvSpec, machine: Machine) -> Config:
        return self.space(spec, machine)[0]

    def space(self, spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
        width, most = vector_width(spec, machine), smallest_tile(spec)
        lanes = tuple(dict.fromkeys(min(v * width, 1 << (spec.groups.bit_length() - 1)) for v in (1, 2)))
        taps = spec.kernel_size[-1]
        configs: dict[Config, None] = {}
        for lane in lanes:
            vectors = max(1, lane // width)
            for rows in (1, 2):
                unrolled = math.prod(spec.kernel_size[-2:]) if rows > 1 else taps
                budget = min(machine.vector_registers // 2 // vectors, MAX_UNROLLED // max(1, unrolled)) // rows
                if rows > most[-2:][0] or (rows > 1 and (spec.ndim == 1 or budget < 4)):
                    continue
                for pixels in _tile_pixels(most[-1], max(1, budget)):
                    for order in (GROUPS_IN_ROWS, GROUPS_FIRST, GROUPS_LAST):
                        configs[Config.of(rows=rows, pixels=pixels, lanes=lane, order=order)] = None

        def seconds(config: Config) -> float:
            return self.predicted_seconds(spec, config, machine)

        # Tiles of several rows come last: they gain little and take thrice as long to compile.
        kinds = ([config for config in configs if (config["rows"] > 1) == several] for several in (False, True))
        return tuple(config for kind in kinds for config in sorted(kind, key=seconds)[:MAX_CONFIGS])

    def error_bound(self, spec: ConvSpec) -> float:
        return sum_error_bound(spec)

    def predicted_seconds(self, spec: ConvSpec, config: Config, machine: Machine) -> float:
        return last_seconds(spec, config, machine)

    def schedule(self, spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
        return last_schedule(spec, config["rows"], config["pixels"], config["lanes"], config["order"])


def _tile_pixels(row: int, most: int) -> tuple[int, ...]:
    """The two best numbers of pixels for rows of ``row``: little waste first, then large tiles."""
    sizes = range(max(1, min(row, most) // 3), min(row, most) + 1)
    return tuple(sorted(sizes, key=lambda size: (round(waste(row, size), 1), -size))[:2])
