"""Which strategies are judged as fast algorithms; their kernels meet the gates where classes, groups and holes meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import convgen
from convgen.driver import Plan, algorithms_of_plan, build_program
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.base import algorithms_of
from convgen.strategies.direct import Direct
from convgen.strategies.fft import Fft
from convgen.strategies.winograd import Winograd
from convgen.transforms.bilinear import AxisAlgorithm
from convgen.transforms.toom_cook import winograd
from convgen.tuning.space import Config
from tests import corpus

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


KINDS: dict[str, dict[str, Any]] = {
    "strided gradient of groups": dict(direction="backward_data", stride=2, padding=1),
    "transposed groups": dict(transposed=True, stride=2, padding=1, output_padding=1),
    "dilated groups": dict(dilation=2, padding=2, layout="channels_first"),
    "one made channel": dict(groups=1, out_channels=1, padding=1),
    "stride and dilation": dict(groups=1, dilation=2, stride=2, padding=2),
}


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_kernels_pass_the_gates(fields: dict[str, Any]) -> None:
    base: dict[str, Any] = dict(
        batch=2, in_channels=8, out_channels=8, spatial_size=(7, 9), kernel_size=3, groups=2, layout="channels_last"
    )
    spec = ConvSpec(**{**base, **fields})
    assert corpus.passes(convgen.compile(spec, "winograd", 2)) == []


def test_streamed_weights_are_prefetched_where_they_are_read_in_vectors() -> None:
    host = Machine.host()
    for made in (1, 64):
        spec = ConvSpec(
            batch=1, in_channels=1 << 13, out_channels=made, spatial_size=(12, 12), kernel_size=5, padding=2,
            layout="channels_last",
        )  # fmt: skip
        for strategy in (Winograd(), Fft()):
            program = build_program(Plan(spec, strategy.name, strategy.default(spec, host), "given"), host)[0]
            assert ("Prefetch(buffer='u'" in repr(program)) == (made > 1)
