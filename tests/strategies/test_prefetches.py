"""What is asked for ahead of its use: results in every strategy, what is added to them, and the tiles that a fast algorithm
reads."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from convgen.driver import Plan, algorithms_of_plan, build_program
from convgen.ir.nodes import Prefetch
from convgen.ir.rewrite import statements
from convgen.machine import Machine
from convgen.operator import CompiledConv
from convgen.spec import ConvSpec, Epilogue
from convgen.strategies.base import Strategy
from convgen.strategies.registry import STRATEGIES
from convgen.verify import gate_a

HOST = Machine.host()
# So small caches that no image stays in them.
SMALL = dataclasses.replace(HOST, l2_bytes=1 << 10, l3_bytes=1 << 11)
PROBLEMS: dict[str, dict[str, Any]] = {
    "2d": dict(in_channels=32, out_channels=40, spatial_size=(12, 11), kernel_size=3, padding=1),
    "1x1": dict(in_channels=32, out_channels=40, spatial_size=(12, 11), kernel_size=1),
    "1x1 channels first": dict(
        in_channels=32, out_channels=40, spatial_size=(12, 11), kernel_size=1, layout="channels_first"
    ),
    "residual": dict(
        in_channels=32, out_channels=40, spatial_size=(12, 11), kernel_size=3, padding=1,
        epilogue=Epilogue(("bias", "residual", "relu")),
    ),
    "1d strided": dict(in_channels=48, out_channels=33, spatial_size=(61,), kernel_size=5, stride=2, padding=2),
    "3d": dict(in_channels=16, out_channels=32, spatial_size=(6, 6, 7), kernel_size=3, padding=1),
    "dilated": dict(in_channels=32, out_channels=40, spatial_size=(14, 13), kernel_size=3, dilation=2, padding=2),
    "strided gradient": dict(
        in_channels=32, out_channels=40, spatial_size=(13, 12), kernel_size=3, stride=2, padding=1, direction="backward_data"
    ),
    "reflected gradient": dict(
        in_channels=32, out_channels=40, spatial_size=(12, 11), kernel_size=3, padding=1, padding_mode="reflect",
        direction="backward_data",
    ),
    "transposed": dict(in_channels=32, out_channels=40, spatial_size=(7, 6), kernel_size=2, stride=2, transposed=True),
    "groups": dict(in_channels=32, out_channels=64, spatial_size=(12, 11), kernel_size=3, padding=1, groups=4),
    "depthwise": dict(in_channels=48, out_channels=48, spatial_size=(12, 11), kernel_size=3, padding=1, groups=48),
    "few channels": dict(in_channels=1, out_channels=40, spatial_size=(20, 19), kernel_size=3, padding=1),
    "one result": dict(in_channels=64, out_channels=1, spatial_size=(20, 19), kernel_size=3, padding=1),
    "bfloat16": dict(
        in_channels=32, out_channels=40, spatial_size=(12, 11), kernel_size=3, padding=1, dtype="bfloat16"
    ),
}  # fmt: skip


def problem(name: str) -> ConvSpec:
    return ConvSpec(**{"batch": 2, "layout": "channels_last", **PROBLEMS[name]})


def applicable(spec: ConvSpec) -> list[Strategy]:
    return [each for each in STRATEGIES if each.name != "reference" and each.refusal(spec, SMALL) is None]


def prefetched(spec: ConvSpec, plan: Plan, machine: Machine) -> set[str]:
    """The buffers that are prefetched."""
    program = build_program(plan, machine)[0]
    return {s.buffer for stage in program.stages for s in statements(stage.body) if isinstance(s, Prefetch)}


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_configuration_is_a_program(name: str) -> None:
    spec = problem(name)
    for strategy in applicable(spec):
        for config in strategy.space(spec, SMALL)[::3]:
            prefetched(spec, Plan(spec, strategy.name, config, "given"), SMALL)


@pytest.mark.parametrize("name", ["2d", "1x1", "residual", "1d strided", "3d", "dilated", "groups", "bfloat16"])
def test_results_are_prefetched_whatever_their_size(name: str) -> None:
    spec = problem(name)
    for machine in (HOST, SMALL):
        for strategy in applicable(spec):
            found = prefetched(spec, Plan(spec, strategy.name, strategy.default(spec, machine), "given"), machine)
            assert "output" in found, strategy.name
            assert ("residual" in found) == (name == "residual"), strategy.name
            assert ("input" in found) == (strategy.name in ("winograd", "fft")), strategy.name


@pytest.mark.parametrize("kernel", [3, 5])
def test_depthwise_results_are_prefetched_beside_many_taps(kernel: int) -> None:
    """Before the loop over a window's rows; tiles of two rows have none."""
    spec = problem("depthwise").replace(kernel_size=(kernel, kernel), padding=((1, 1), (1, 1)))
    depthwise = next(each for each in STRATEGIES if each.name == "depthwise")
    config = next(config for config in depthwise.space(spec, HOST) if config["rows"] == 1)
    assert prefetched(spec, Plan(spec, "depthwise", config, "given"), HOST) == ({"output"} if kernel == 5 else set())


def test_results_with_channels_first_are_prefetched_beyond_the_last_cache_only() -> None:
    spec = problem("1x1 channels first")
    plan = Plan(spec, "pointwise", next(s for s in STRATEGIES if s.name == "pointwise").default(spec, SMALL), "given")
    assert "output" in prefetched(spec, plan, SMALL)
    assert prefetched(spec, plan, dataclasses.replace(SMALL, l3_bytes=1 << 30)) == set()


@pytest.mark.parametrize("name", ["residual", "strided gradient", "depthwise"])
def test_kernels_with_prefetches_are_exact(name: str) -> None:
    spec = problem(name)
    for strategy in applicable(spec):
        plan = Plan(spec, strategy.name, strategy.space(spec, SMALL)[0], "given")
        comparison = gate_a(spec, CompiledConv(plan, SMALL, 2), np.random.default_rng(0), algorithms_of_plan(plan))
        assert comparison.ok, (strategy.name, comparison.reason)
