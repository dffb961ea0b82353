"""Short constructors for index expressions, folded as they are built."""

from __future__ import annotations

from convgen.ir.nodes import Index, IndexOp, Int, Var

_ZERO, _ONE = Int(0), Int(1)


def as_index(value: int | str | Index) -> Index:
    """An expression from an int, the name of a variable, or an expression."""
    if isinstance(value, str):
        return Var(value)
    return Int(int(value)) if isinstance(value, int) else value


def add(*terms: int | str | Index) -> Index:
    """The sum of the terms."""
    result: Index = _ZERO
    for term in map(as_index, terms):
        if isinstance(term, Int):
            if term.value:
                result = Int(result.value + term.value) if isinstance(result, Int) else IndexOp("+", result, term)
        elif isinstance(result, Int) and not result.value:
            result = term
        else:
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
    result: Index = _ONE
    for factor in map(as_index, factors):
        if isinstance(factor, Int) and isinstance(result, Int):
            result = Int(result.value * factor.value)
        elif factor == _ZERO or result == _ZERO:
            result = _ZERO
        elif result == _ONE:
            result = factor
        elif factor != _ONE:
            result = IndexOp("*", result, factor)
    return result


def divides(factor: int | Index, extent: Index) -> bool:
    """Whether the factor is known to divide the extent: a constant, or something times a constant, or anything by 1."""
    match extent:
        case Int(multiple) | IndexOp("*", _, Int(multiple)):
            return isinstance(factor, int) and multiple % factor == 0
        case _:
            return factor == 1


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
