"""Fast algorithms before the gates: honest ones pass in every type, and wrong ones of each kind are caught."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from convgen.dtypes import DTYPES
from convgen.oracle import apply_step
from convgen.spec import ConvSpec, Epilogue
from convgen.tolerance import error_limit, exactness_rule
from convgen.transforms.bilinear import AxisAlgorithm, direct
from convgen.transforms.fourier import fourier
from convgen.transforms.toom_cook import winograd
from convgen.verify import Run, expect_integers, gate_a, gate_b, gate_c, integer_operands

UNIT = 2.0**-24
Axes = tuple[AxisAlgorithm, ...]
ALGORITHMS: list[Axes] = [
    (winograd(2, 3), winograd(2, 3)),
    (winograd(4, 3), winograd(4, 3)),
    (winograd(6, 3), winograd(6, 3)),
    (winograd(4, 3), direct(1, 3)),
    (winograd(2, 5), winograd(2, 5)),
    (winograd(4, 5), winograd(4, 5)),
    (fourier(4, 5, 8), fourier(4, 5, 8)),
    (winograd(4, 3),),
    (winograd(2, 3), winograd(4, 3), winograd(2, 3)),
]
IDS = ["×".join(a.name for a in algorithms) for algorithms in ALGORITHMS]


def make_spec(algorithms: Axes, tiles: int = 2, **fields: Any) -> ConvSpec:
    """A problem whose image is cut into whole tiles."""
    size = tuple(a.outputs * tiles + a.taps - 1 for a in algorithms)
    base = dict(
        batch=2, in_channels=8, out_channels=6, spatial_size=size, kernel_size=tuple(a.taps for a in algorithms)
    )
    return ConvSpec(**{**base, **fields})


def kernel(spec: ConvSpec, algorithms: Axes, weight_error: float = 0.0) -> Run:
    """Computes tile by tile in the accumulator's type; ``weight_error`` disturbs one point of the weights."""
    dtype = DTYPES[DTYPES[spec.dtype].accumulator].numpy

    def run(x: np.ndarray, w: np.ndarray, **epilogue: np.ndarray) -> np.ndarray:
        y = np.zeros(spec.output_shape, dtype)
        w = transform(w.astype(dtype), "weight")
        w.reshape(*w.shape[:2], -1)[..., -1] *= dtype.type(1 + weight_error)
        for tile in np.ndindex(*(size // a.outputs for size, a in zip(spec.output_size, algorithms, strict=True))):
            starts = [t * a.outputs for t, a in zip(tile, algorithms, strict=True)]
            read = tuple(slice(s, s + a.tile) for s, a in zip(starts, algorithms, strict=True))
            write = tuple(slice(s, s + a.outputs) for s, a in zip(starts, algorithms, strict=True))
            points = transform(x[:, :, *read].astype(dtype), "input")
            y[:, :, *write] = transform(np.einsum("nc...,oc...->no...", points, w), "output")
        result = y.astype(np.float64)
        for step in spec.epilogue.steps:
            result = apply_step(spec, step, result, epilogue.get(step))
        return result.astype(DTYPES[DTYPES[spec.dtype].result].numpy)

    def transform(values: np.ndarray, name: str) -> np.ndarray:
        for axis, algorithm in enumerate(algorithms, start=2):
            values = getattr(algorithm, name).apply(values, axis)
        return values

    return run


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("algorithms", ALGORITHMS, ids=IDS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_honest_algorithms_pass(algorithms: Axes, dtype: str) -> None:
    for epilogue in ((), ("bias", "relu"), ("scale", "shift", "residual", "silu")):
        spec = make_spec(algorithms, dtype=dtype, epilogue=Epilogue(epilogue))
        for gate in (gate_a, gate_b):
            comparison = gate(spec, kernel(spec, algorithms), rng(), algorithms)
            assert comparison.ok, f"{gate.__name__} {epilogue}: {comparison.reason}"


@pytest.mark.parametrize("algorithms", ALGORITHMS[:4], ids=IDS[:4])
def test_honest_algorithms_pass_with_many_channels(algorithms: Axes) -> None:
    spec = make_spec(algorithms, tiles=1, batch=1, in_channels=512)
    for gate in (gate_a, gate_b):
        comparison = gate(spec, kernel(spec, algorithms), rng(), algorithms)
        assert comparison.ok, comparison.reason


@pytest.mark.parametrize("algorithms", ALGORITHMS, ids=IDS)
def test_a_single_wrong_product_fails_gate_a(algorithms: Axes) -> None:
    spec = make_spec(algorithms, in_channels=256)
    honest = kernel(spec, algorithms)

    def one_tap_too_few(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        without = w.copy()
        without[0, 0].flat[0] = 0
        return honest(x, without)

    assert not gate_a(spec, one_tap_too_few, rng(), algorithms).ok


@pytest.mark.parametrize("algorithms", ALGORITHMS, ids=IDS)
def test_a_point_that_is_slightly_wrong_fails_gate_b(algorithms: Axes) -> None:
    spec = make_spec(algorithms)
    assert not gate_b(spec, kernel(spec, algorithms, weight_error=1e-2), rng(), algorithms).ok


def test_errors_that_are_many_but_small_fail_by_their_norm() -> None:
    algorithms = ALGORITHMS[0]
    spec = make_spec(algorithms)
    honest = kernel(spec, algorithms)
    noise = np.random.default_rng(0)

    def noisy(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        y = honest(x, w)
        return (y + 12 * UNIT * math.sqrt(72) * noise.choice((-1, 1), y.shape)).astype(np.float32)

    comparison = gate_b(spec, noisy, rng(), algorithms)
    assert not comparison.ok
    assert "L2 norm" in comparison.reason


def test_exact_algorithms_must_be_equal_and_others_after_rounding() -> None:
    for algorithms, exact in ((ALGORITHMS[0], True), (ALGORITHMS[1], False)):
        spec = make_spec(algorithms)
        operands = integer_operands(spec, rng(), algorithms)
        bound = expect_integers(spec, operands, algorithms).bound
        multiple = exactness_rule(algorithms, 72, "float32").weight_multiple
        assert (operands.main[1] % multiple == 0).all()
        assert (bound == 0).all() == exact
        assert (bound < multiple / 2).all()


@pytest.mark.parametrize(
    ("algorithms", "multiple", "rounded"),
    [
        ((), 1, False),
        (ALGORITHMS[0], 4, False),
        (ALGORITHMS[1], 576, True),
        (ALGORITHMS[2], 8100, True),
        (ALGORITHMS[4], 576, True),
        (ALGORITHMS[5], 8100, True),
        (ALGORITHMS[6], 1, True),
    ],
)
def test_integers_of_gate_a(algorithms: Axes, multiple: int, rounded: bool) -> None:
    rule = exactness_rule(algorithms, 9 * 64, "float32")
    assert (rule.weight_multiple, rule.is_rounded) == (multiple, rounded)


@pytest.mark.parametrize(
    ("algorithms", "limit"),
    [
        (ALGORITHMS[0], 6 * math.sqrt(2)),
        (ALGORITHMS[1], 50 * math.sqrt(2)),
        (ALGORITHMS[2], 85 * math.sqrt(2)),
        (ALGORITHMS[3], 50 * math.sqrt(2)),
        (ALGORITHMS[5], 90 * math.sqrt(2)),
        (ALGORITHMS[6], 25),
    ],
)
def test_limits_of_gate_b(algorithms: Axes, limit: float) -> None:
    taps = math.prod(a.taps for a in algorithms)
    assert error_limit(algorithms, 16 * taps, "float32") == pytest.approx(limit * UNIT)
    assert error_limit(algorithms, 16 * taps, "float16") == pytest.approx(limit * UNIT)
    assert error_limit(algorithms, 16 * taps, "float64") == pytest.approx(limit * 2.0**-53)


def test_the_adjoint_identity_may_be_rounded() -> None:
    spec = ConvSpec(batch=1, in_channels=1, out_channels=1, spatial_size=4, kernel_size=1)

    def nearly(scale: np.ndarray, x: np.ndarray) -> np.ndarray:
        return (scale * x * (1 + 4 * UNIT)).astype(np.float32)

    def forward(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return nearly(w.reshape(1), x)

    def weights(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
        return nearly(np.ones(1), (x * dy).sum(keepdims=True))

    assert not gate_c(spec, forward, forward, weights, rng()).ok
    assert gate_c(spec, forward, forward, weights, rng(), rounded=True).ok
