"""Sums in dot products: of every configuration that has them, interpreted everywhere, and as machine code where there is any."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from convgen import driver
from convgen.driver import Plan, build_program
from convgen.machine import Machine
from convgen.operator import CompiledConv
from convgen.oracle import reference
from convgen.spec import ConvSpec
from convgen.strategies.registry import applicable
from convgen.tuning.space import Config
from tests import corpus
from tests.strategies.test_contract import SMALL, interpreted

HOST = Machine.host()
WITH_DOTS = dataclasses.replace(SMALL, features="+avx512bf16,+avx512vnni")

PROBLEMS: dict[str, dict[str, Any]] = {
    "3x3": dict(),
    "3x3 of few channels": dict(in_channels=3),
    "3x3 reflect": dict(padding_mode="reflect"),
    "3x3 stride 2": dict(stride=2, padding=((0, 1), (1, 1))),
    "3x3 groups": dict(groups=2, in_channels=16, out_channels=10),
    "3x3 residual": dict(epilogue=("bias", "residual", "relu")),
    "1x1": dict(kernel_size=1, padding=0),
    "1x1 stride 2": dict(kernel_size=1, padding=0, stride=2, groups=2, in_channels=16, out_channels=10),
    "line": dict(spatial_size=(9,), kernel_size=5, padding=2),
    "gradient": dict(direction="backward_data", out_channels=8),
    "gradient stride 2": dict(direction="backward_data", out_channels=8, stride=2),
}

every_problem = pytest.mark.parametrize("name", PROBLEMS)
every_dtype = pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
every_layout = pytest.mark.parametrize("layout", ["channels_last", "channels_first"])


def problem(name: str, dtype: str, layout: str) -> ConvSpec:
    base: dict[str, Any] = dict(batch=2, in_channels=8, out_channels=7, spatial_size=(4, 5), kernel_size=3, padding=1)
    return ConvSpec(**{**base, **PROBLEMS[name]}, dtype=dtype, layout=layout)


def choices(spec: ConvSpec, machine: Machine) -> list[tuple[str, Config]]:
    """Strategies and their configurations in dot products, no more than two a strategy for each kind of them."""
    found: dict[tuple[Any, ...], list[tuple[str, Config]]] = {}
    for strategy in applicable(spec, machine):
        for config in strategy.space(spec, machine):
            if config.get("dot", 1) > 1:
                kind = (strategy.name, *(config.get(name, 0) for name in ("pixels_first", "by_rows", "whole")))
                found.setdefault(kind, []).append((strategy.name, config))
    return [choice for kind in found.values() for choice in kind[:2]]


@every_layout
@every_dtype
@every_problem
def test_programs_mean_the_convolution(name: str, dtype: str, layout: str) -> None:
    spec = problem(name, dtype, layout)
    for strategy, config in choices(spec, WITH_DOTS):
        plan = Plan(spec, strategy, config, "given")
        program, sizes = build_program(plan, WITH_DOTS)
        comparison = interpreted(program, sizes, plan, 0)
        assert comparison.ok, f"{strategy} {config}: {comparison.reason}"


def test_which_problems_have_dot_products() -> None:
    for name, dtype, layout, wanted in (
        ("3x3", "bfloat16", "channels_last", {"direct"}),
        ("3x3", "bfloat16", "channels_first", {"direct"}),
        ("3x3 of few channels", "int8", "channels_last", {"direct"}),
        ("1x1", "int8", "channels_last", {"pointwise"}),
        ("3x3", "int8", "channels_first", set()),
        ("gradient stride 2", "int8", "channels_last", set()),
    ):
        assert {strategy for strategy, _ in choices(problem(name, dtype, layout), WITH_DOTS)} == wanted, name
    strict = problem("3x3", "bfloat16", "channels_last").replace(accuracy="strict")
    assert choices(strict, WITH_DOTS) == []
    assert choices(problem("3x3", "bfloat16", "channels_last"), SMALL) == []


@every_layout
@every_dtype
@every_problem
def test_gates(name: str, dtype: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MIN_PARALLEL_MACS", 0)
    spec = problem(name, dtype, layout).replace(spatial_size=(11, 9)[: len(PROBLEMS[name].get("spatial_size", (0, 0)))])
    for strategy, config in choices(spec, HOST):
        op = CompiledConv(Plan(spec, strategy, config, "given"), HOST, 2)
        assert corpus.passes(op) == [], f"{strategy} {config}"


@pytest.mark.parametrize("name", ["3x3", "3x3 of few channels", "1x1"])
def test_bytes_of_any_value(name: str) -> None:
    """The extreme ones too: -128 * -128 in every term."""
    spec = problem(name, "int8", "channels_last").replace(spatial_size=(11, 9))
    rng = np.random.default_rng(0)
    shapes = list(spec.operand_shapes.values())[:2]
    random = [rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes]
    lowest = [np.full(shape, -128, np.int8) for shape in shapes]
    for strategy, config in choices(spec, HOST):
        op = CompiledConv(Plan(spec, strategy, config, "given"), HOST, 1)
        for operands in (random, lowest):
            np.testing.assert_array_equal(op(*operands), reference(spec, *operands))
            np.testing.assert_array_equal(op(operands[0], op.pack(operands[1])), reference(spec, *operands))
