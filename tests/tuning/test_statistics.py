"""Intervals hold the median as often as they say, and pairs cancel what slows a round down."""

from __future__ import annotations

import math
import random

import pytest

from convgen.tuning.statistics import LEVEL, Interval, median_interval, noise, ratio_interval


@pytest.mark.parametrize(
    ("count", "outside"),
    [(1, 0), (2, 0), (5, 0), (6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (20, 5), (100, 39)],
)
def test_ranks_are_those_of_the_tables(count: int, outside: int) -> None:
    """David and Nagaraja's table: for 20 values the 6th and the 15th, for 100 the 40th and the 61st."""
    values = [float(value) for value in range(count)]
    random.Random(0).shuffle(values)
    assert median_interval(values) == Interval(outside, (count - 1) / 2, count - 1 - outside)


@pytest.mark.parametrize("count", [7, 14, 28])
def test_the_interval_holds_the_median_as_often_as_it_says(count: int) -> None:
    generator = random.Random(1)
    held = 0
    for _ in range(2000):
        interval = median_interval([generator.expovariate(1.0) for _ in range(count)])
        held += interval.low <= math.log(2) <= interval.high
    assert held / 2000 > LEVEL - 0.015


def test_ratios_of_pairs_do_not_see_drifts() -> None:
    drift = [1.0, 2.0, 0.5, 3.0, 8.0, 1.0, 1.5]
    interval = ratio_interval([1.25 * factor for factor in drift], drift)
    assert interval == Interval(1.25, 1.25, 1.25)
    assert interval.width == 0.0


def test_a_clock_that_stands_still_makes_equals_and_infinities() -> None:
    assert ratio_interval([0.0], [0.0]).median == 1.0
    assert ratio_interval([1.0], [0.0]).median == math.inf
    assert Interval(0.0, 0.0, 0.0).width == 0.0


def test_noise_is_the_distance_of_the_quartiles() -> None:
    assert noise([1.0, 9.0, 1.0]) == 0.0
    assert noise([1.0] * 9 + [50.0]) == 0.0
    assert noise([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
    assert noise([0.0] * 5) == 0.0
