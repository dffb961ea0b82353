"""winograd_weights: what it takes and refuses, its configurations, its errors, and kernels of every kind on the gates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convgen
from convgen import driver
from convgen.driver import Plan
from convgen.machine import Machine, machine_named
from convgen.operator import CompiledConv
from convgen.oracle import reference
from convgen.spec import ConvSpec
from convgen.strategies.accuracy import transform_limit
from convgen.strategies.registry import applicable
from convgen.strategies.winograd_weights import WinogradWeights
from convgen.strategies.winograd_weights_cost import gradient_error, gradient_shape
from convgen.transforms.split import axes_of
from convgen.tuning.space import Config
from convgen.verify import gate_a, normal_operands
from tests import corpus

HOST = Machine.host()
STRATEGY = WinogradWeights()

BASE: dict[str, Any] = dict(
    batch=2,
    in_channels=20,
    out_channels=18,
    spatial_size=(7, 9),
    kernel_size=3,
    padding=1,
    layout="channels_last",
    direction="backward_weights",
)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "channels first": dict(layout="channels_first"),
    "bfloat16": dict(dtype="bfloat16"),
    "groups with a stride": dict(groups=2, stride=2),
    "dilated": dict(dilation=(1, 2), padding=2),
    "transposed": dict(transposed=True, stride=2, kernel_size=4),
    "reflect": dict(padding_mode="reflect", kernel_size=5, padding=2),
    "a long line": dict(spatial_size=(40,), kernel_size=9, padding=4),
}


def problem(**fields: Any) -> ConvSpec:
    return ConvSpec(**{**BASE, **fields})


def of_each_kind(spec: ConvSpec, machine: Machine = HOST) -> list[Config]:
    """A configuration for each number of pixels and either way to divide the work."""
    kinds = {(config["m"], config["fused"]): config for config in reversed(STRATEGY.space(spec, machine))}
    return list(kinds.values())


@pytest.fixture
def _small_problems_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets problems of this size run on more than one thread."""
    monkeypatch.setattr(driver, "MIN_PARALLEL_MACS", 0)


@pytest.mark.usefixtures("_small_problems_in_parallel")
@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_kernels_pass_the_gates(fields: dict[str, Any]) -> None:
    spec = problem(**fields)
    for fused in (0, 1):
        config = next(config for config in STRATEGY.space(spec, HOST) if config["fused"] == fused)
        op = CompiledConv(Plan(spec, STRATEGY.name, config, "given"), HOST, 2)
        assert corpus.passes(op) == [], config


@pytest.mark.slow
@pytest.mark.parametrize("level", ["avx2", "generic"])
def test_every_kind_of_configuration_is_exact_at_every_feature_level(level: str) -> None:
    spec, machine = problem(), machine_named(level)
    for config in of_each_kind(spec, machine):
        op = CompiledConv(Plan(spec, STRATEGY.name, config, "given"), HOST, 1)
        found = gate_a(spec, op, np.random.default_rng(0), STRATEGY.algorithms(spec, config))
        assert found.ok, (config, found.reason)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (dict(direction="forward"), "direction='forward' is left to winograd"),
        (dict(dtype="int8"), "has no fractions"),
        (dict(batch=0), "nothing to sum"),
        (dict(accuracy="strict"), "accuracy='strict' admits no F"),
        (dict(accuracy=1e-7), "admits no F"),
        (dict(kernel_size=1, padding=0), "admits no F"),
        (dict(groups=2, in_channels=2), "leaves a single channel"),
        (dict(groups=10, out_channels=20), "too few channels"),
    ],
)
def test_what_it_refuses(fields: dict[str, Any], reason: str) -> None:
    assert reason in str(STRATEGY.refusal(problem(**fields), HOST))


def test_strict_sums_are_left_to_others() -> None:
    names = {strategy.name for strategy in applicable(problem(accuracy="strict"), HOST)}
    assert STRATEGY.name not in names
    assert convgen.compile(problem(accuracy="strict")).plan.strategy != STRATEGY.name


def test_every_core_has_a_task_and_every_share_a_block() -> None:
    for size in (8, 13, 56):
        spec = problem(batch=1, in_channels=64, out_channels=64, spatial_size=(size, size))
        for config in STRATEGY.space(spec, HOST):
            shape = gradient_shape(spec, axes_of(STRATEGY.algorithms(spec, config)))
            blocks = -(-shape.tiles // config["tiles"])
            shares = config["shares"]
            assert (shares - 1) * -(-blocks // shares) < blocks
            made, reduced = config["rows"] * config["pixels"], config["columns"] * config["lanes"]
            assert shares * -(-64 // made) * -(-64 // reduced) >= min(HOST.cores, blocks)


def test_sums_in_blocks_keep_long_sums_accurate() -> None:
    """One sum over all tiles of F(3, 4) in a row would not be accurate enough."""
    spec = problem(batch=1, in_channels=64, out_channels=64, spatial_size=(224, 224))
    taken = next(config for config in STRATEGY.space(spec, HOST) if config["m"] == 4)
    shape = gradient_shape(spec, axes_of(STRATEGY.algorithms(spec, taken)))
    assert gradient_error(spec, shape, shape.tiles, 1) > transform_limit(spec)
    assert gradient_error(spec, shape, taken["tiles"], taken["shares"]) <= STRATEGY.error_bound(spec)


@pytest.mark.parametrize("fused", [0, 1])
def test_errors_stay_below_the_bound(fused: int) -> None:
    spec = problem(batch=1, in_channels=16, out_channels=16, spatial_size=(58, 58))
    operands = normal_operands(spec, np.random.default_rng(0)).main
    expected = reference(spec, *operands)
    for m in (4, 6):
        config = next(c for c in STRATEGY.space(spec, HOST) if c["m"] == m and c["fused"] == fused)
        result = CompiledConv(Plan(spec, STRATEGY.name, config, "given"), HOST, 1)(*operands)
        error = float(np.linalg.norm(result - expected) / np.linalg.norm(expected))
        shape = gradient_shape(spec, axes_of(STRATEGY.algorithms(spec, config)))
        assert error < gradient_error(spec, shape, config["tiles"], config["shares"]) < 3 * error


@pytest.mark.usefixtures("_small_problems_in_parallel")
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    spec = problem(batch=3)
    operands = normal_operands(spec, np.random.default_rng(3)).main
    for fused in (0, 1):
        config = Config.of(m=4, pixels=8, lanes=16, rows=2, columns=1, tiles=4, shares=3, fused=fused)
        plan = Plan(spec, STRATEGY.name, config, "given")
        results = [CompiledConv(plan, HOST, threads)(*operands) for threads in (1, 2, 3)]
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])
