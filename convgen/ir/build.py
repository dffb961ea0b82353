"""Short constructors for index expressions, folded as they are built."""

from __future__ import annotations

from convgen.ir.nodes import Index, IndexOp, Int, Var


def as_index(value: int | str | Index) -> Index:
    match value:
        case int():
            return Int(int(value))
        case str():
            return Var(value)
        case _:
            return value


def add(*terms: int | str | Index) -> Index:
    """The sum of the terms."""
    result: Index = Int(0)
    for term in map(as_index, terms):
        match result, term:
            case Int(x), Int(y):
                result = Int(x + y)
            case Int(0), _:
                result = term
            case _, Int(0):
                pass
            case _:
                result = IndexOp("+", result, term)
    return result


def sub(a: int | str | Index, b: int | str | Index) -> Index:
    match as_index(a), as_index(b):
        case Int(x), Int(y):
            return Int(x - y)
        case x, Int(0):
            return x
        case x, y:
            return IndexOp("-", x, y)


def mul(*factors: int | str | Index) -> Index:
    """The product of the factors."""
    result: Index = Int(1)
    for factor in map(as_index, factors):
        match result, factor:
            case Int(x), Int(y):
                result = Int(x * y)
            case (Int(0), _) | (_, Int(0)):
                result = Int(0)
            case Int(1), _:
                result = factor
            case _, Int(1):
                pass
            case _:
                result = IndexOp("*", result, factor)
    return result


def floordiv(a: int | str | Index, b: int | str | Index) -> Index:
    match as_index(a), as_index(b):
        case Int(x), Int(y) if y:
            return Int(x // y)
        case x, Int(1):
            return x
        case x, y:
            return IndexOp("//", x, y)


def mod(a: int | str | Index, b: int | str | Index) -> Index:
    match as_index(a), as_index(b):
        case Int(x), Int(y) if y:
            return Int(x % y)
        case _, Int(1):
            return Int(0)
        case x, y:
            return IndexOp("%", x, y)


def ceildiv(a: int | str | Index, b: int | str | Index) -> Index:
    """a / b rounded up, for positive b."""
    match as_index(b):
        case Int(y):
            return floordiv(add(a, y - 1), y)
        case y:
            return floordiv(sub(add(a, y), 1), y)


def minimum(a: int | str | Index, b: int | str | Index) -> Index:
    match as_index(a), as_index(b):
        case Int(x), Int(y):
            return Int(min(x, y))
        case x, y:
            return x if x == y else IndexOp("min", x, y)


def maximum(a: int | str | Index, b: int | str | Index) -> Index:
    match as_index(a), as_index(b):
        case Int(x), Int(y):
            return Int(max(x, y))
        case x, y:
            return x if x == y else IndexOp("max", x, y)


def absolute(a: int | str | Index) -> Index:
    match as_index(a):
        case Int(x):
            return Int(abs(x))
        case x:
            return maximum(x, sub(0, x))


def continued(position: Index, extent: Index, mode: str) -> Index:
    """The position of an array that its continuation beyond the edges reads: by "replicate", "circular" or "reflect", where a
    reflected position leaves the array by less than its extent."""
    last = sub(extent, 1)
    match mode:
        case "replicate":
            return minimum(maximum(position, 0), last)
        case "circular":
            return mod(position, extent)
        case _:
            return sub(last, absolute(sub(last, absolute(position))))
