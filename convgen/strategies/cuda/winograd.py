"""winograd: F(m, r) along every axis, a stage a step: transforms in the registers of threads, a matrix product for each point.

(Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016, the non-fused form.) The points of all tiles pass
through memory, which pays where there are channels enough on both sides; what it saves is the multiplications.
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
from convgen.strategies.winograd import Winograd as CpuWinograd
from convgen.strategies.winograd import outputs_along
from convgen.transforms.split import Algorithms
from convgen.tuning.space import Config

# Results of a tile along an axis, and points that the registers of a thread hold.
OUTPUTS = (4, 2)
MOST_POINTS = 64


@dataclass(frozen=True)
class Winograd:
    """Tiles of ``m`` results along each axis; the products are those of gemm.Tiling."""

    name: str = "winograd"

    def refusal(self, spec: ConvSpec, gpu: Gpu) -> str | None:
        reason = bilinear_refusal(spec)
        if reason is not None:
            return reason
        if not any(True for _ in self._outputs(spec)):
            return (
                f"kernel_size={spec.kernel_size} with accuracy={spec.accuracy!r} admits no F(m, r) that saves and fits"
            )
        return None

    def default(self, spec: ConvSpec, gpu: Gpu) -> Config:
        return self.space(spec, gpu)[0]

    def space(self, spec: ConvSpec, gpu: Gpu) -> tuple[Config, ...]:
        found: list[Config] = []
        for m in self._outputs(spec):
            found += bilinear_configs(spec, shapes(spec, outputs_along(m)), gpu, m=m)
        return tuple(sorted(found, key=lambda config: self.predicted_seconds(spec, config, gpu)))

    def error_bound(self, spec: ConvSpec) -> float:
        """That of the least accurate F(m, r) in the space."""
        return max((bilinear_error(spec, shapes(spec, outputs_along(m))) for m in self._outputs(spec)), default=0.0)

    def predicted_seconds(self, spec: ConvSpec, config: Config, gpu: Gpu) -> float:
        return bilinear_seconds(spec, shapes(spec, outputs_along(config["m"])), tiling_of(config, "m"), gpu)

    def schedule(self, spec: ConvSpec, config: Config, gpu: Gpu) -> Schedule:
        return bilinear_schedule(spec, outputs_along(config["m"]), tiling_of(config, "m"))

    def algorithms(self, spec: ConvSpec, config: Config) -> Algorithms:
        """Those of the residue class that takes the most points."""
        return max(shapes(spec, outputs_along(config["m"])), key=lambda shape: shape.points).algorithms

    @staticmethod
    def _outputs(spec: ConvSpec) -> Iterator[int]:
        """The m that save products, are accurate enough and fit a thread's registers."""
        accurate = set(CpuWinograd.outputs(spec))
        for m in OUTPUTS:
            found = shapes(spec, outputs_along(m))
            if m in accurate and all(shape.points <= MOST_POINTS for shape in found) and fits_memory(spec, found):
                yield m
