"""reference: a thread computes one result by the naive nest, with the padding tested at every read. It refuses nothing."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.gpu import Gpu
from convgen.passes.simplify import Simplify
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.cuda.base import element_passes, gpu_nest, plain_passes
from convgen.strategies.reference import sum_error_bound
from convgen.tuning.space import Config

# A multiply-add with its address arithmetic, its tests for padding and its share of waiting for memory, in those of the peak.
MAC_COST = 24


@dataclass(frozen=True)
class Reference:
    """The definition of the problem as a grid of threads. It needs no scratch memory but what folds a gradient back."""

    name: str = "reference"

    def refusal(self, spec: ConvSpec, gpu: Gpu) -> str | None:
        return None

    def default(self, spec: ConvSpec, gpu: Gpu) -> Config:
        return Config()

    def space(self, spec: ConvSpec, gpu: Gpu) -> tuple[Config, ...]:
        return (Config(),)

    def error_bound(self, spec: ConvSpec) -> float:
        return sum_error_bound(spec)

    def predicted_seconds(self, spec: ConvSpec, config: Config, gpu: Gpu) -> float:
        return spec.macs * MAC_COST / gpu.peak

    def schedule(self, spec: ConvSpec, config: Config, gpu: Gpu) -> Schedule:
        nest = gpu_nest(spec)
        return Schedule(nest, (*plain_passes(spec, nest), *element_passes(nest, "conv"), Simplify()))
