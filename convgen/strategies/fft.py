"""fft: tiles of real Fourier transforms along every axis, for kernels so large that the points of F(m, r) no longer serve.

The number of products for a result falls with the tile's length n, as (3n/2 - 1) / (n - r + 1) along an axis, whatever the kernel
(Mathieu, Henaff and LeCun, "Fast training of convolutional networks through FFTs", 2014; tiles as in Zlateski et al., "FFT
convolutions are faster than Winograd on modern CPUs, here is why", 2018).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from convgen.machine import Machine
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import AxisClass, gather_classes
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
)
from convgen.transforms.bilinear import AxisAlgorithm, direct
from convgen.transforms.fourier import SIZES, fourier
from convgen.transforms.split import Algorithms
from convgen.tuning.space import Config

# Shorter kernels are better served by F(m, r).
SHORTEST = 5
# Of the lengths, so many are worth compiling.
MOST_SIZES = 2


@dataclass(frozen=True)
class Fft:
    """Transforms of length ``n`` along each axis, in register tiles of ``pixels`` tiles times ``lanes`` channels."""

    name: str = "fft"

    def refusal(self, spec: ConvSpec, machine: Machine) -> str | None:
        reason = general_refusal(spec)
        if reason is not None:
            return reason
        if any(axis.spaced_step > 1 < axis.taps for axes in gather_classes(unfolded_problem(spec)) for axis in axes):
            return f"stride={spec.stride} throws results away"
        if max(spec.kernel_size) < SHORTEST:
            return f"kernel_size={spec.kernel_size} is shorter than {SHORTEST}"
        if not any(True for _ in self.sizes(spec)):
            return f"kernel_size={spec.kernel_size} with accuracy={spec.accuracy!r} admits no transform that saves products"
        return None

    def default(self, spec: ConvSpec, machine: Machine) -> Config:
        return self.space(spec, machine)[0]

    def space(self, spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
        def seconds(config: Config) -> float:
            return self.predicted_seconds(spec, config, machine)

        configs = {
            n: sorted(blocked_configs(spec, machine, shapes(spec, length_along(n)), n=n), key=seconds)
            for n in self.sizes(spec)
        }
        best = sorted(configs, key=lambda n: seconds(configs[n][0]))[:MOST_SIZES]
        return tuple(sorted((config for n in best for config in configs[n]), key=seconds))

    def error_bound(self, spec: ConvSpec) -> float:
        """That of the least accurate length in the space."""
        return max((_error(spec, n) for n in self.sizes(spec)), default=0.0)

    def predicted_seconds(self, spec: ConvSpec, config: Config, machine: Machine) -> float:
        return bilinear_seconds(spec, machine, shapes(spec, length_along(config["n"])), config)

    def schedule(self, spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
        return bilinear_schedule(spec, length_along(config["n"]), config, machine)

    def algorithms(self, spec: ConvSpec, config: Config) -> Algorithms:
        """Those of the residue class that takes the most points."""
        return max(shapes(spec, length_along(config["n"])), key=lambda shape: shape.points).algorithms

    @staticmethod
    def sizes(spec: ConvSpec) -> Iterator[int]:
        """The lengths that save products and are accurate enough; the first that holds the whole image, without regard to strides
        or dilation, is the last."""
        whole = max(
            size + kernel - 1 for size, kernel in zip(spec.output_size, spec.kernel_size, strict=True) if kernel > 1
        )
        for n in SIZES:
            if n <= max(spec.kernel_size):
                continue
            if any(shape.saves for shape in shapes(spec, length_along(n))) and _error(spec, n) <= transform_limit(spec):
                yield n
            if n >= whole:
                return


def length_along(n: int) -> Choose:
    """The transform of length n for an axis, or one result at a time where there is a single tap."""

    def choose(axis: AxisClass) -> AxisAlgorithm:
        if axis.taps == 1:
            return direct(1, 1)
        return fourier(max(1, min(n - axis.taps + 1, axis.longest_run)), axis.taps, n)

    return choose


def _error(spec: ConvSpec, n: int) -> float:
    return bilinear_error(spec, shapes(spec, length_along(n)))
