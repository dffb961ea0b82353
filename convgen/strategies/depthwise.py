"""depthwise: one reduced channel per group, with the padding inside the kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.depthwise_pixels import pixels_schedule, row_extent
from convgen.strategies.reference import sum_error_bound
from convgen.tuning.space import Config

MAX_WINDOW = 31


@dataclass(frozen=True)
class Depthwise:
    name: str = "depthwise"

    def refusal(self, spec: ConvSpec, machine: Machine) -> str | None:
        reduced, made = spec.in_channels // spec.groups, spec.out_channels // spec.groups
        if spec.direction == "backward_data":
            reduced, made = made, reduced
        if spec.direction == "backward_weights":
            return "direction='backward_weights' sums over pixels, not over a window"
        if spec.groups == 1 or reduced != 1:
            return f"groups={spec.groups} leave more than one channel to sum over, or nothing"
        if made != 1:
            return "multiplier"
        if spec.layout != "channels_last":
            return "layout"
        if spec.kernel_size[-1] > MAX_WINDOW:
            return f"kernel_size={spec.kernel_size} is wider than {MAX_WINDOW}"
        return None

    def default(self, spec: ConvSpec, machine: Machine) -> Config:
        return self.space(spec, machine)[0]

    def space(self, spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
        width = machine.vector_bytes // DTYPES[DTYPES[spec.dtype].accumulator].itemsize
        most = row_extent(spec)
        out = []
        for rows, p, v, order in ((1, 14, 1, 1),):
            lanes = min(v * width, 1 << (spec.groups.bit_length() - 1))
            out.append(Config.of(rows=rows, pixels=min(p, most), lanes=lanes, order=order))
        return tuple(dict.fromkeys(out))

    def error_bound(self, spec: ConvSpec) -> float:
        return sum_error_bound(spec)

    def schedule(self, spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
        return pixels_schedule(spec, config["rows"], config["pixels"], config["lanes"], config["order"])
