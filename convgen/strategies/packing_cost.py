"""What it costs to pack weights, where a call does so itself: in training they change from step to step."""

from __future__ import annotations

import math

from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.base import Strategy, algorithms_of
from convgen.transforms.split import axes_of
from convgen.tuning.rates import rates_of
from convgen.tuning.space import Config

# Cycles to copy one weight, and to make one point of transformed weights.
COPY_CYCLES, POINT_CYCLES = 2.0, 2.5


def packing_seconds(strategy: Strategy, spec: ConvSpec, config: Config, machine: Machine) -> float:
    """The time to pack the weights once, on one core as all predictions are; 0 for weight gradients, which have none."""
    if spec.direction == "backward_weights":
        return 0.0
    weights = math.prod(spec.weight_shape)
    axes = axes_of(algorithms_of(strategy, spec, config))
    taps, points = math.prod(axis.taps for axis in axes), math.prod(axis.points for axis in axes)
    cycles = COPY_CYCLES * weights + (POINT_CYCLES * weights / taps * points if points > taps else 0.0)
    return cycles / rates_of(machine).clock
