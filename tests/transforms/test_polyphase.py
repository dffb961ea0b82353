"""Strides and long filters by shorter algorithms: the identities, in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from convgen.errors import SpecError
from convgen.transforms.bilinear import AxisAlgorithm, direct
from convgen.transforms.polyphase import pieces, runs, spread, strided
from convgen.transforms.toom_cook import winograd, winograd_gradient


def exact(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.array([Fraction(int(value)) for value in rng.integers(-9, 10, size)], dtype=object)


def assert_correlates(algorithm: AxisAlgorithm, stride: int, step: int = 1) -> None:
    rng = np.random.default_rng(algorithm.points)
    x, w = exact(rng, algorithm.tile), exact(rng, algorithm.taps)
    want = [sum(x[stride * i + step * j] * w[j] for j in range(algorithm.taps)) for i in range(algorithm.outputs)]
    points = algorithm.weight.apply(w, 0) * algorithm.input.apply(x, 0)
    assert list(algorithm.output.apply(points, 0)) == want


@pytest.mark.parametrize("outputs", [1, 2, 4])
@pytest.mark.parametrize(("taps", "stride"), [(1, 2), (2, 2), (3, 1), (3, 2), (3, 3), (4, 2), (7, 2), (2, 3), (10, 5)])
def test_strided(outputs: int, taps: int, stride: int) -> None:
    algorithm = strided(winograd, outputs, taps, stride)
    assert algorithm.tile == (outputs - 1) * stride + taps
    assert_correlates(algorithm, stride)


@pytest.mark.parametrize("lengths", [(3,), (3, 2), (3, 3, 3), (1, 4, 2)])
def test_pieces(lengths: tuple[int, ...]) -> None:
    algorithm = pieces(winograd, 4, lengths)
    assert algorithm.points == sum(winograd(4, length).points for length in lengths)
    assert_correlates(algorithm, 1)


@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize(("outputs", "step"), [(1, 2), (2, 2), (3, 1), (3, 2), (3, 3), (4, 2), (7, 2), (2, 3), (10, 5)])
def test_spread(taps: int, outputs: int, step: int) -> None:
    algorithm = spread(winograd_gradient, outputs, taps, step)
    assert algorithm.tile == (taps - 1) * step + outputs
    assert_correlates(algorithm, 1, step)


@pytest.mark.parametrize("lengths", [(3,), (3, 2), (3, 3, 3), (1, 4, 2)])
def test_runs(lengths: tuple[int, ...]) -> None:
    algorithm = runs(winograd_gradient, lengths, 4)
    assert algorithm.points == sum(winograd(length, 4).points for length in lengths)
    assert_correlates(algorithm, 1)


def test_a_stride_of_a_long_filter_saves_products() -> None:
    assert strided(winograd, 4, 3, 2).points == 5 + 4
    assert strided(direct, 4, 3, 2).points == 4 * 3


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(SpecError, match="stride=0 is not valid"):
        strided(winograd, 2, 3, 0)
    with pytest.raises(SpecError, match="lengths="):
        pieces(winograd, 2, ())
    with pytest.raises(SpecError, match="step=0 is not valid"):
        spread(winograd_gradient, 2, 3, 0)
    with pytest.raises(SpecError, match="lengths="):
        runs(winograd_gradient, (), 2)
