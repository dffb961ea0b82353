"""Which strategies are judged as fast algorithms."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.driver import Plan, algorithms_of_plan
from convgen.spec import ConvSpec
from convgen.strategies.base import algorithms_of
from convgen.strategies.direct import Direct
from convgen.transforms.bilinear import AxisAlgorithm
from convgen.transforms.toom_cook import winograd
from convgen.tuning.space import Config

SPEC = ConvSpec(batch=1, in_channels=4, out_channels=4, spatial_size=(8, 8), kernel_size=3)


@dataclass(frozen=True)
class Transformed(Direct):
    """A strategy that says it takes F(m, 3)."""

    def algorithms(self, spec: ConvSpec, config: Config) -> tuple[AxisAlgorithm, ...]:
        return (winograd(config["outputs"], 3),) * spec.ndim


def test_a_strategy_names_its_algorithms_or_has_none() -> None:
    assert algorithms_of(Transformed(), SPEC, Config.of(outputs=4)) == (winograd(4, 3), winograd(4, 3))
    assert algorithms_of(Direct(), SPEC, Config()) == ()


def test_plans_answer_for_their_strategy() -> None:
    assert algorithms_of_plan(Plan(SPEC, "reference", Config(), "given")) == ()
