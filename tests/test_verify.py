"""The gates: honest kernels of every dtype pass, and each kind of wrong kernel is caught and described."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convgen.dtypes import DTYPES, OPERAND_DTYPES
from convgen.errors import SpecError
from convgen.oracle import apply_step, convolve, magnitude, reference
from convgen.spec import ACTIVATIONS, DIRECTIONS, LAYOUTS, ConvSpec, Epilogue
from convgen.verify import (
    Comparison,
    Operands,
    Run,
    compare_bounded,
    compare_exact,
    gate_a,
    gate_b,
    gate_c,
    integer_operands,
    normal_operands,
    reduction_length,
)

INEXACT = ("silu", "gelu", "hardswish", "sigmoid", "tanh")


def make_spec(**fields: Any) -> ConvSpec:
    base: dict[str, Any] = dict(batch=2, in_channels=8, out_channels=6, spatial_size=(6, 5), kernel_size=3, padding=1)
    return ConvSpec(**{**base, **fields})


def honest(spec: ConvSpec) -> Run:
    """A kernel that rounds once, when it stores its result."""

    def run(*operands: np.ndarray, **epilogue: np.ndarray) -> np.ndarray:
        return reference(spec, *operands, **epilogue).astype(DTYPES[DTYPES[spec.dtype].result].numpy)

    return run


def spoiled(spec: ConvSpec, spoil: Callable[..., np.ndarray]) -> Run:
    """A kernel whose operands or result pass through ``spoil``."""

    def run(*operands: np.ndarray, **epilogue: np.ndarray) -> np.ndarray:
        return spoil(honest(spec), *operands, **epilogue)

    return run


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def judge_directions(spec: ConvSpec, runs: list[Run]) -> Comparison:
    forward, backward_data, backward_weights = runs
    return gate_c(spec, forward, backward_data, backward_weights, rng())


def float32_sums(spec: ConvSpec, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """A forward kernel without padding that adds one product after another in float32."""
    result = np.zeros(spec.output_shape, np.float32)
    rows, columns = spec.output_size
    for channel in range(spec.in_channels):
        for i, j in np.ndindex(*spec.kernel_size):
            window = x[:, channel, None, i : i + rows, j : j + columns]
            result += window * w[None, :, channel, i, j, None, None]
    return result


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", OPERAND_DTYPES)
def test_honest_kernels_pass_both_gates(dtype: str, direction: str) -> None:
    for more in ({}, {"groups": 2, "layout": "channels_last", "stride": 2}, {"transposed": True}, {"batch": 0}):
        spec = make_spec(dtype=dtype, direction=direction, **more)
        for gate in (gate_a, gate_b):
            comparison = gate(spec, honest(spec), rng())
            assert comparison.ok, comparison.reason


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_honest_epilogues_pass_both_gates(activation: str, dtype: str) -> None:
    spec = make_spec(dtype=dtype, epilogue=("scale", "shift", activation, "residual", "bias"))
    for gate in (gate_a, gate_b):
        comparison = gate(spec, honest(spec), rng())
        assert comparison.ok, comparison.reason


@pytest.mark.parametrize("slope", [0.01, 2.0**-20, 1.0, 0.0, -3.0])
def test_every_slope_of_leaky_relu_can_be_judged(slope: float) -> None:
    epilogue = Epilogue(("leaky_relu", "bias", "leaky_relu", "residual"), negative_slope=slope)
    spec = make_spec(dtype="bfloat16", epilogue=epilogue)
    comparison = gate_a(spec, honest(spec), rng())
    assert comparison.ok, comparison.reason


def test_sequential_float32_sums_pass() -> None:
    spec = make_spec(in_channels=256, padding=0)
    exact = gate_a(spec, lambda x, w: float32_sums(spec, x, w), rng())
    assert exact.ok
    assert exact.max_abs_error == 0
    bounded = gate_b(spec, lambda x, w: float32_sums(spec, x, w), rng())
    assert bounded.ok
    assert bounded.max_abs_error > 0
    assert 0 < bounded.relative_l2 < 1e-5


@pytest.mark.parametrize("dtype", OPERAND_DTYPES)
def test_gate_a_catches_one_wrong_element_among_512_channels(dtype: str) -> None:
    spec = make_spec(batch=1, in_channels=512, out_channels=2, dtype=dtype)
    one = DTYPES[dtype].numpy.type(1)

    def spoil(run: Run, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        w = w.copy()
        w[1, 300, 2, 0] += one if w[1, 300, 2, 0] < 0 else -one
        return run(x, w)

    comparison = gate_a(spec, spoiled(spec, spoil), rng())
    assert not comparison.ok
    assert comparison.worst_index is not None
    assert comparison.worst_index[1] == 1


@pytest.mark.parametrize("activation", INEXACT)
def test_gate_a_catches_a_dropped_channel_before_an_inexact_activation(activation: str) -> None:
    spec = make_spec(batch=1, in_channels=512, out_channels=32, spatial_size=(9, 9), epilogue=(activation,))

    def spoil(run: Run, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        x = x.copy()
        x[:, 511] = 0
        return run(x, w)

    assert not gate_a(spec, spoiled(spec, spoil), rng()).ok


def test_gate_a_allows_no_rounding_of_the_sum_before_an_inexact_activation() -> None:
    spec = make_spec(in_channels=512, epilogue=("silu",))

    def spoil(run: Run, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        result = run(x, w)
        return np.where(result > 10, result + np.float32(0.01), result)

    assert not gate_a(spec, spoiled(spec, spoil), rng()).ok


def test_gate_b_follows_the_error_of_a_sum_through_a_steep_activation() -> None:
    """The same relative error of a sum is accepted with and without an activation that magnifies it."""
    for epilogue in (Epilogue(), Epilogue(("leaky_relu",), negative_slope=8.0)):
        spec = make_spec(epilogue=epilogue)

        def run(x: np.ndarray, w: np.ndarray, spec: ConvSpec = spec) -> np.ndarray:
            allowed = 4 * np.sqrt(reduction_length(spec)) * 2.0**-24 * magnitude(spec, x, w)
            value = convolve(spec, x, w) - 0.95 * allowed
            for step in spec.epilogue.steps:
                value = apply_step(spec, step, value)
            return value.astype(np.float32)

        comparison = gate_b(spec, run, rng())
        assert comparison.ok, comparison.reason


def test_gates_name_the_wrong_result_element() -> None:
    spec = make_spec()

    def spoil(run: Run, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        result = run(x, w)
        result[1, 4, 2, 3] += 1
        return result

    for gate in (gate_a, gate_b):
        comparison = gate(spec, spoiled(spec, spoil), rng())
        assert not comparison.ok
        assert comparison.worst_index == (1, 4, 2, 3)
        assert comparison.max_abs_error == pytest.approx(1, rel=1e-5)
        assert "1 of 360 elements are wrong, the worst at (1, 4, 2, 3)" in comparison.reason


def test_gate_b_catches_16_bit_products() -> None:
    spec = make_spec(in_channels=64)

    def spoil(run: Run, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return run(x.astype(np.float16), w)

    assert not gate_b(spec, spoiled(spec, spoil), rng()).ok


@pytest.mark.parametrize("gate", [gate_a, gate_b])
def test_not_a_number_is_never_right(gate: Callable[..., Any]) -> None:
    spec = make_spec()

    def spoil(run: Run, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        result = run(x, w)
        result[0, 0, 0, 0] = np.nan
        return result

    comparison = gate(spec, spoiled(spec, spoil), rng())
    assert not comparison.ok
    assert comparison.worst_index == (0, 0, 0, 0)


@pytest.mark.parametrize("gate", [gate_a, gate_b])
def test_dtype_and_shape_are_checked(gate: Callable[..., Any]) -> None:
    spec = make_spec()
    wide = gate(spec, spoiled(spec, lambda run, x, w: run(x, w).astype(np.float64)), rng())
    assert (wide.ok, wide.reason) == (False, "the result's dtype is float64, float32 is expected")
    short = gate(spec, spoiled(spec, lambda run, x, w: run(x, w)[1:]), rng())
    assert (short.ok, short.reason) == (False, "the result's shape is (1, 6, 6, 5), (2, 6, 6, 5) is expected")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", OPERAND_DTYPES)
def test_integer_operands_are_exact(dtype: str, direction: str) -> None:
    spec = make_spec(batch=1, in_channels=700, out_channels=3, dtype=dtype, direction=direction)
    operands = integer_operands(spec, rng())
    accumulator, result = DTYPES[DTYPES[dtype].accumulator], DTYPES[DTYPES[dtype].result].numpy
    limit = 2.0**31 if accumulator.unit_roundoff == 0 else 1 / accumulator.unit_roundoff
    assert magnitude(spec, *operands.main).max() < limit
    expected = reference(spec, *operands.main)
    np.testing.assert_array_equal(expected.astype(result).astype(np.float64), expected)
    assert np.count_nonzero(expected) > expected.size // 2
    assert all(array.dtype == DTYPES[dtype].numpy for array in operands.main)
    assert np.all(operands.main[1].astype(np.float64) != 0)


def test_integer_operands_of_long_bfloat16_sums_stay_representable() -> None:
    spec = make_spec(batch=1, in_channels=4, out_channels=4, spatial_size=(90, 90), dtype="bfloat16")
    spec = spec.replace(direction="backward_weights")
    expected = reference(spec, *integer_operands(spec, rng()).main)
    assert reduction_length(spec) == 8100
    assert 0 < np.abs(expected).max() <= 256


def test_integer_operands_are_thinned_until_an_exact_epilogue_stays_representable() -> None:
    spec = make_spec(in_channels=280, epilogue=("scale", "bias"), dtype="bfloat16", spatial_size=(20, 20))
    operands = integer_operands(spec, rng())
    expected = reference(spec, *operands.main, **operands.epilogue)
    np.testing.assert_array_equal(expected.astype(DTYPES["bfloat16"].numpy).astype(np.float64), expected)


def test_operands_have_the_types_of_a_call() -> None:
    spec = make_spec(dtype="int8", epilogue=("residual", "bias", "relu"), layout=LAYOUTS[1])
    for operands in (integer_operands(spec, rng()), normal_operands(spec, rng())):
        assert [array.dtype.name for array in operands.main] == ["int8", "int8"]
        assert {name: (a.dtype.name, a.shape) for name, a in operands.epilogue.items()} == {
            "bias": ("int32", (6,)),
            "residual": ("int32", (2, 6, 5, 6)),
        }


@pytest.mark.parametrize(
    ("direction", "transposed", "length"),
    [
        ("forward", False, 4 * 9),
        ("backward_data", False, 3 * 9),
        ("backward_weights", False, 2 * 3 * 3),
        ("forward", True, 4 * 9),
        ("backward_data", True, 3 * 9),
        ("backward_weights", True, 2 * 6 * 5),
    ],
)
def test_reduction_length(direction: str, transposed: bool, length: int) -> None:
    spec = make_spec(groups=2, stride=2, direction=direction, transposed=transposed)
    assert reduction_length(spec) == length


def test_the_bound_is_the_sharper_of_both() -> None:
    x, w = np.ones((1, 1, 3), np.float32), np.full((1, 1, 1), 3, np.float32)
    spec = ConvSpec(batch=1, in_channels=1, out_channels=1, spatial_size=3, kernel_size=1)
    run = honest(spec)
    u = 2.0**-24
    comparison = compare_bounded(run(x, w), spec, Operands((x, w)))
    assert comparison.bound == pytest.approx(2 * u * 3 + u * 3, rel=1e-6)
    spec = ConvSpec(batch=1, in_channels=100, out_channels=1, spatial_size=3, kernel_size=1)
    operands = normal_operands(spec, rng())
    comparison = compare_bounded(honest(spec)(*operands.main), spec, operands)
    assert comparison.worst_index is not None
    size, value = (f(spec, *operands.main)[comparison.worst_index] for f in (magnitude, convolve))
    assert comparison.bound == pytest.approx(4 * 10 * u * size + u * abs(value), rel=1e-5)


def test_compare_exact_takes_nan_for_nan_and_infinity_for_infinity() -> None:
    expected = np.array([1, np.nan, np.inf, -np.inf], np.float32)
    assert compare_exact(expected.copy(), expected).ok
    comparison = compare_exact(np.array([1, np.nan, np.inf, np.inf], np.float32), expected)
    assert (comparison.ok, comparison.worst_index) == (False, (3,))


@pytest.mark.parametrize("dtype", OPERAND_DTYPES)
@pytest.mark.parametrize("more", [{}, {"padding_mode": "reflect"}, {"transposed": True, "stride": 2}, {"groups": 2}])
def test_gate_c_passes_honest_directions(dtype: str, more: dict[str, Any]) -> None:
    spec = make_spec(dtype=dtype, **more)
    runs = [honest(spec.replace(direction=direction)) for direction in DIRECTIONS]
    comparison = judge_directions(spec, runs)
    assert comparison.ok, comparison.reason


@pytest.mark.parametrize("wrong", range(3))
def test_gate_c_catches_a_wrong_direction(wrong: int) -> None:
    spec = make_spec(in_channels=512)
    runs = [honest(spec.replace(direction=direction)) for direction in DIRECTIONS]

    def spoil(run: Run, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        result = run(first, second)
        result.flat[result.size // 2] += 1
        return result

    runs[wrong] = spoiled(spec.replace(direction=DIRECTIONS[wrong]), spoil)
    comparison = judge_directions(spec, runs)
    assert not comparison.ok
    assert comparison.max_abs_error >= 1
    assert "inner products" in comparison.reason


def test_gate_c_refuses_what_is_not_integers() -> None:
    spec = make_spec()
    runs = [honest(spec.replace(direction=direction)) for direction in DIRECTIONS]
    for value in (0.5, np.inf, np.nan):
        broken = spoiled(spec, lambda run, x, w, value=value: run(x, w) + np.float32(value))
        comparison = judge_directions(spec, [broken, *runs[1:]])
        assert (comparison.ok, comparison.reason) == (False, "forward: the result of integers is not integers")
    wide_forward = spoiled(spec, lambda run, x, w: run(x, w).astype(np.float64))
    wide = judge_directions(spec, [wide_forward, *runs[1:]])
    assert (wide.ok, wide.reason) == (False, "forward: the result's dtype is float64, float32 is expected")


def test_gate_c_needs_a_plain_forward_problem() -> None:
    for spec in (make_spec(epilogue=Epilogue(("relu",))), make_spec(direction="backward_data")):
        with pytest.raises(SpecError, match="no adjoint identity"):
            gate_c(spec, honest(spec), honest(spec), honest(spec), rng())
