"""Addresses of array elements as expressions that read well and leave little to compute inside loops."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

from convgen.ir.affine import Affine, affine
from convgen.ir.build import add, mul
from convgen.ir.nodes import Index, IndexOp, Int
from convgen.ir.rewrite import variables

_ATOMS = ("//", "%", "min", "max")


# The same few addresses are asked for again and again while a stage is written.
@functools.lru_cache(maxsize=4096)
def element_offset(index: tuple[Index, ...], shape: tuple[Index, ...]) -> tuple[Index, Index]:
    """An element's row-major offset as a variable part and the displacement that the constants in the indices make."""
    forms = _merged(index, shape)
    displacement: Index = Int(0)
    stride: Index = Int(1)
    for form, extent in zip(reversed(forms), reversed(shape), strict=True):
        displacement = add(displacement, mul(form.constant, stride))
        stride = mul(extent, stride)
    variable = _horner([Affine(form.terms, 0) for form in forms], shape)
    return variable, affine(displacement).index()


def split_offset(index: tuple[Index, ...], shape: tuple[Index, ...], moving: frozenset[str]) -> tuple[Index, Index]:
    """The offset as a part without the variables ``moving`` and the part that they add."""
    fixed, moved = [], []
    for form in _merged(index, shape):
        still = tuple((atom, factor) for atom, factor in form.terms if not variables(atom) & moving)
        rest = tuple((atom, factor) for atom, factor in form.terms if variables(atom) & moving)
        fixed.append(Affine(still, form.constant))
        moved.append(Affine(rest, 0))
    return _horner(fixed, shape), _horner(moved, shape)


def _horner(forms: list[Affine], shape: tuple[Index, ...]) -> Index:
    base: Index = Int(0)
    for form, extent in zip(forms, shape, strict=True):
        base = add(mul(base, extent), form.index())
    return base


def _merged(index: tuple[Index, ...], shape: tuple[Index, ...]) -> list[Affine]:
    """The indices' canonical forms, where (x // W, x % W) along axes of which the second has extent W is (0, x)."""
    forms = [affine(expression) for expression in index]
    for axis in range(1, len(forms)):
        for atom, factor in forms[axis].terms:
            match atom:
                case IndexOp("%", x, extent) if factor == 1 and extent == shape[axis]:
                    quotient = IndexOp("//", x, extent)
                    if forms[axis - 1].coefficient(quotient) == 1:
                        forms[axis - 1] = forms[axis - 1].without(quotient)
                        forms[axis] = forms[axis].without(atom).plus(affine(x))
                        break
                case _:
                    pass
    return forms


def costly_parts(expression: Index) -> Iterator[Index]:
    """The divisions, remainders, minima and maxima in an expression, inner ones first."""
    match expression:
        case IndexOp(op, a, b):
            yield from costly_parts(a)
            yield from costly_parts(b)
            if op in _ATOMS:
                yield expression
        case _:
            pass


def with_names(expression: Index, names: Mapping[Index, Index]) -> Index:
    """The expression with the parts that have names replaced by them."""
    if expression in names:
        return names[expression]
    match expression:
        case IndexOp(op, a, b):
            return IndexOp(op, with_names(a, names), with_names(b, names))
        case _:
            return expression
