"""Winograd's algorithms: exactly a correlation, with few points and few operations."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from convgen.errors import SpecError
from convgen.transforms.bilinear import AxisAlgorithm, direct
from convgen.transforms.linear import LinearProgram
from convgen.transforms.toom_cook import POINTS, winograd, winograd_gradient


def random_fractions(*shape: int) -> np.ndarray:
    numbers = np.random.default_rng(sum(shape)).integers(-9, 10, (2, *shape))
    pairs = zip(numbers[0].flat, numbers[1].flat, strict=True)
    return np.array([Fraction(int(a), 10 + int(b)) for a, b in pairs], object).reshape(shape)


def correlate(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    outputs = tuple(a - b + 1 for a, b in zip(x.shape, w.shape, strict=True))
    windows = (
        x[tuple(slice(i, i + m) for i, m in zip(tap, outputs, strict=True))] * w[tap] for tap in np.ndindex(w.shape)
    )
    return sum(windows, np.zeros(outputs, object))


def compute(algorithms: tuple[AxisAlgorithm, ...], x: np.ndarray, w: np.ndarray) -> np.ndarray:
    for axis, algorithm in enumerate(algorithms):
        x, w = algorithm.input.apply(x, axis), algorithm.weight.apply(w, axis)
    y = x * w
    for axis, algorithm in enumerate(algorithms):
        y = algorithm.output.apply(y, axis)
    return y


@pytest.mark.parametrize("taps", range(1, 7))
@pytest.mark.parametrize("outputs", range(1, 8))
def test_it_is_exactly_a_correlation(outputs: int, taps: int) -> None:
    algorithm = winograd(outputs, taps)
    x, w = random_fractions(algorithm.tile), random_fractions(taps)
    assert (compute((algorithm,), x, w) == correlate(x, w)).all()
    assert algorithm.points == algorithm.tile == outputs + taps - 1


@pytest.mark.parametrize("pixels", range(1, 7))
@pytest.mark.parametrize("taps", range(1, 6))
def test_a_gradient_keeps_its_denominators_for_the_sums(taps: int, pixels: int) -> None:
    algorithm = winograd_gradient(taps, pixels)
    x, w = random_fractions(algorithm.tile), random_fractions(pixels)
    assert (compute((algorithm,), x, w) == correlate(x, w)).all()
    for program in (algorithm.input, algorithm.weight):
        denominators = {Fraction(entry).denominator for row in program.matrix() for entry in row}
        assert all(denominator & (denominator - 1) == 0 for denominator in denominators)


@pytest.mark.parametrize(
    "algorithms",
    [
        (winograd(2, 3), winograd(4, 3)),
        (winograd(1, 1), winograd(4, 5)),
        (winograd(2, 2), direct(2, 3), winograd(3, 1)),
    ],
)
def test_axes_of_any_algorithms_combine(algorithms: tuple[AxisAlgorithm, ...]) -> None:
    x, w = random_fractions(*(a.tile for a in algorithms)), random_fractions(*(a.taps for a in algorithms))
    assert (compute(algorithms, x, w) == correlate(x, w)).all()


@pytest.mark.parametrize(
    ("outputs", "taps", "most"),
    [
        (2, 3, (4, 6, 4)),  # Lavin and Gray, section 4.1
        (4, 3, (12, 11, 10)),
        (6, 3, (24, 16, 20)),
        (2, 5, (12, 15, 8)),
        (4, 5, (24, 22, 16)),
        (8, 3, (40, 21, 34)),
    ],
)
def test_transforms_take_few_operations(outputs: int, taps: int, most: tuple[int, int, int]) -> None:
    algorithm = winograd(outputs, taps)
    programs = (algorithm.input, algorithm.weight, algorithm.output)
    assert all(program.operations.total <= count for program, count in zip(programs, most, strict=True))


def denominator(program: LinearProgram) -> int:
    return math.lcm(*(Fraction(entry).denominator for row in program.matrix() for entry in row))


@pytest.mark.parametrize(("outputs", "taps", "weight"), [(2, 3, 2), (4, 3, 24), (2, 5, 24), (6, 3, 90), (4, 5, 90)])
def test_denominators_are_in_the_weights(outputs: int, taps: int, weight: int) -> None:
    algorithm = winograd(outputs, taps)
    assert denominator(algorithm.weight) == weight
    dyadic = denominator(algorithm.input) * denominator(algorithm.output)
    assert dyadic & (dyadic - 1) == 0
    assert dyadic == 1 or outputs + taps > 7


def test_the_largest_tile_and_the_first_beyond() -> None:
    largest = len(POINTS) + 1
    assert winograd(largest - 2, 3).points == largest
    with pytest.raises(SpecError, match=f"need a tile of {largest + 1}; allowed: {largest} or less"):
        winograd(largest - 1, 3)


@pytest.mark.parametrize(("outputs", "taps"), [(0, 3), (2, 0), (-1, 2), (2.5, 3)])
def test_sizes_are_checked(outputs: Any, taps: int) -> None:
    with pytest.raises(SpecError, match="allowed: integers above 0"):
        winograd(outputs, taps)


def test_an_algorithm_whose_maps_do_not_fit_is_refused() -> None:
    good = winograd(2, 3)
    with pytest.raises(SpecError, match="points in its maps"):
        AxisAlgorithm("bad", 2, 3, good.input, good.weight, winograd(2, 4).output)
    with pytest.raises(SpecError, match="maps of other sizes"):
        AxisAlgorithm("bad", 2, 2, good.input, good.weight, good.output)
    with pytest.raises(SpecError, match="reads 2 values; allowed: 3 or more"):
        AxisAlgorithm(
            "bad", 2, 2, LinearProgram(2, (), (0, 1)), LinearProgram(2, (), (0, 1)), LinearProgram(2, (), (0, 1))
        )
