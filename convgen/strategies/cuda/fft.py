"""fft: tiles of real Fourier transforms along every axis, for kernels so large that the points of F(m, r) no longer serve.

Each axis' transform is a stage of its own, a thread a line of a tile (Mathieu, Henaff and LeCun, "Fast training of convolutional
networks through FFTs", 2014; tiles as in Vasilache et al., "Fast convolutional nets with fbfft", 2015).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from convgen.gpu import Gpu
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.bilinear import bilinear_error, shapes
from convgen.strategies.cuda.bilinear import (
    bilinear_configs,
    bilinear_refusal,
    bilinear_schedule,
    bilinear_seconds,
    fits_memory,
    tiling_of,
)
from convgen.strategies.fft import SHORTEST, length_along
from convgen.strategies.fft import Fft as CpuFft
from convgen.transforms.split import Algorithms
from convgen.tuning.space import Config

# The longest line that the registers of a thread hold.
LONGEST = 32
# Of the lengths, so many are worth compiling.
MOST_SIZES = 2


@dataclass(frozen=True)
class Fft:
    """Transforms of length ``n`` along each axis; the products are those of gemm.Tiling."""

    name: str = "fft"

    def refusal(self, spec: ConvSpec, gpu: Gpu) -> str | None:
        reason = bilinear_refusal(spec)
        if reason is not None:
            return reason
        if any(stride > 1 for stride in spec.stride):
            return f"stride={spec.stride} throws results away"
        if max(spec.kernel_size) < SHORTEST:
            return f"kernel_size={spec.kernel_size} is shorter than {SHORTEST}"
        if not any(True for _ in self._sizes(spec)):
            return f"kernel_size={spec.kernel_size} with accuracy={spec.accuracy!r} admits no transform that saves products"
        return None

    def default(self, spec: ConvSpec, gpu: Gpu) -> Config:
        return self.space(spec, gpu)[0]

    def space(self, spec: ConvSpec, gpu: Gpu) -> tuple[Config, ...]:
        found = [
            config
            for n in tuple(self._sizes(spec))[:MOST_SIZES]
            for config in bilinear_configs(spec, shapes(spec, length_along(n)), gpu, n=n)
        ]
        return tuple(sorted(found, key=lambda config: self.predicted_seconds(spec, config, gpu)))

    def error_bound(self, spec: ConvSpec) -> float:
        """That of the least accurate length in the space."""
        return max((bilinear_error(spec, shapes(spec, length_along(n))) for n in self._sizes(spec)), default=0.0)

    def predicted_seconds(self, spec: ConvSpec, config: Config, gpu: Gpu) -> float:
        found = shapes(spec, length_along(config["n"]))
        return bilinear_seconds(spec, found, tiling_of(config, "n"), gpu, apart=True)

    def schedule(self, spec: ConvSpec, config: Config, gpu: Gpu) -> Schedule:
        return bilinear_schedule(spec, length_along(config["n"]), tiling_of(config, "n"), apart=True)

    def algorithms(self, spec: ConvSpec, config: Config) -> Algorithms:
        """Those of the residue class that takes the most points."""
        return max(shapes(spec, length_along(config["n"])), key=lambda shape: shape.points).algorithms

    @staticmethod
    def _sizes(spec: ConvSpec) -> Iterator[int]:
        """The lengths that save products, are accurate enough and fit a thread's registers."""
        return (n for n in CpuFft.sizes(spec) if n <= LONGEST and fits_memory(spec, shapes(spec, length_along(n))))
