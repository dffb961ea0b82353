"""How large an error a problem accepts."""

from __future__ import annotations

import math

from convgen.dtypes import DTYPES
from convgen.spec import ConvSpec
from convgen.strategies.reference import sum_error_bound


def accuracy_limit(spec: ConvSpec) -> float:
    """The relative L2 error that a strategy's bound may have: of a plain sum in any order ("strict"), that or ``fast_limit`` and
    the rounding of a 16-bit result ("fast"), or the number given."""
    match spec.accuracy:
        case "strict":
            return sum_error_bound(spec)
        case "fast":
            return max(sum_error_bound(spec), fast_limit(spec) + _rounding(spec))
        case limit:
            return float(limit)


def fast_limit(spec: ConvSpec) -> float:
    """50 u sqrt(1 + C/16), u that of float32: what Winograd's F(4, 3) reaches."""
    return 50 * 2.0**-24 * math.sqrt(1 + spec.in_channels / spec.groups / 16)


def transform_limit(spec: ConvSpec) -> float:
    """The error that an algorithm with transforms may have, whose sums are of other numbers than the problem's: none in
    "strict", where a sum's own special values are asked for; in "fast" the rounding of a 16-bit result comes on top."""
    match spec.accuracy:
        case "strict":
            return 0.0
        case "fast":
            return fast_limit(spec) + _rounding(spec)
        case limit:
            return float(limit)


def _rounding(spec: ConvSpec) -> float:
    """The error of storing a result in fewer bits than it is summed in."""
    dtype = DTYPES[spec.dtype]
    return dtype.unit_roundoff if dtype.accumulator != spec.dtype else 0.0
