"""The strategies for GPUs in the order in which they are asked. The reference is last and refuses nothing."""

from __future__ import annotations

from convgen.errors import NotApplicable
from convgen.gpu import Gpu
from convgen.spec import ConvSpec
from convgen.strategies.cuda.base import GpuStrategy
from convgen.strategies.cuda.depthwise import Depthwise
from convgen.strategies.cuda.direct import Direct
from convgen.strategies.cuda.fft import Fft
from convgen.strategies.cuda.implicit_gemm import ImplicitGemm
from convgen.strategies.cuda.pointwise import Pointwise
from convgen.strategies.cuda.reference import Reference
from convgen.strategies.cuda.winograd import Winograd

GPU_STRATEGIES: tuple[GpuStrategy, ...] = (
    Depthwise(),
    Pointwise(),
    ImplicitGemm(),
    Winograd(),
    Fft(),
    Direct(),
    Reference(),
)


def gpu_strategy_named(name: str) -> GpuStrategy:
    """The strategy of that name; raises NotApplicable naming those there are."""
    for strategy in GPU_STRATEGIES:
        if strategy.name == name:
            return strategy
    allowed = ", ".join(strategy.name for strategy in GPU_STRATEGIES)
    raise NotApplicable(f"strategy={name!r} is unknown for GPUs; allowed: auto, {allowed}")


def gpu_applicable(spec: ConvSpec, gpu: Gpu) -> tuple[GpuStrategy, ...]:
    """The strategies that do not refuse the problem, in order; never empty."""
    return tuple(strategy for strategy in GPU_STRATEGIES if strategy.refusal(spec, gpu) is None)
