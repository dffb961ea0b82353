"""The strategies in the order in which they are asked. The reference is last and refuses nothing."""

from __future__ import annotations

from collections.abc import Sequence

from convgen.errors import NotApplicable
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.base import Strategy
from convgen.strategies.depthwise import Depthwise
from convgen.strategies.direct import Direct
from convgen.strategies.fft import Fft
from convgen.strategies.im2col_gemm import Im2colGemm
from convgen.strategies.implicit_gemm import ImplicitGemm
from convgen.strategies.pointwise import Pointwise
from convgen.strategies.reference import Reference
from convgen.strategies.winograd import Winograd
from convgen.strategies.winograd_weights import WinogradWeights
from convgen.tuning.space import Config

STRATEGIES: tuple[Strategy, ...] = (
    Pointwise(),
    Depthwise(),
    Direct(),
    Im2colGemm(),
    ImplicitGemm(),
    Winograd(),
    WinogradWeights(),
    Fft(),
    Reference(),
)


def strategy_named(name: str) -> Strategy:
    """The strategy of that name; raises NotApplicable naming those there are."""
    for strategy in STRATEGIES:
        if strategy.name == name:
            return strategy
    allowed = ", ".join(strategy.name for strategy in STRATEGIES)
    raise NotApplicable(f"strategy={name!r} is unknown; allowed: auto, {allowed}")


def applicable(spec: ConvSpec, machine: Machine) -> tuple[Strategy, ...]:
    """The strategies that do not refuse the problem, in order; never empty."""
    return tuple(strategy for strategy in STRATEGIES if strategy.refusal(spec, machine) is None)


def rank(
    spec: ConvSpec, machine: Machine, candidates: Sequence[tuple[Strategy, Config]]
) -> list[tuple[Strategy, Config]]:
    """Returns the candidates, those predicted to be the fastest first; equals stay in the order given."""
    return sorted(candidates, key=lambda candidate: candidate[0].predicted_seconds(spec, candidate[1], machine))
