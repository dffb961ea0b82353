"""Error bounds against what is measured: never below it, and not far above."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convgen.transforms.bilinear import AxisAlgorithm, direct
from convgen.transforms.error import growth, is_exact, magnified, plain_error, relative_error, weight_multiple
from convgen.transforms.fourier import fourier
from convgen.transforms.toom_cook import winograd

UNIT = 2.0**-24
ALGORITHMS = [
    *(winograd(*size) for size in ((2, 3), (3, 3), (4, 3), (6, 3), (8, 3), (2, 5), (4, 5))),
    *(fourier(*size) for size in ((6, 3, 8), (8, 9, 16), (10, 15, 24))),
]


def compute(algorithms: tuple[AxisAlgorithm, ...], x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Correlates (tiles, channels, *tile) with (tiles, channels, *taps) in the operands' type."""
    for axis, algorithm in enumerate(algorithms, start=2):
        x, w = algorithm.input.apply(x, axis), algorithm.weight.apply(w, axis)
    points = np.zeros((x.shape[0], *x.shape[2:]), x.dtype)
    for channel in range(x.shape[1]):
        products = x[:, channel].astype(np.float64) * w[:, channel].astype(np.float64)
        points = (points + products).astype(x.dtype)
    for axis, algorithm in enumerate(algorithms, start=1):
        points = algorithm.output.apply(points, axis)
    return points


def operands(algorithms: tuple[AxisAlgorithm, ...], channels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(channels)
    # So many tiles that chance averages out.
    tiles = max(6, 1000 // math.prod(algorithm.outputs for algorithm in algorithms))
    x = rng.standard_normal((tiles, channels, *(a.tile for a in algorithms))).astype(np.float32)
    w = rng.standard_normal((tiles, channels, *(a.taps for a in algorithms))).astype(np.float32)
    return x, w


def axes(algorithm: AxisAlgorithm) -> list[tuple[AxisAlgorithm, ...]]:
    found = [(algorithm,), (algorithm, algorithm), (algorithm, direct(1, 1)), (direct(1, 3), algorithm)]
    return [*found, (algorithm,) * 3] if algorithm.tile < 9 else found


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
def test_relative_error_is_above_what_is_measured_by_less_than_three(algorithm: AxisAlgorithm) -> None:
    for algorithms in axes(algorithm):
        for channels in (4, 32):
            x, w = operands(algorithms, channels)
            exact = compute(algorithms, x.astype(np.float64), w.astype(np.float64))
            measured = float(np.linalg.norm(compute(algorithms, x, w) - exact) / np.linalg.norm(exact))
            bound = relative_error(algorithms, channels, UNIT)
            assert measured <= bound
            assert bound <= 3 * measured


@pytest.mark.parametrize(
    ("algorithm", "axes", "admitted"),
    [
        (winograd(2, 3), 3, True),
        (winograd(4, 3), 2, True),
        (winograd(2, 5), 2, True),
        (winograd(6, 3), 2, True),
        (winograd(8, 3), 1, True),
        (winograd(4, 3), 3, False),
        (winograd(6, 3), 3, False),
        (winograd(8, 3), 2, False),
        (fourier(18, 31, 48), 2, True),
    ],
)
def test_what_the_accuracy_fast_admits(algorithm: AxisAlgorithm, axes: int, admitted: bool) -> None:
    for channels in (1, 16, 512):
        limit = 50 * UNIT * math.sqrt(1 + channels / 16)
        assert (relative_error((algorithm,) * axes, channels, UNIT) <= limit) == admitted


def test_the_direct_algorithm_has_the_error_of_a_sum() -> None:
    bound = relative_error((direct(1, 3), direct(1, 3)), 64, UNIT)
    assert 0.1 * math.sqrt(9 * 64) * UNIT < bound < math.sqrt(9 * 64) * UNIT


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
def test_every_element_is_within_its_own_bound(algorithm: AxisAlgorithm) -> None:
    for algorithms in axes(algorithm):
        x, w = (operand[:4] for operand in operands(algorithms, 16))
        exact = compute(algorithms, x.astype(np.float64), w.astype(np.float64))
        error = np.abs(compute(algorithms, x, w) - exact)
        bound = np.stack([magnified(algorithms, *pair) for pair in zip(x, w, strict=True)])
        assert (error <= (8 + 4) * UNIT * bound).all()
        assert (np.abs(exact) <= bound).all()


@pytest.mark.parametrize(
    ("algorithm", "multiple", "exact"),
    [
        (direct(2, 3), 1, True),
        (winograd(2, 3), 2, True),
        (winograd(4, 3), 24, False),
        (winograd(2, 5), 24, False),
        (winograd(6, 3), 90, False),
        (winograd(4, 5), 90, False),
        (fourier(6, 3, 8), 1, False),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_weights_of_which_integers_stay_integers(algorithm: AxisAlgorithm, multiple: int, exact: bool) -> None:
    assert weight_multiple(algorithm) == multiple
    assert is_exact(algorithm) == exact


def test_integers_within_the_growth_are_exact() -> None:
    algorithms = (winograd(2, 3), winograd(2, 3))
    multiple, rng = 4, np.random.default_rng(0)
    amplitude = int(2**24 / (4 * growth(algorithms[0]) ** 2))
    x = rng.choice((-amplitude, amplitude), (8, 4, 4, 4)).astype(np.float32)
    w = (multiple * rng.choice((-1, 1), (8, 4, 3, 3))).astype(np.float32)
    exact = compute(algorithms, x.astype(np.float64), w.astype(np.float64))
    assert (compute(algorithms, x, w) == exact).all()
    assert growth(direct(1, 3)) == 3


@pytest.mark.parametrize("terms", [1, 9, 100, 2000])
def test_the_error_of_plain_sums_is_above_what_is_measured_by_less_than_three(terms: int) -> None:
    rng = np.random.default_rng(terms)
    x, w = (rng.standard_normal((4000, terms)).astype(np.float32) for _ in range(2))
    total = np.zeros(4000, np.float32)
    for term in range(terms):
        product = x[:, term].astype(np.float64) * w[:, term]
        total = (total + product).astype(np.float32)
    exact = np.sum(x.astype(np.float64) * w, axis=1)
    measured = float(np.linalg.norm(total - exact) / np.linalg.norm(exact))
    assert measured <= plain_error(terms, 2.0**-24) <= 3 * measured
