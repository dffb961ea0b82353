"""Integer division, remainder, minimum and maximum without branches.

Numba's own check for division by zero and for overflow, which makes eight blocks of every ``//``, and compile a function for
every ``min``. Indices never overflow and extents are positive.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir

Emit = Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]


def _parts(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
    """The divisor, the quotient towards zero, the remainder, and whether that has the wrong sign for rounding down."""
    if not isinstance(y, ir.Constant):
        # A processor traps on zero; the loop around such a division is empty, but the division may be moved out of it.
        y = b.select(b.icmp_signed("==", y, y.type(0)), y.type(1), y)
    rest = b.srem(x, y)
    is_between = b.icmp_signed("!=", rest, rest.type(0))
    return y, b.sdiv(x, y), rest, b.and_(is_between, b.icmp_signed("<", b.xor(rest, y), rest.type(0)))


def _floordiv(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    _, quotient, _, is_above = _parts(b, x, y)
    return b.sub(quotient, b.zext(is_above, quotient.type))


def _mod(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    divisor, _, rest, is_below = _parts(b, x, y)
    return b.select(is_below, b.add(rest, divisor), rest)


def _min(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.select(b.icmp_signed("<", y, x), y, x)


def _max(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.select(b.icmp_signed(">", y, x), y, x)


# By the function that Python calls: what emits it for two int64.
INTEGER_FUNCTIONS: dict[Callable[..., Any], Emit] = {
    operator.floordiv: _floordiv,
    operator.mod: _mod,
    min: _min,
    max: _max,
}
