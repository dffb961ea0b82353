"""Winograd's minimal filtering algorithms F(m, r), from interpolation points, in exact rational arithmetic.

The product of two polynomials, known by its values at m + r - 1 points, is found by interpolation (Toom and Cook); the
transpose of that algorithm is a correlation (Winograd, "Arithmetic complexity of computations", 1980, chapter V; Lavin and
Gray, "Fast algorithms for convolutional neural networks", 2016). The last point is infinity.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

from convgen.errors import SpecError
from convgen.transforms.bilinear import AxisAlgorithm, check_positive, direct
from convgen.transforms.straight_line import from_matrix

# Binary fractions, so that no denominator but a power of two is left outside the weights; in pairs ±a, which halve the
# additions; in the order of the error they bring (compare Barabasz et al., "Error analysis and improving the accuracy of
# Winograd convolution for deep neural networks", 2020, table 2).
POINTS: tuple[Fraction, ...] = tuple(
    Fraction(numerator, denominator)
    for numerator, denominator in (
        *((0, 1), (1, 1), (-1, 1), (2, 1), (-2, 1), (1, 2), (-1, 2)),
        *((3, 4), (-3, 4), (3, 2), (-3, 2)),
    )
)

Polynomial = tuple[Fraction, ...]


@cache
def winograd(outputs: int, taps: int) -> AxisAlgorithm:
    """Returns F(outputs, taps): outputs + taps - 1 points, as many as the tile has values.

    ``input`` and ``output`` have integers or fractions of a power of two, the other denominators are in ``weight``. With one
    output or one tap it is the direct algorithm, which takes no more products. Raises SpecError unless both numbers are
    positive and there are points enough (a tile of 12).
    """
    check_positive(outputs=outputs, taps=taps)
    tile = outputs + taps - 1
    if outputs == 1 or taps == 1:
        return direct(outputs, taps)
    if tile > len(POINTS) + 1:
        raise SpecError(f"outputs={outputs} and taps={taps} need a tile of {tile}; allowed: {len(POINTS) + 1} or less")
    points = POINTS[: tile - 1]
    return AxisAlgorithm(
        name=f"F({outputs},{taps})",
        outputs=outputs,
        taps=taps,
        input=from_matrix(_input_matrix(points)),
        weight=from_matrix(_weight_matrix(points, taps)),
        output=from_matrix(tuple(zip(*_powers(points, outputs), strict=True))),
    )


@cache
def winograd_gradient(taps: int, pixels: int) -> AxisAlgorithm:
    """Returns F(taps, pixels) for the gradient of ``taps`` weights, summed over tiles of ``pixels`` of the other image.

    There both operands are transformed tile by tile and the points are summed over all tiles before ``output`` is applied once,
    so that all denominators are in ``output``: the factors of ``input`` and ``weight`` are integers or fractions of a power of
    two. Errors as ``winograd``.
    """
    plain = winograd(taps, pixels)
    if plain.name == "direct":
        return plain
    points = POINTS[: plain.tile - 1]
    scales = (*(_scale(points, a) for a in points), Fraction(1))
    outputs = zip(*_powers(points, taps), strict=True)
    return AxisAlgorithm(
        name=f"gradient F({taps},{pixels})",
        outputs=taps,
        taps=pixels,
        input=plain.input,
        weight=from_matrix(_powers(points, pixels)),
        output=from_matrix([tuple(a / s for a, s in zip(row, scales, strict=True)) for row in outputs]),
    )


def _input_matrix(points: tuple[Fraction, ...]) -> list[Polynomial]:
    """B^T: row i holds the coefficients of the product of (x - a_j) over all j other than i; all j for infinity."""
    rows = [(*_from_roots(points[:i] + points[i + 1 :]), Fraction(0)) for i in range(len(points))]
    return [*rows, _from_roots(points)]


def _weight_matrix(points: tuple[Fraction, ...], taps: int) -> list[Polynomial]:
    """G: powers of each point, divided by what row i of B^T takes on at a_i."""
    rows = _powers(points, taps)
    for i, a in enumerate(points):
        rows[i] = tuple(entry / _scale(points, a) for entry in rows[i])
    return rows


def _scale(points: tuple[Fraction, ...], a: Fraction) -> Fraction:
    """The product of (a - b) over all other points b."""
    return math.prod((a - b for b in points if b != a), start=Fraction(1))


def _powers(points: tuple[Fraction, ...], count: int) -> list[Polynomial]:
    """Row i holds the powers 0 .. count-1 of a_i; at infinity only the highest is left."""
    infinity = tuple(Fraction(int(k == count - 1)) for k in range(count))
    return [*(tuple(a**k for k in range(count)) for a in points), infinity]


def _from_roots(roots: tuple[Fraction, ...]) -> Polynomial:
    """Coefficients of the monic polynomial with these roots, the constant first."""
    polynomial: Polynomial = (Fraction(1),)
    for root in roots:
        shifted = (Fraction(0), *polynomial)
        scaled = (*(root * entry for entry in polynomial), Fraction(0))
        polynomial = tuple(a - b for a, b in zip(shifted, scaled, strict=True))
    return polynomial
