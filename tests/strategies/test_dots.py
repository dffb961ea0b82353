"""Sums in dot products and by the matrix unit: every configuration that has them, interpreted everywhere, and as machine code
where there is any; what stands in for the matrix unit is everywhere."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

import convgen
from convgen import driver, matrix_unit
from convgen.driver import Plan, build_program, lower
from convgen.errors import OptionError
from convgen.machine import Machine, machine_named
from convgen.operator import CompiledConv
from convgen.oracle import reference
from convgen.spec import ConvSpec, Epilogue
from convgen.strategies.registry import applicable
from convgen.tuning.space import Config
from convgen.verify import integer_operands
from tests import corpus
from tests.samples import MACHINE
from tests.strategies.test_contract import SMALL, interpreted

HOST = Machine.host()
EMULATED = dataclasses.replace(HOST, matrix="emulated")
WITH_DOTS = dataclasses.replace(SMALL, features="+avx512bf16,+avx512vnni")

PROBLEMS: dict[str, dict[str, Any]] = {
    "3x3": dict(),
    "3x3 of few channels": dict(in_channels=3),
    "3x3 reflect": dict(padding_mode="reflect"),
    "3x3 stride 2": dict(stride=2, padding=((0, 1), (1, 1))),
    "3x3 groups": dict(groups=2, in_channels=16, out_channels=10),
    "3x3 residual": dict(epilogue=("bias", "residual", "relu")),
    "3x3 of one channel": dict(in_channels=1),
    "multiplier": dict(groups=8, out_channels=16),
    "1x1": dict(kernel_size=1, padding=0),
    "1x1 stride 2": dict(kernel_size=1, padding=0, stride=2, groups=2, in_channels=16, out_channels=10),
    "line": dict(spatial_size=(9,), kernel_size=5, padding=2),
    "gradient": dict(direction="backward_data", out_channels=8),
    "gradient of one row": dict(direction="backward_data", out_channels=8, spatial_size=(1, 5), stride=2),
    "gradient stride 2": dict(direction="backward_data", out_channels=8, stride=2),
}

DTYPES, LAYOUTS = ("bfloat16", "int8"), ("channels_last", "channels_first")
# Compiled in every run of the tests, the second ones also for the matrix unit; all others are marked slow.
QUICK = ("3x3 of few channels", "3x3 residual", "1x1", "1x1 stride 2", "line")
QUICK_TILES = ("3x3 residual", "line")

every_problem = pytest.mark.parametrize(
    ("name", "dtype", "layout"), list(itertools.product(PROBLEMS, DTYPES, LAYOUTS)), ids=str
)


def _compiled(quick: tuple[str, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("name", "dtype", "layout"),
        [
            pytest.param(*each, marks=() if each[0] in quick and each[2] == "channels_last" else pytest.mark.slow)
            for each in itertools.product(PROBLEMS, DTYPES, LAYOUTS)
        ],
    )


compiled_problem, tiled_problem = _compiled(QUICK), _compiled(QUICK_TILES)


def problem(name: str, dtype: str, layout: str) -> ConvSpec:
    base: dict[str, Any] = dict(batch=2, in_channels=8, out_channels=7, spatial_size=(4, 5), kernel_size=3, padding=1)
    return ConvSpec(**{**base, **PROBLEMS[name]}, dtype=dtype, layout=layout)


def choices(spec: ConvSpec, machine: Machine, *, matrix: bool = False) -> list[tuple[str, Config]]:
    """Strategies and their configurations in dot products, or by the matrix unit, the first of each kind."""
    found: dict[tuple[Any, ...], list[tuple[str, Config]]] = {}
    for strategy in applicable(spec, machine):
        for config in strategy.space(spec, machine):
            if config.get("dot", 1) > 1 and bool(config.get("matrix", 0)) == matrix:
                kind = (strategy.name, *(config.get(name, 0) for name in ("pixels_first", "by_rows", "whole")))
                found.setdefault(kind, []).append((strategy.name, config))
    return [choice for kind in found.values() for choice in kind[:1]]


@every_problem
def test_programs_mean_the_convolution(name: str, dtype: str, layout: str) -> None:
    spec = problem(name, dtype, layout)
    for machine, matrix in ((WITH_DOTS, False), (dataclasses.replace(SMALL, matrix="emulated"), True)):
        for strategy, config in choices(spec, machine, matrix=matrix):
            plan = Plan(spec, strategy, config, "given")
            program, sizes = build_program(plan, machine)
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
    assert choices(problem("3x3 of one channel", "int8", "channels_last"), WITH_DOTS) == []
    strict = problem("3x3", "bfloat16", "channels_last").replace(accuracy="strict")
    assert choices(strict, WITH_DOTS) == []
    assert choices(problem("3x3", "bfloat16", "channels_last"), SMALL) == []


@pytest.mark.parametrize(("dtype", "channels"), [("bfloat16", 10000), ("int8", 5000), ("int8", 20000)])
def test_sums_that_no_block_divides(dtype: str, channels: int) -> None:
    spec = problem("1x1", dtype, "channels_last").replace(in_channels=channels, out_channels=70)
    for strategy, config in choices(spec, WITH_DOTS):
        build_program(Plan(spec, strategy, config, "given"), WITH_DOTS)


@pytest.mark.parametrize("level", ["avx512", "avx2", "generic"])
def test_levels_of_a_machine_have_the_instructions_that_are_taken(level: str) -> None:
    """A level may have the instruction for shorter vectors than its own."""
    try:
        machine = machine_named(level)
    except OptionError as error:
        pytest.skip(str(error))
    spec = problem("3x3", "int8", "channels_last").replace(in_channels=16, out_channels=32)
    operands = integer_operands(spec, np.random.default_rng(0)).main
    op = convgen.compile(spec, machine=machine)
    np.testing.assert_array_equal(op(*operands), reference(spec, *operands))


@compiled_problem
def test_gates(name: str, dtype: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MIN_PARALLEL_MACS", 0)
    spec = problem(name, dtype, layout)
    if "spatial_size" not in PROBLEMS[name]:
        spec = spec.replace(spatial_size=(11, 9))
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


@tiled_problem
def test_tiles(name: str, dtype: str, layout: str) -> None:
    """With the stand-in, which has the addresses and shapes of the unit's instructions."""
    spec = problem(name, dtype, layout)
    for strategy, config in choices(spec, EMULATED, matrix=True):
        plan = Plan(spec, strategy, config, "given")
        assert corpus.passes(CompiledConv(plan, EMULATED, 1)) == [], f"{strategy} {config}"


def test_which_problems_have_tiles() -> None:
    for name, dtype, layout, wanted in (
        ("3x3", "bfloat16", "channels_last", {"direct"}),
        ("3x3 of few channels", "int8", "channels_first", {"direct"}),
        ("1x1", "int8", "channels_last", {"direct", "pointwise"}),
        ("gradient stride 2", "int8", "channels_last", {"direct"}),
    ):
        assert {strategy for strategy, _ in choices(problem(name, dtype, layout), EMULATED, matrix=True)} == wanted, (
            name
        )
    strict = problem("3x3", "bfloat16", "channels_last").replace(accuracy="strict")
    assert choices(strict, EMULATED, matrix=True) == []
    assert choices(problem("3x3", "bfloat16", "channels_last"), HOST, matrix=True) == [] or HOST.matrix


@pytest.mark.parametrize(("dtype", "product"), [("bfloat16", "tdpbf16ps"), ("int8", "tdpbssd")])
def test_tiles_become_the_units_instructions(dtype: str, product: str) -> None:
    """Compiled for such a processor, whatever this one is: four products a step, of tiles that are loaded once each."""
    features = ",".join(
        f"+{feature}" for feature in (*matrix_unit.FEATURES, "avx512bf16", "avx512f", "avx512bw", "avx512vl")
    )
    machine = dataclasses.replace(
        MACHINE, triple="x86_64-unknown-linux-gnu", cpu="x86-64-v4", features=features, matrix="amx"
    )
    spec = problem("3x3", dtype, "channels_last").replace(in_channels=64, out_channels=64, spatial_size=(9, 32))
    strategy, config = choices(spec, machine, matrix=True)[0]
    assembly = lower(Plan(spec, strategy, config, "given"), machine).assembly()
    assert config["pixels"] == 32
    assert config["lanes"] == 32
    used = Counter(re.findall(r"^\s+(tdp\w+|tile\w+|ldtilecfg)", assembly, re.MULTILINE))
    assert (used.pop("ldtilecfg"), used.pop("tilerelease")) == (1, 1)
    assert set(used) == {"tilezero", "tileloadd", product, "tilestored"}
    assert used["tilezero"] == used["tilestored"]
    assert used["tileloadd"] == used[product]
    assert all(count % 4 == 0 for count in used.values())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["3x3", "1x1"])
def test_requantized(name: str, layout: str) -> None:
    """Each strategy's first choice, and every halfway case that float32 holds: rounded to even, shifted, saturated."""
    epilogue = Epilogue(("bias", "residual", "relu", "requantize"), zero_point=-9)
    spec = problem(name, "int8", layout).replace(epilogue=epilogue)
    rng = np.random.default_rng(0)
    shapes = spec.operand_shapes
    x, w = (rng.integers(-9, 10, shapes[key]).astype(np.int8) for key in ("input", "weight"))
    bias, residual = (rng.integers(-99, 99, shapes[key]).astype(np.int32) for key in ("bias", "residual"))
    halves = np.resize(np.array([0.5, 0.25, 2.0, 1.5], np.float32), shapes["requantize"])
    want = reference(spec, x, w, bias=bias, residual=residual, requantize=halves)
    assert len(np.unique(want)) > 40
    for strategy in applicable(spec, HOST):
        op = convgen.compile(spec, strategy.name, 1)
        got = op(x, w, bias, residual=residual, requantize=halves)
        assert got.dtype == np.int8
        np.testing.assert_array_equal(got, want)
        assert corpus.passes(op) == []
