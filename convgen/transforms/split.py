"""Numbers of float32 as sums of bfloat16 pieces, whose products a matrix unit adds.

x = x0 + x1 + .., each piece the rest rounded to bfloat16 (Henry, Tang and Heinecke, "Leveraging the bfloat16 artificial
intelligence datatype for higher-precision computations", 2019). Of the products of pieces those too small to count are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.transforms.bilinear import AxisAlgorithm

# The unit roundoff of bfloat16, and the root mean square of rounding errors over it, for evenly spread leading digits.
_UNIT, _MEAN_SHARE = 2.0**-8, 0.41
# The unit roundoff of TF32, in which matrix units take float32.
TF32_UNIT = 2.0**-11
# Errors of finite samples scatter.
_SAFETY = 1.15


@dataclass(frozen=True)
class Split:
    """Two factors in so many ``pieces`` each, of a type with the given unit roundoff (bfloat16's, or TF32's); products whose
    numbers add up to as many, or more, are left out."""

    pieces: int = 2
    unit: float = _UNIT

    @property
    def products(self) -> tuple[tuple[int, int], ...]:
        """Pairs of pieces, the smallest products first."""
        count = range(self.pieces)
        pairs = [(a, b) for a in count for b in count if a + b < self.pieces]
        return tuple(sorted(pairs, key=lambda pair: (-sum(pair), -pair[0])))

    @property
    def relative_error(self) -> float:
        """The relative L2 error to expect at most of sums: of what remains of either factor, and of the products left out."""
        omitted = self.pieces - 1
        return _SAFETY * math.sqrt(2 + omitted) * (_MEAN_SHARE * self.unit) ** self.pieces


# What computes a convolution with other rounding errors than plain sums have: an algorithm for each axis, or factors in pieces.
Algorithms = tuple[AxisAlgorithm | Split, ...]


def split_of(algorithms: Algorithms) -> Split | None:
    """Into what pieces factors are split, if they are."""
    return next((algorithm for algorithm in algorithms if isinstance(algorithm, Split)), None)


def axes_of(algorithms: Algorithms) -> tuple[AxisAlgorithm, ...]:
    """The algorithms of the axes; none for factors in pieces."""
    return tuple(algorithm for algorithm in algorithms if isinstance(algorithm, AxisAlgorithm))
