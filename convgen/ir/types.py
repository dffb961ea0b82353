"""What a value is: its data type and number of lanes."""

from __future__ import annotations

from collections.abc import Mapping

from convgen.dtypes import DTYPES
from convgen.errors import IRError
from convgen.ir.nodes import (
    Apply,
    Arith,
    Buffer,
    Choose,
    Const,
    Fma,
    Load,
    PaddedLoad,
    Splat,
    Spread,
    Sum,
    Value,
    Where,
)

ValueType = tuple[str, int]


def compute_dtype(storage: str) -> str:
    """The type that elements stored as ``storage`` are computed in."""
    return DTYPES[storage].accumulator


def value_type(value: Value, buffers: Mapping[str, Buffer]) -> ValueType:
    """(data type, lanes) of a value; raises IRError where operands disagree."""
    match value:
        case Const(_, dtype, lanes):
            return dtype, lanes
        case Load(buffer, _, lanes, _):
            return compute_dtype(buffers[buffer].dtype), lanes
        case PaddedLoad(buffer, _, _):
            return compute_dtype(buffers[buffer].dtype), 1
        case Splat(a, lanes):
            dtype, inner = value_type(a, buffers)
            if inner != 1:
                raise IRError(f"splat takes a scalar, not {inner} lanes")
            return dtype, lanes
        case Spread(a, lanes):
            dtype, inner = value_type(a, buffers)
            if inner == 1 or not all(0 <= source < inner for source in value.sources):
                raise IRError(f"spread takes lanes {value.sources} of {inner}")
            return dtype, lanes
        case Sum(a):
            dtype, inner = value_type(a, buffers)
            if inner < 2 or inner & (inner - 1):
                raise IRError(f"sum takes a power of two of lanes, not {inner}")
            return dtype, 1
        case Fma(a, b, c) | Where(a, b, c):
            return _same("fma or where", buffers, a, b, c)
        case Arith(op, a, b):
            return _same(op, buffers, a, b)
        case Choose(_, a, b):
            return _same("choose", buffers, a, b)
        case Apply(function, a):
            return _same(function, buffers, a)


def _same(what: str, buffers: Mapping[str, Buffer], *operands: Value) -> ValueType:
    types = {value_type(operand, buffers) for operand in operands}
    if len(types) != 1:
        raise IRError(f"{what} joins operands of different types: {sorted(types)}")
    return types.pop()
