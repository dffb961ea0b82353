"""Exact sums and products of floating-point numbers, rounded once in any of PTX's directions.

An exact value is kept as a pair of float64, the number nearest to it and what is left over. Sums are Knuth's TwoSum, products
Dekker's, and a number rounded to odd first can be rounded to a narrower type without being rounded twice (S. Boldo and
G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from convgen.targets.cuda.interp.types import Value

F32_TINY = np.float32(2.0**-126)
# Where the low bits of a float64 are these, it lies half way between two float32.
_LOW = np.uint64((1 << 29) - 1)
_HALF = np.uint64(1 << 28)
_SPLIT = np.float64((1 << 27) + 1)
# Beyond these, the pieces of Dekker's product could overflow or lose bits.
_LARGE = np.float64(2.0**480)
_SMALL = np.float64(2.0**-400)


def two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b rounded to nearest, and the error."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def two_product(a: Value, b: Value) -> tuple[Value, Value]:
    """a * b rounded to nearest, and the error, for numbers of moderate size."""
    product = a * b
    scaled = _SPLIT * a
    a_high = scaled - (scaled - a)
    a_low = a - a_high
    scaled = _SPLIT * b
    b_high = scaled - (scaled - b)
    b_low = b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def to_odd(value: Value, rest: Value) -> Value:
    """value + rest rounded to odd, where value is the sum rounded to nearest."""
    bits = np.asarray(value).view(np.int64)
    outward = np.signbit(value) == np.signbit(rest)
    moved = np.where(outward, bits + 1, bits - 1).view(np.float64)
    return np.where((rest != 0) & (bits & 1 == 0) & np.isfinite(value) & np.isfinite(rest), moved, value)


def directed(value: Value, rest: Value, direction: str, dtype: type[np.floating]) -> Value:
    """value + rest rounded to a type towards zero (``rz``), down (``rm``) or up (``rp``)."""
    near = np.asarray(value).astype(dtype)
    wide = near.astype(np.float64)
    # nan compares false, so that infinities' leftovers leave the result alone.
    above = (wide > value) | ((wide == value) & (rest < 0))
    below = (wide < value) | ((wide == value) & (rest > 0))
    down = above if direction == "rm" else above & (np.asarray(value) > 0)
    up = below if direction == "rp" else below & (np.asarray(value) < 0)
    if direction == "rm":
        up = np.zeros_like(down)
    elif direction == "rp":
        down = np.zeros_like(up)
    near = np.where(down, np.nextafter(near, dtype(-np.inf)), near)
    return np.where(up, np.nextafter(near, dtype(np.inf)), near)


def fma32(a: Value, b: Value, c: Value) -> Value:
    """The product of two float32 plus a third, rounded once to nearest."""
    product = a.astype(np.float64) * b
    total = product + c
    result = total.astype(np.float32)
    twice = total.view(np.uint64) & _LOW == _HALF
    magnitude = np.abs(result)
    # The least of numbers with a NaN among them is NaN.
    if not magnitude.min() > F32_TINY:
        twice |= (magnitude <= F32_TINY) & (total != 0)
    if twice.any():
        exact = to_odd(*two_sum(product, np.asarray(c).astype(np.float64))).astype(np.float32)
        result = np.where(twice, exact, result)
    return result


def fma32_directed(a: Value, b: Value, c: Value, direction: str) -> Value:
    """The product of two float32 plus a third, rounded once in a direction."""
    return directed(*two_sum(a.astype(np.float64) * b, np.asarray(c).astype(np.float64)), direction, np.float32)


def fma64(a: Value, b: Value, c: Value) -> Value:
    """The product of two float64 plus a third, rounded once to nearest."""
    a, b, c = np.broadcast_arrays(a, b, c)
    product, low = two_product(a, b)
    high, rest = two_sum(c, low)
    total, left = two_sum(product, high)
    result = np.asarray(total + to_odd(*two_sum(rest, left)))
    plain = product + c
    size = np.abs(product)
    largest = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.maximum(np.abs(c), size))
    hard = (largest > _LARGE) | (size < _SMALL) | ((np.abs(c) < _SMALL) & (c != 0))
    result = np.where(hard | ~np.isfinite(plain) | (result == 0), plain, result)
    hard &= np.isfinite(a) & np.isfinite(b) & np.isfinite(c) & (a != 0) & (b != 0)
    if hard.any():
        for index in zip(*np.nonzero(hard), strict=True) if hard.ndim else [()]:
            result[index] = _fraction_fma(float(a[index]), float(b[index]), float(c[index]), float(plain[index]))
    return result[()]


def _fraction_fma(a: float, b: float, c: float, plain: float) -> float:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return plain if plain == 0 else 0.0
    try:
        rounded = float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf
    return rounded if rounded else math.copysign(0.0, exact)


def bf16_bits(value: Value) -> Value:
    """The bits of the bfloat16 nearest to a float32, ties to even."""
    bits = np.asarray(value).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(value), np.uint32(0x7FFF), rounded).astype(np.uint16)


def bf16_number(bits: Value) -> Value:
    """The float32 that bits of a bfloat16 stand for."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def flushed(value: Value) -> Value:
    """Subnormal float32 as zeros of their sign."""
    tiny = np.abs(value) < np.float32(2.0**-126)
    return np.where(tiny, np.copysign(np.float32(0), value), value) if np.any(tiny) else value
