"""What a fast algorithm's numbers are held to, from its matrices: the integers on which it is exact, and its error limits.

``algorithms`` has one axis algorithm for each axis that takes part, or says into what pieces the factors are split; () is a plain
sum of products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.transforms.bilinear import AxisAlgorithm
from convgen.transforms.error import growth, is_exact, plain_error, relative_error, weight_multiple
from convgen.transforms.split import Algorithms, axes_of, split_of

# The largest relative L2 error on N(0, 1), in units of u·sqrt(1 + C/16), of algorithms along one axis or two.
_LIMITS = {"F(2,3)": 6.0, "F(4,3)": 50.0, "F(2,5)": 50.0, "F(6,3)": 85.0, "F(4,5)": 90.0}
# The same of Fourier transforms, in units of u, as long as sums are not so long that their own errors are larger.
_FOURIER_LIMIT = 25.0

# No element's error is this many times the root mean square error that is expected at most.
PEAK = 16.0


@dataclass(frozen=True)
class ExactnessRule:
    """What becomes of integers in an algorithm whose weights are multiples of ``weight_multiple``.

    ``growth`` is how many times larger than a sum of products of small integers (weights without the multiple) the numbers on
    the way may be. Where ``relative_error`` is 0, integers stay exact as long as these fit; elsewhere results are exact after
    rounding to the nearest multiple, and this is their relative L2 error at most.
    """

    weight_multiple: int = 1
    growth: float = 1.0
    relative_error: float = 0.0

    @property
    def is_rounded(self) -> bool:
        return self.relative_error > 0


def exactness_rule(algorithms: Algorithms, length: int, dtype: str) -> ExactnessRule:
    """The rule for sums of ``length`` products of ``dtype``."""
    axes = axes_of(algorithms)
    if not axes:
        # Small integers are a single piece.
        return ExactnessRule()
    multiple = math.prod(map(weight_multiple, axes))
    if all(map(is_exact, axes)):
        return ExactnessRule(multiple, max(1.0, math.prod(map(growth, axes)) / _taps(axes)))
    # Large multiples are no numbers of a 16-bit type; small results need none to be exact after rounding.
    is_narrow = DTYPES[dtype].accumulator != dtype
    return ExactnessRule(1 if is_narrow else multiple, relative_error=expected_error(algorithms, length, dtype))


def expected_error(algorithms: Algorithms, length: int, dtype: str) -> float:
    """The relative L2 error, on N(0, 1), of sums of ``length`` products before they are stored."""
    unit = DTYPES[DTYPES[dtype].accumulator].unit_roundoff
    if split := split_of(algorithms):
        return math.hypot(split.relative_error, plain_error(length, unit))
    axes = axes_of(algorithms)
    return relative_error(axes, _channels(axes, length), unit)


def error_limit(algorithms: Algorithms, length: int, dtype: str) -> float:
    """The relative L2 error that gate B allows such sums: what is known of an algorithm, else what is expected."""
    unit = DTYPES[DTYPES[dtype].accumulator].unit_roundoff
    axes = axes_of(algorithms)
    transformed = [algorithm for algorithm in axes if algorithm.name != "direct"]
    names = {algorithm.name for algorithm in transformed}
    if names and all(name.startswith("FFT") for name in names):
        return max(_FOURIER_LIMIT * unit, expected_error(algorithms, length, dtype))
    if len(names) == 1 and len(transformed) <= 2 and names <= _LIMITS.keys():
        return _LIMITS[names.pop()] * unit * math.sqrt(1 + _channels(axes, length) / 16)
    return expected_error(algorithms, length, dtype)


def _channels(algorithms: tuple[AxisAlgorithm, ...], length: int) -> int:
    """How many products of points are summed: one for each window of the algorithms' taps."""
    return max(1, math.ceil(length / _taps(algorithms)))


def _taps(algorithms: tuple[AxisAlgorithm, ...]) -> int:
    return math.prod(algorithm.taps for algorithm in algorithms)
