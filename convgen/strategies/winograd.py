"""winograd: F(m, r) along every axis, the fewest multiplications for small kernels.

A tile of m results takes m + r - 1 products along each axis instead of m r; what the transforms cost is shared by all channels
(Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional neural networks",
2016). Larger m saves more and rounds worse, so that the problem's accuracy decides which may be used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from convgen.machine import Machine
from convgen.nests.classes import AxisClass
from convgen.spec import ConvSpec
from convgen.strategies.accuracy import transform_limit
from convgen.strategies.base import Schedule
from convgen.strategies.bilinear import (
    Choose,
    bilinear_error,
    bilinear_schedule,
    bilinear_seconds,
    blocked_configs,
    general_refusal,
    shapes,
    usual_config,
)
from convgen.transforms.bilinear import AxisAlgorithm
from convgen.transforms.polyphase import pieces, strided
from convgen.transforms.split import Algorithms
from convgen.transforms.toom_cook import winograd
from convgen.tuning.space import Config

# Results of a tile along an axis, the most promising first.
OUTPUTS = (4, 2, 6, 3, 5)
# Images with tiles in plenty take tiles of 6 results where the transformed weights of so few channels do not get in the way, and
# of 4 elsewhere: of any size the same, so that they share kernels.
MOST_CHANNELS = 160
FEWEST_SHARED = 16
# How much slower than the best they may be: images that such tiles cover badly have kernels of their own.
SHARING_LOSS = 1.15
# Longer filters are cut into pieces: more points for one product each cost accuracy.
LONGEST_FILTER = 5
LONGEST_PIECE = 4


@dataclass(frozen=True)
class Winograd:
    """Tiles of ``m`` results along each axis, in register tiles of ``pixels`` tiles times ``lanes`` channels."""

    name: str = "winograd"

    def refusal(self, spec: ConvSpec, machine: Machine) -> str | None:
        reason = general_refusal(spec)
        if reason is not None:
            return reason
        if not any(True for _ in self.outputs(spec)):
            return (
                f"kernel_size={spec.kernel_size} with accuracy={spec.accuracy!r} admits no F(m, r) that saves products"
            )
        return None

    def default(self, spec: ConvSpec, machine: Machine) -> Config:
        return self.space(spec, machine)[0]

    def space(self, spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
        configs = (
            config
            for m in self.outputs(spec)
            for config in blocked_configs(spec, machine, shapes(spec, outputs_along(m)), m=m)
        )

        def seconds(config: Config) -> float:
            return self.predicted_seconds(spec, config, machine)

        ranked = sorted(configs, key=seconds)
        usual = self._usual(spec, machine)
        if usual is not None:
            comes_first = seconds(usual) <= SHARING_LOSS * seconds(ranked[0])
            ranked = [usual, *ranked] if comes_first else [*ranked, usual]
        return tuple(dict.fromkeys(ranked))

    def error_bound(self, spec: ConvSpec) -> float:
        """That of the least accurate F(m, r) in the space."""
        return max((_error(spec, m) for m in self.outputs(spec)), default=0.0)

    def predicted_seconds(self, spec: ConvSpec, config: Config, machine: Machine) -> float:
        return bilinear_seconds(spec, machine, shapes(spec, outputs_along(config["m"])), config)

    def schedule(self, spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
        return bilinear_schedule(spec, outputs_along(config["m"]), config, machine)

    def algorithms(self, spec: ConvSpec, config: Config) -> Algorithms:
        """Those of the residue class that takes the most points."""
        return max(shapes(spec, outputs_along(config["m"])), key=lambda shape: shape.points).algorithms

    def _usual(self, spec: ConvSpec, machine: Machine) -> Config | None:
        """The configuration of images of any size with tiles in plenty. With few channels to sum over, for which the transforms
        take most of the time, none is good for all."""
        if spec.reduced_channels < FEWEST_SHARED:
            return None
        is_small = spec.reduced_channels <= MOST_CHANNELS and all(step == 1 for step in spec.stride)
        m = next((m for m in ((6, 4) if is_small else (4,)) if m in self.outputs(spec)), None)
        return None if m is None else usual_config(spec, machine, shapes(spec, outputs_along(m)), m=m)

    @staticmethod
    def outputs(spec: ConvSpec) -> Iterator[int]:
        """The m that save products and are accurate enough."""
        for m in OUTPUTS:
            found = shapes(spec, outputs_along(m))
            if any(shape.saves for shape in found) and _error(spec, m) <= transform_limit(spec):
                yield m


def outputs_along(m: int) -> Choose:
    """F(m, taps) for an axis, by residues of a stride; one result at a time where there is a single tap."""

    def choose(axis: AxisClass) -> AxisAlgorithm:
        if axis.taps == 1:
            return winograd(1, 1)
        step = axis.spaced_step
        is_short = axis.taps <= LONGEST_FILTER * step
        return strided(winograd if is_short else _in_pieces, min(m, axis.longest_run), axis.taps, step)

    return choose


def _in_pieces(outputs: int, taps: int) -> AxisAlgorithm:
    count = -(-taps // LONGEST_PIECE)
    return pieces(winograd, outputs, tuple(taps * (i + 1) // count - taps * i // count for i in range(count)))


def _error(spec: ConvSpec, m: int) -> float:
    return bilinear_error(spec, shapes(spec, outputs_along(m)))
