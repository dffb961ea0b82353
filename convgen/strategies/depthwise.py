"""depthwise: groups of one channel, or of a few, bound by memory, so that each pixel is fetched once and nothing is copied.

Padding is dealt with inside the kernel: rows of taps outside of the image are left out, and of the columns only those near the
border are tested. Lanes run along the made channels of many groups, of an image whose channels are last; what a group reads is
spread over its lanes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule, windows_refusal
from convgen.strategies.depthwise_cost import last_seconds
from convgen.strategies.depthwise_facts import smallest_tile
from convgen.strategies.depthwise_last import GROUPS_FIRST, GROUPS_IN_ROWS, GROUPS_LAST, last_schedule
from convgen.strategies.reference import sum_error_bound
from convgen.strategies.tiles import FEW_REGISTERS
from convgen.tuning.cost import vector_width, waste
from convgen.tuning.space import Config

# Taps of the last axis are unrolled, and compiling takes as long as there are multiply-adds in a kernel.
MAX_TAPS, MAX_TERMS = 31, 64
MAX_UNROLLED = 256
# The same where registers are few, and tiles of one row have too few sums in flight.
MAX_UNROLLED_OF_FEW = 400
# Channels of a group, and how many there may be to sum over for each one that is made: powers of two, so that vectors are.
GROUP_SIZES = (1, 2, 4, 8, 16)
MOST_SOURCES = 4
# Of each kind: tiles of one row, and of two, which take twice as long to compile and come first where they gain so much.
MAX_CONFIGS, LEAST_GAIN = 4, 1.05


@dataclass(frozen=True)
class Depthwise:
    """Register tiles of ``rows`` x ``pixels`` x ``lanes`` made channels; ``order`` says where the loop over the groups stands."""

    name: str = "depthwise"

    def refusal(self, spec: ConvSpec, machine: Machine) -> str | None:
        if spec.direction == "backward_weights":
            return "direction='backward_weights' is summed over pixels, not over a window"
        if (reason := windows_refusal(spec)) is not None:
            return reason
        if spec.groups == 1:
            return "groups=1 are too few to run lanes along"
        channels = (spec.reduced_channels, spec.made_channels)
        if not all(count in GROUP_SIZES for count in channels) or channels[0] > MOST_SOURCES * channels[1]:
            return f"groups={spec.groups} of {channels[0]} to {channels[1]} channels do not fill vectors evenly"
        if spec.layout != "channels_last":
            return "layout='channels_first' has no groups to run lanes along"
        if spec.kernel_size[-1] > MAX_TAPS or spec.kernel_size[-1] * spec.reduced_channels > MAX_TERMS:
            return f"kernel_size={spec.kernel_size} is wider than the {MAX_TAPS} taps or {MAX_TERMS} terms that are unrolled"
        return None

    def default(self, spec: ConvSpec, machine: Machine) -> Config:
        return self.space(spec, machine)[0]

    def space(self, spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
        width, most = vector_width(spec, machine), smallest_tile(spec)
        channels, made = spec.groups * spec.made_channels, spec.made_channels
        lanes = tuple(dict.fromkeys(max(made, min(v * width, 1 << (channels.bit_length() - 1))) for v in (1, 2)))
        reduced = spec.reduced_channels
        longest = MAX_UNROLLED_OF_FEW if machine.vector_registers <= FEW_REGISTERS else MAX_UNROLLED
        configs: dict[Config, None] = {}
        for lane in lanes:
            vectors = max(1, lane // width)
            for rows in (1, 2):
                unrolled = math.prod(spec.kernel_size[-rows:]) * reduced
                budget = min(machine.vector_registers // 2 // vectors, longest // max(1, unrolled)) // rows
                if rows > most[-2:][0] or (rows > 1 and (spec.ndim == 1 or budget < 4)):
                    continue
                for pixels in _tile_pixels(most[-1], max(1, budget)):
                    for order in (GROUPS_IN_ROWS, GROUPS_FIRST, GROUPS_LAST):
                        configs[Config.of(rows=rows, pixels=pixels, lanes=lane, order=order)] = None

        def seconds(config: Config) -> float:
            return self.predicted_seconds(spec, config, machine)

        kinds = ([config for config in configs if (config["rows"] > 1) == several] for several in (False, True))
        found = [config for kind in kinds for config in sorted(kind, key=seconds)[:MAX_CONFIGS]]
        return tuple(sorted(found, key=lambda config: seconds(config) * (LEAST_GAIN if config["rows"] > 1 else 1.0)))

    def error_bound(self, spec: ConvSpec) -> float:
        return sum_error_bound(spec)

    def predicted_seconds(self, spec: ConvSpec, config: Config, machine: Machine) -> float:
        return last_seconds(spec, config, machine)

    def schedule(self, spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
        return last_schedule(spec, config, machine)


def _tile_pixels(row: int, most: int) -> tuple[int, ...]:
    """The two best numbers of pixels for rows of ``row``: little waste first, then large tiles."""
    sizes = range(max(1, min(row, most) // 3), min(row, most) + 1)
    return tuple(sorted(sizes, key=lambda size: (round(waste(row, size), 1), -size))[:2])
