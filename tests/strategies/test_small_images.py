"""Images smaller than tiles, boxes and vectors: no stage is given sizes that it was not made for, and no integer is wrong."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import convgen
from convgen.driver import Plan, build_program
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.registry import applicable
from convgen.verify import gate_a

HOST = Machine.host()
DIRECTIONS = ("forward", "backward_data", "backward_weights")


def small(direction: str, size: tuple[int, int], stride: int, layout: str) -> ConvSpec:
    return ConvSpec(
        batch=1,
        in_channels=2,
        out_channels=4,
        spatial_size=size,
        kernel_size=(3, 4),
        stride=stride,
        padding=2,
        direction=direction,
        layout=layout,
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_configuration_is_made_for_the_sizes_of_its_problem(direction: str, stride: int) -> None:
    """``build_program`` raises for a stage whose needs do not hold."""
    for size, layout in itertools.product([(1, 2), (4, 3), (7, 5)], ["channels_first", "channels_last"]):
        spec = small(direction, size, stride, layout)
        for strategy in applicable(spec, HOST):
            for config in strategy.space(spec, HOST)[:3]:
                build_program(Plan(spec, strategy.name, config, "given"), HOST)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_residue_classes_of_one_column(layout: str) -> None:
    """The second class of columns of a strided data gradient has one pixel, fewer than a register tile."""
    spec = small("backward_data", (4, 3), 2, layout)
    for strategy in applicable(spec, HOST):
        assert gate_a(spec, convgen.compile(spec, strategy.name, 1), np.random.default_rng(0)).ok
