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
    Convert,
    Dot,
    Fma,
    Interleave,
    Load,
    PaddedLoad,
    Splat,
    Spread,
    Sum,
    Value,
    Where,
)

ValueType = tuple[str, int]

# Which types of elements dot products have, and how many of each a lane: as many as fill an accumulator.
DOT_TERMS = {("bfloat16", "bfloat16"): 2, ("uint8", "int8"): 4}

# The same for products of tiles.
TILE_TERMS = {("bfloat16", "bfloat16"): 2, ("int8", "int8"): 4}

# Which types of elements products with a turned factor have.
TURNED_TILES = ("bfloat16", "float16", "float32")


def compute_dtype(storage: str) -> str:
    """The type that elements stored as ``storage`` are computed in."""
    return DTYPES[storage].accumulator


def terms_dtype(storage: str, terms: int) -> str:
    """The type of so many elements that are kept together, such as bfloat16*2."""
    return f"{storage}*{terms}"


def value_type(value: Value, buffers: Mapping[str, Buffer]) -> ValueType:
    """(data type, lanes) of a value; raises IRError where operands disagree."""
    match value:
        case Const(_, dtype, lanes):
            return dtype, lanes
        case Load(buffer, _, lanes, _, 1):
            return compute_dtype(buffers[buffer].dtype), lanes
        case Load(buffer, _, lanes, _, terms):
            return terms_dtype(buffers[buffer].dtype, terms), lanes
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
        case Interleave(pieces):
            return _interleaved(pieces, buffers)
        case Sum(a):
            dtype, inner = value_type(a, buffers)
            if inner < 2 or inner & (inner - 1):
                raise IRError(f"sum takes a power of two of lanes, not {inner}")
            return dtype, 1
        case Dot(a, b, c):
            return _dot(value_type(a, buffers), value_type(b, buffers), value_type(c, buffers))
        case Fma(a, b, c) | Where(a, b, c):
            return _same("fma or where", buffers, a, b, c)
        case Convert(a, dtype):
            given, lanes = value_type(a, buffers)
            if {given, dtype} != {"int32", "float32"}:
                raise IRError(f"{given} is not converted to {dtype}")
            return dtype, lanes
        case Arith(op, a, b):
            return _same(op, buffers, a, b)
        case Choose(_, a, b):
            return _same("choose", buffers, a, b)
        case Apply(function, a):
            return _same(function, buffers, a)


def read_or_zero(value: Value) -> Load | None:
    """The read that a value is, or is where its conditions hold and zero elsewhere; None for all others, and for reads of several
    terms a lane."""
    match value:
        case Load(_, _, _, _, 1) as load:
            return load
        case Choose(_, Load(_, _, lanes, _, 1) as load, Const(0, _, others)) if lanes == others:
            return load
        case _:
            return None


def _interleaved(pieces: tuple[Value, ...], buffers: Mapping[str, Buffer]) -> ValueType:
    loads = []
    for piece in pieces:
        load = read_or_zero(piece)
        if load is None:
            raise IRError(
                f"interleave joins reads, perhaps of zeros, not {type(piece).__name__} or several terms a lane"
            )
        loads.append(load)
    kinds = {(buffers[load.buffer].dtype, load.lanes) for load in loads}
    if len(kinds) != 1 or any(buffers[load.buffer].space == "register" for load in loads):
        raise IRError(f"interleave joins vectors that are not alike: {sorted(kinds)}, or no elements of memory")
    ((storage, lanes),) = kinds
    return terms_dtype(storage, len(loads)), lanes


def _same(what: str, buffers: Mapping[str, Buffer], *operands: Value) -> ValueType:
    types = {value_type(operand, buffers) for operand in operands}
    if len(types) != 1:
        raise IRError(f"{what} joins operands of different types: {sorted(types)}")
    return types.pop()


def _dot(a: ValueType, b: ValueType, c: ValueType) -> ValueType:
    kinds = (a[0].partition("*")[0], b[0].partition("*")[0])
    terms = DOT_TERMS.get(kinds, 0)
    types = tuple((terms_dtype(kind, terms), c[1]) for kind in kinds)
    if not terms or (a, b) != types or c[0] != compute_dtype(kinds[0]):
        raise IRError(f"dot joins operands of types {a}, {b} and {c}")
    return c
