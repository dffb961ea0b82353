"""direct: the nest itself, with a tile of pixels times a vector of channels in registers.

Weights are packed once to [block of output channels][taps][input channels][lane], so that the inner loop reads one vector of
them, broadcasts one element of the image for each pixel of the tile and does nothing but multiply-adds (Georganas et al.,
"Anatomy of high-performance deep learning convolutions on SIMD architectures", 2018). A problem with one channel per group
(depthwise) takes the groups as lanes, and one with a few made channels those that are summed. Padding and the layout of the
image are dealt with by a copy of the part of an image that a task needs, which stays in cache, or by one of the whole image where
all pixels meet one block of weights after the other; small images are read in place.
"""

from __future__ import annotations

from dataclasses import dataclass

from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule, windows_refusal
from convgen.strategies.boxes import row_extent
from convgen.strategies.copies import square_size
from convgen.strategies.direct_cost import direct_seconds
from convgen.strategies.direct_gather import (
    gather_schedule,
    has_short_sums,
    leaves_out_rows,
    most_pixels,
    prefers_pixels_first,
    rounds_up,
    takes_dots,
    takes_tiles,
)
from convgen.strategies.direct_weights import weights_configs, weights_schedule
from convgen.strategies.direct_weights_cost import weights_seconds
from convgen.strategies.direct_weights_taps import sums_taps, taps_configs, taps_schedule, taps_seconds
from convgen.strategies.direct_whole import whole_configs
from convgen.strategies.dots import with_dots
from convgen.strategies.matrix import matrix_tiles, split_bound, splits_of
from convgen.strategies.reference import sum_error_bound
from convgen.strategies.tiles import candidate_tiles, sum_tile
from convgen.transforms.split import Algorithms
from convgen.tuning.space import Config


@dataclass(frozen=True)
class Direct:
    """Register tiles of ``pixels`` (for weight gradients: input channels) times ``lanes`` channels."""

    name: str = "direct"

    def refusal(self, spec: ConvSpec, machine: Machine) -> str | None:
        return "in_channels=0 leaves nothing to sum" if spec.in_channels == 0 else windows_refusal(spec)

    def default(self, spec: ConvSpec, machine: Machine) -> Config:
        return self.space(spec, machine)[0]

    def space(self, spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
        if spec.direction == "backward_weights":
            found = taps_configs(spec, machine) if sums_taps(spec) else weights_configs(spec, machine)
            return tuple(sorted(found, key=lambda config: self.predicted_seconds(spec, config, machine)))

        def seconds(config: Config) -> float:
            return self.predicted_seconds(spec, config, machine)

        tiles = candidate_tiles(spec, most_pixels(spec, pixels_first=False), machine)
        first = int(prefers_pixels_first(spec, tiles[0], machine))
        configs = [
            Config.of(pixels=min(pixels, most_pixels(spec, pixels_first=bool(order))), lanes=lanes, pixels_first=order)
            for pixels, lanes in tiles
            for order in (first, 1 - first)
        ]
        if leaves_out_rows(spec) or has_short_sums(spec):
            row = row_extent(spec)
            rows = [
                Config.of(pixels=min(pixels, row), lanes=lanes, pixels_first=1, by_rows=1)
                for pixels, lanes in candidate_tiles(spec, row, machine)
            ]
            rows.sort(key=seconds)
            configs = rows + configs if seconds(rows[0]) < seconds(configs[0]) else configs + rows
        whole = sorted(whole_configs(spec, machine), key=seconds)
        if whole:
            configs = whole + configs if seconds(whole[0]) < seconds(configs[0]) else configs + whole
        sums = [
            Config.of(pixels=tile[0], lanes=spec.made_channels, pixels_first=order, terms=tile[1])
            for order in (first, 1 - first)
            if (tile := sum_tile(spec, most_pixels(spec, pixels_first=bool(order)), machine)) is not None
        ]
        dots = [
            dot
            for config in configs
            if takes_dots(spec, config)
            for dot in with_dots([config], spec, machine, "lanes", rounds_up=rounds_up(spec, config))
        ]
        units = [
            config.and_also(pixels_first=1, by_rows=1)
            for config in matrix_tiles(spec, machine, row_extent(spec))
            if takes_tiles(spec, config)
        ]
        kinds = [units, sorted(dots, key=seconds), sorted(sums, key=seconds) + configs]
        configs = [config for kind in sorted(filter(None, kinds), key=lambda kind: seconds(kind[0])) for config in kind]
        return tuple(dict.fromkeys(configs))

    def error_bound(self, spec: ConvSpec) -> float:
        return max(sum_error_bound(spec), split_bound(spec))

    def algorithms(self, spec: ConvSpec, config: Config) -> Algorithms:
        """What numbers split into pieces are held to."""
        return splits_of(config)

    def predicted_seconds(self, spec: ConvSpec, config: Config, machine: Machine) -> float:
        if spec.direction == "backward_weights":
            return (taps_seconds if sums_taps(spec) else weights_seconds)(spec, config, machine)
        return direct_seconds(spec, config, machine)

    def schedule(self, spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
        if spec.direction == "backward_weights":
            if sums_taps(spec):
                return taps_schedule(spec, config, machine)
            return weights_schedule(spec, config, square_size(spec.dtype, machine))
        return gather_schedule(spec, config, machine)
