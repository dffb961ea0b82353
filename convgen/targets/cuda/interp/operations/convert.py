"""cvt: between integers and floating-point numbers of all widths, in every rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convgen.targets.cuda.interp.program import Op
from convgen.targets.cuda.interp.rounding import bf16_bits, bf16_number, directed, flushed, two_sum
from convgen.targets.cuda.interp.steps import Pure, retyped, unknown
from convgen.targets.cuda.interp.types import Value, numpy_type, types_in, width_of

_INTEGRAL: dict[str, Callable[[Value], Value]] = {
    "rni": np.rint,
    "rzi": np.trunc,
    "rmi": np.floor,
    "rpi": np.ceil,
}
_ROUNDINGS = frozenset(("rn", "rz", "rm", "rp", "rna", *_INTEGRAL))
_KNOWN = _ROUNDINGS | {"ftz", "sat", "relu"}


def _is_float(kind: str) -> bool:
    return kind[0] == "f" or kind.startswith(("bf", "tf"))


def _to_integer(kind: str, integral: Callable[[Value], Value]) -> Callable[[Value], Value]:
    """Rounded to an integer and kept within the type; NaN becomes 0."""
    dtype = numpy_type(kind)
    info = np.iinfo(dtype)
    # The greatest number of the type may not be a float64; the power of two above it is.
    above = np.float64(2.0 ** (info.bits - (dtype.kind == "i")))
    least = np.float64(info.min)

    def function(value: Value) -> Value:
        whole = integral(value.astype(np.float64))
        inside = (whole >= least) & (whole < above)
        made = np.where(inside, whole, np.float64(0)).astype(dtype)
        made = np.where(whole >= above, dtype.type(info.max), made)
        return np.where(whole < least, dtype.type(info.min), made)

    return function


def _integers(source: str, result: str, *, saturate: bool) -> Callable[[Value], Value]:
    dtype = numpy_type(result)
    if not saturate:
        return lambda value: retyped(value, dtype)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max

    def clamped(value: Value) -> Value:
        info = np.iinfo(value.dtype)
        kept = np.clip(value, value.dtype.type(max(low, info.min)), value.dtype.type(min(high, info.max)))
        return kept.astype(dtype)

    return clamped


def _from_integer(result: str, rounding: str) -> Callable[[Value], Value]:
    if result == "f16":
        # float64 holds 53 bits of an integer exactly, and one beyond is infinite as float16.
        return lambda value: value.astype(np.float64).astype(np.float16)
    dtype: type[np.floating] = np.float32 if result == "f32" else np.float64
    if rounding == "rn":
        return lambda value: value.astype(dtype)

    def function(value: Value) -> Value:
        wide = value.astype(np.int64) if value.dtype.kind == "i" else value.astype(np.uint64)
        low = (wide & wide.dtype.type(0xFFFFFFFF)).astype(np.float64)
        high = (wide >> wide.dtype.type(32)).astype(np.float64) * np.float64(2.0**32)
        return directed(*two_sum(high, low), rounding, dtype)

    return function


def _tf32(value: Value, rounding: str) -> Value:
    bits = np.asarray(value).view(np.uint32)
    if rounding == "rna":
        bits = np.where(np.isnan(value), np.uint32(0x7FFFFFFF), bits + np.uint32(0x1000))
    elif rounding == "rn":
        odd = (bits >> np.uint32(13)) & np.uint32(1)
        bits = np.where(np.isnan(value), np.uint32(0x7FFFFFFF), bits + np.uint32(0xFFF) + odd)
    return bits & np.uint32(0xFFFFE000)


def _narrow_half(value: Value, kind: str, rounding: str) -> Value:
    """A float32 or float64 as bits of a half."""
    if kind == "bf16":
        if rounding == "rz":
            return np.where(np.isnan(value), np.uint32(0x7FFF), value.view(np.uint32) >> np.uint32(16)).astype(
                np.uint16
            )
        return bf16_bits(value)
    if rounding == "rn":
        return np.asarray(value.astype(np.float16)).view(np.uint16)
    made = directed(value.astype(np.float64), np.float64(0), rounding, np.float16)
    return np.asarray(made).view(np.uint16)


def _floats(op: Op, source: str, result: str, rounding: str) -> Callable[[Value], Value]:
    integral = _INTEGRAL.get(rounding)
    if result == "tf32":
        if source != "f32" or rounding not in ("rna", "rn", "rz"):
            raise unknown(op)
        return lambda value: _tf32(value, rounding)
    if source == "bf16" and result == "f32":
        return bf16_number
    if result == "bf16":
        if source == "f32" and rounding in ("rn", "rz"):
            return lambda value: _narrow_half(value, "bf16", rounding)
        raise unknown(op)
    if source == "bf16":
        raise unknown(op)
    dtype = numpy_type(result)
    if width_of(result) >= width_of(source):
        whole = integral or (lambda value: value)
        return lambda value: whole(value).astype(dtype)
    if rounding == "rn":
        return lambda value: value.astype(dtype)
    if rounding in ("rz", "rm", "rp"):
        return lambda value: directed(value.astype(np.float64), np.float64(0), rounding, dtype.type)
    raise unknown(op)


def _packed(op: Op, kind: str, rounding: str) -> Pure:
    """Two float32 as two halves: the first operand is the upper one."""
    half = kind.removesuffix("x2")
    if rounding not in ("rn", "rz"):
        raise unknown(op)
    relu = "relu" in op.opcode

    def function(high: Value, low: Value) -> Value:
        if relu:
            high, low = (np.where(value > 0, value, np.float32(0)) for value in (high, low))
        upper = _narrow_half(high, half, rounding).astype(np.uint32) << np.uint32(16)
        return upper | _narrow_half(low, half, rounding).astype(np.uint32)

    return Pure(function, ("f32", "f32"), (kind,))


def _saturated(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    def within(value: Value) -> Value:
        made = function(value)
        dtype = made.dtype.type
        return np.where(np.isnan(made), dtype(0), np.clip(made, dtype(0), dtype(1)))

    return within


def build(op: Op) -> Pure | None:
    """The operation, or None where it is not a conversion."""
    if op.opcode[0] != "cvt":
        return None
    kinds = types_in(op.opcode)
    modifiers = [part for part in op.opcode[1:] if part not in kinds]
    if set(modifiers) - _KNOWN or len(kinds) != 2:
        raise unknown(op)
    result, source = kinds
    rounding = next((part for part in modifiers if part in _ROUNDINGS), "rn")
    if result in ("f16x2", "bf16x2"):
        return _packed(op, result, rounding)
    if "relu" in modifiers:
        raise unknown(op)
    saturate = "sat" in modifiers
    match _is_float(source), _is_float(result):
        case True, True:
            function = _floats(op, source, result, rounding)
            function = _saturated(function) if saturate and result in ("f16", "f32", "f64") else function
        case True, False:
            number = bf16_number if source == "bf16" else (lambda value: value)
            to_integer = _to_integer(result, _INTEGRAL[rounding])
            function = lambda value: to_integer(number(value))  # noqa: E731
        case False, True:
            if result in ("bf16", "tf32"):
                raise unknown(op)
            function = _from_integer(result, rounding)
            function = _saturated(function) if saturate else function
        case _:
            function = _integers(source, result, saturate=saturate)
    if "ftz" in modifiers and source == "f32":
        plain = function
        function = lambda value: plain(flushed(value))  # noqa: E731
    if "ftz" in modifiers and result == "f32":
        full = function
        function = lambda value: flushed(full(value))  # noqa: E731
    return Pure(function, (source,), (result,))
