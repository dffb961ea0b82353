"""What timings say and how surely: medians, paired ratios, and the intervals that hold them.

An interval is between two of the ordered values and holds the median of what they are drawn from with a probability of at least
``LEVEL``, whatever their distribution is (David and Nagaraja, "Order Statistics", 3rd ed., section 7.1). Fewer than six values
have no such interval: theirs is from the least to the greatest.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A median, and between what it is."""

    low: float
    median: float
    high: float

    @property
    def width(self) -> float:
        """From end to end, relative to the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def median_interval(values: Sequence[float]) -> Interval:
    """The median of some values, at least one, and its interval."""
    ordered = sorted(values)
    outside = _outside(len(ordered))
    return Interval(ordered[outside], statistics.median(ordered), ordered[-1 - outside])


def ratio_interval(times: Sequence[float], others: Sequence[float]) -> Interval:
    """The median of how many times longer each of some times is than the one beside it, which was taken in the same round: what
    slows a whole round down cancels."""
    return median_interval([_ratio(time, other) for time, other in zip(times, others, strict=True)])


def noise(values: Sequence[float]) -> float:
    """The distance between the quartiles of some values, relative to their median; 0 for fewer than four."""
    if len(values) < 4:
        return 0.0
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / median if median else 0.0


def _ratio(time: float, other: float) -> float:
    if other > 0:
        return time / other
    return 1.0 if time == other else math.inf


@functools.cache
def _outside(count: int) -> int:
    """How many of that many ordered values lie outside of the interval at either end: the most for which it is sure enough that
    not all of them and one more are on one side of the median."""
    below = 0.0
    for left_out in range(count):
        below += math.comb(count, left_out) / 2**count
        if below > (1 - LEVEL) / 2:
            return max(0, left_out - 1)
    return 0
