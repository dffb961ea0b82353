"""Floating-point arithmetic, rounded as each instruction says. NaNs come out as NumPy makes them, not with PTX's own bits.

Approximate instructions give the exact result rounded to nearest: the hardware's last bits are not documented. ``f64``
approximations end, as documented, after the upper 32 bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convgen.targets.cuda.interp.program import Op
from convgen.targets.cuda.interp.rounding import (
    bf16_bits,
    bf16_number,
    directed,
    flushed,
    fma32,
    fma32_directed,
    fma64,
    to_odd,
    two_product,
    two_sum,
)
from convgen.targets.cuda.interp.steps import Pure, unknown
from convgen.targets.cuda.interp.types import Value, types_in

Function = Callable[..., Value]

_DIRECTIONS = ("rz", "rm", "rp")
_UPPER = np.uint64(0xFFFFFFFF00000000)


def _direction(op: Op) -> str:
    return next((part for part in op.opcode if part in _DIRECTIONS), "rn")


def _smallest(a: Value, b: Value) -> Value:
    """The lesser; the other where one is NaN; -0 before +0."""
    return _with_zeros(np.fmin(a, b), a, b, np.bitwise_or)


def _largest(a: Value, b: Value) -> Value:
    return _with_zeros(np.fmax(a, b), a, b, np.bitwise_and)


def _smallest_nan(a: Value, b: Value) -> Value:
    return _with_zeros(np.minimum(a, b), a, b, np.bitwise_or)


def _largest_nan(a: Value, b: Value) -> Value:
    return _with_zeros(np.maximum(a, b), a, b, np.bitwise_and)


def _with_zeros(chosen: Value, a: Value, b: Value, merge: Function) -> Value:
    dtype = np.dtype(f"u{chosen.dtype.itemsize}")
    both = merge(np.asarray(a).view(dtype), np.asarray(b).view(dtype)).view(chosen.dtype)
    return np.where(a == b, both, chosen)


def extreme(op: Op) -> Function:
    """min or max, by the opcode."""
    if "xorsign" in op.opcode or "abs" in op.opcode:
        raise unknown(op)
    nan = "NaN" in op.opcode
    if op.opcode[0] == "min":
        return _smallest_nan if nan else _smallest
    return _largest_nan if nan else _largest


def _reciprocal(a: Value) -> Value:
    return a.dtype.type(1) / a


def _inverse_root(a: Value) -> Value:
    return (1 / np.sqrt(a.astype(np.float64))).astype(a.dtype)


def _in_double(function: Function) -> Function:
    return lambda a: function(a.astype(np.float64)).astype(a.dtype)


def _log2(a: Value) -> Value:
    # -0 is treated like +0, whose logarithm is minus infinity.
    return np.log2(np.where(a == 0, np.float64(0), a))


def _halfway(function: Function) -> Function:
    """An approximation of float64, whose lower 32 bits are zero."""
    return lambda a: (np.asarray(function(a)).view(np.uint64) & _UPPER).view(np.float64)


_UNARY: dict[str, Function] = {
    "abs": np.abs,
    "neg": np.negative,
    "sqrt": np.sqrt,
    "rcp": _reciprocal,
    "rsqrt": _inverse_root,
    "ex2": _in_double(np.exp2),
    "lg2": _in_double(_log2),
    "sin": _in_double(np.sin),
    "cos": _in_double(np.cos),
    "tanh": _in_double(np.tanh),
}
_BINARY: dict[str, Function] = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
_APPROXIMATE = frozenset(("ex2", "lg2", "sin", "cos", "tanh", "rsqrt"))
_COUNTS = {"fma": 3, "mad": 3, "copysign": 2, "min": 2, "max": 2, "add": 2, "sub": 2, "mul": 2, "div": 2}


def _directed(op: Op, kind: str, direction: str) -> Function:
    """Sums, products and fused ones, rounded in a direction."""
    dtype: type[np.floating] = np.float32 if kind == "f32" else np.float64

    def wide(value: Value) -> Value:
        return value.astype(np.float64)

    match op.opcode[0], kind:
        case "add", _:
            return lambda a, b: directed(*two_sum(wide(a), wide(b)), direction, dtype)
        case "sub", _:
            return lambda a, b: directed(*two_sum(wide(a), -wide(b)), direction, dtype)
        case "mul", "f32":
            return lambda a, b: directed(wide(a) * wide(b), np.float64(0), direction, np.float32)
        case "mul", "f64":
            return lambda a, b: directed(*two_product(a, b), direction, np.float64)
        case "fma" | "mad", "f32":
            return lambda a, b, c: fma32_directed(a, b, c, direction)
        case _:
            raise unknown(op)


def _copysign(a: Value, b: Value) -> Value:
    """The second operand with the sign of the first."""
    return np.copysign(b, a)


def _test(op: Op, kind: str) -> Pure:
    tiny = np.finfo(np.float32 if kind == "f32" else np.float64).tiny
    tests: dict[str, Function] = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "number": lambda a: ~np.isnan(a),
        "notanumber": np.isnan,
        "normal": lambda a: np.isfinite(a) & (np.abs(a) >= tiny),
        "subnormal": lambda a: (np.abs(a) < tiny) & (a != 0),
    }
    if op.opcode[1] not in tests:
        raise unknown(op)
    return Pure(tests[op.opcode[1]], (kind,), ("pred",))


def _plain(op: Op, kind: str) -> Function:
    """The operation on float32 or float64."""
    root = op.opcode[0]
    direction = _direction(op)
    if direction != "rn":
        return _directed(op, kind, direction)
    if root in ("fma", "mad"):
        return fma32 if kind == "f32" else fma64
    if root in ("min", "max"):
        return extreme(op)
    if root == "copysign":
        return _copysign
    if root in _BINARY:
        return _BINARY[root]
    if root not in _UNARY or (root in _APPROXIMATE and "approx" not in op.opcode):
        raise unknown(op)
    return _halfway(_UNARY[root]) if kind == "f64" and "approx" in op.opcode else _UNARY[root]


def _finished(op: Op, kind: str, function: Function) -> Function:
    """The operation with subnormals flushed and results saturated as the instruction asks."""
    made = function
    if "ftz" in op.opcode and kind == "f32":
        # Moving signs about flushes nothing twice; all else takes and gives flushed numbers.
        made = lambda *values: flushed(function(*(flushed(value) for value in values)))  # noqa: E731
    if "sat" in op.opcode:
        within = made
        return lambda *values: _saturated(within(*values))
    return made


def _saturated(value: Value) -> Value:
    """Within [0, 1]; NaN becomes 0."""
    dtype = value.dtype.type
    return np.where(np.isnan(value), dtype(0), np.clip(value, dtype(0), dtype(1)))


def _half_sum(a: Value, b: Value, c: Value) -> Value:
    """The product of two float32 that are halves, plus a third, rounded to odd in float64: ready for any narrower type."""
    return to_odd(*two_sum(a.astype(np.float64) * b, c.astype(np.float64)))


def _half(op: Op, kind: str) -> Function:
    """Operations on single halves: float32 in between is wide enough for all but fused sums."""
    root = op.opcode[0]
    if root in ("fma", "mad"):
        wide: Function = _half_sum
    elif root in ("min", "max"):
        wide = extreme(op)
    elif root in _BINARY and root != "div":
        wide = _BINARY[root]
    elif root in ("abs", "neg", "tanh", "ex2"):
        wide = _UNARY[root]
    else:
        raise unknown(op)
    relu = "relu" in op.opcode
    if kind == "bf16":
        return lambda *values: bf16_bits(_finish_half(wide(*(bf16_number(v) for v in values)), relu=relu, sat=False))
    sat = "sat" in op.opcode
    return lambda *values: _finish_half(
        wide(*(value.astype(np.float32) for value in values)), relu=relu, sat=sat, dtype=np.float16
    )


def _finish_half(value: Value, *, relu: bool, sat: bool, dtype: type[np.floating] = np.float32) -> Value:
    # A float64 here was rounded to odd. On the way to bfloat16 it passes through float32, rounded to odd again.
    if value.dtype == np.float64 and dtype is np.float32:
        near = value.astype(np.float32)
        wide = near.astype(np.float64)
        moved = np.where(wide < value, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf)))
        even = np.asarray(near).view(np.uint32) & np.uint32(1) == 0
        made: Value = np.where((wide != value) & even & np.isfinite(near), moved, near)
    else:
        made = value.astype(dtype)
    if relu:
        made = np.where(made > 0, made, made.dtype.type(0))
    return _saturated(made) if sat else made


def _packed(single: Function) -> Function:
    """An operation on both halves of 32 bits."""

    def function(*values: Value) -> Value:
        lows = single(*((value & np.uint32(0xFFFF)).astype(np.uint16) for value in values))
        highs = single(*((value >> np.uint32(16)).astype(np.uint16) for value in values))
        return lows.astype(np.uint32) | (highs.astype(np.uint32) << np.uint32(16))

    return function


def build(op: Op) -> Pure | None:
    """The operation, or None where it is not one on floating-point numbers."""
    kinds = types_in(op.opcode)
    kind = kinds[0] if kinds else ""
    if kind not in ("f16", "bf16", "f16x2", "bf16x2", "f32", "f64") or len(kinds) != 1:
        return None
    if op.opcode[0] == "testp":
        return _test(op, kind)
    count = _COUNTS.get(op.opcode[0], 1)
    if op.opcode[0] not in _COUNTS and op.opcode[0] not in _UNARY:
        return None
    if kind in ("f32", "f64"):
        function = _plain(op, kind)
        if op.opcode[0] in ("abs", "neg", "copysign"):
            return Pure(function, (kind,) * count, (kind,))
        return Pure(_finished(op, kind, function), (kind,) * count, (kind,))
    half = _half(op, kind.removesuffix("x2"))
    if not kind.endswith("x2"):
        return Pure(half, (kind,) * count, (kind,))
    if kind == "f16x2":
        inner = half
        half = lambda *values: np.asarray(inner(*(v.view(np.float16) for v in values))).view(np.uint16)  # noqa: E731
    return Pure(_packed(half), (kind,) * count, (kind,))
