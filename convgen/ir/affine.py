"""Index expressions as sums of integer multiples of atoms: the canonical form that simplification and proofs rest on."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from convgen.ir.build import add, floordiv, maximum, minimum, mod, mul, sub
from convgen.ir.nodes import Index, IndexOp, Int, Var


@dataclass(frozen=True)
class Affine:
    """sum(coefficient * atom) + constant; atoms are variables or expressions that are not sums, in order of appearance."""

    terms: tuple[tuple[Index, int], ...]
    constant: int

    def coefficient(self, atom: Index) -> int:
        return dict(self.terms).get(atom, 0)

    def plus(self, other: Affine) -> Affine:
        """The sum of two forms."""
        return _combine(self, other, 1)

    def without(self, atom: Index) -> Affine:
        return Affine(tuple(term for term in self.terms if term[0] != atom), self.constant)

    def divided(self, step: int) -> tuple[Affine, Affine]:
        """A quotient and a rest: the form is ``step`` times the first and the second, of which ``step`` divides no term."""
        quotient = Affine(tuple((atom, f // step) for atom, f in self.terms if f % step == 0), self.constant // step)
        return quotient, Affine(tuple((atom, f) for atom, f in self.terms if f % step), self.constant % step)

    def index(self) -> Index:
        """The expression again: terms in order, constant last."""
        parts = [mul(atom, factor) for atom, factor in self.terms if factor > 0]
        result = add(*parts) if parts else Int(0)
        for atom, factor in self.terms:
            if factor < 0:
                result = sub(result, mul(atom, -factor))
        return add(result, self.constant) if self.constant >= 0 else sub(result, -self.constant)


def _combine(a: Affine, b: Affine, sign: int) -> Affine:
    terms = dict(a.terms)
    for atom, factor in b.terms:
        terms[atom] = terms.get(atom, 0) + sign * factor
    return Affine(tuple((atom, factor) for atom, factor in terms.items() if factor), a.constant + sign * b.constant)


def _scale(a: Affine, factor: int) -> Affine:
    if not factor:
        return Affine((), 0)
    return Affine(tuple((atom, f * factor) for atom, f in a.terms), a.constant * factor)


def affine(expression: Index, extents: Mapping[str, Index] | None = None) -> Affine:
    """The canonical form of an expression. ``extents`` gives loop variables their ranges 0..extent-1, so that divisions by
    tile sizes can be resolved."""
    return _form(expression, extents) if extents else _plain_form(expression)


@functools.lru_cache(maxsize=8192)
def _plain_form(expression: Index) -> Affine:
    return _form(expression, {})


def _form(expression: Index, ranges: Mapping[str, Index]) -> Affine:
    match expression:
        case Int(value):
            return Affine((), value)
        case Var():
            return Affine(((expression, 1),), 0)
        case IndexOp("+", a, b):
            return _combine(affine(a, ranges), affine(b, ranges), 1)
        case IndexOp("-", a, b):
            return _combine(affine(a, ranges), affine(b, ranges), -1)
        case IndexOp("*", a, b):
            return _product(affine(a, ranges), affine(b, ranges))
        case IndexOp("//" | "%" as op, a, b):
            return _division(op, affine(a, ranges), affine(b, ranges), ranges)
        case IndexOp(op, a, b):
            choose = minimum if op == "min" else maximum
            return _atom(choose(affine(a, ranges).index(), affine(b, ranges).index()))


def _atom(expression: Index) -> Affine:
    match expression:
        case Int(value):
            return Affine((), value)
        case _:
            return Affine(((expression, 1),), 0)


def _product(a: Affine, b: Affine) -> Affine:
    if not a.terms:
        return _scale(b, a.constant)
    if not b.terms:
        return _scale(a, b.constant)
    return _atom(IndexOp("*", a.index(), b.index()))


def _division(op: str, a: Affine, b: Affine, ranges: Mapping[str, Index]) -> Affine:
    if not b.terms and b.constant > 0:
        step = b.constant
        quotient, rest = a.divided(step)
        low, high = bounds(rest, ranges)
        if low is not None and high is not None and low >= 0 and high < step:
            return quotient if op == "//" else rest
        coarse, fine = _split_by_grain(a, step, ranges)
        if fine.terms:
            # What is less than a grain changes no quotient by a multiple of grains.
            quotient = _division(op, coarse, b, {})
            return quotient if op == "//" else _combine(quotient, fine, 1)
    if op == "//":
        return _atom(floordiv(a.index(), b.index()))
    return _atom(mod(a.index(), b.index()))


def _split_by_grain(form: Affine, step: int, ranges: Mapping[str, Index]) -> tuple[Affine, Affine]:
    """The form as a sum of two, where the second stays below a divisor of ``step`` that divides all of the first."""
    for fine_terms in range(len(form.terms), 0, -1):
        terms = sorted(form.terms, key=lambda term: abs(term[1]))
        fine = Affine(tuple(terms[:fine_terms]), 0)
        coarse = terms[fine_terms:]
        grain = math.gcd(step, *(factor for _, factor in coarse))
        low, high = bounds(fine, ranges)
        offset = form.constant % grain
        if low is not None and high is not None and low + offset >= 0 and high + offset < grain:
            own = tuple(term for term in form.terms if term in coarse)
            small = tuple(term for term in form.terms if term not in coarse)
            return Affine(own, form.constant - offset), Affine(small, offset)
    return form, Affine((), 0)


def rejoined(form: Affine) -> Affine:
    """The form where every multiple of x // s * s + x % s is that of x."""
    for atom, factor in form.terms:
        match atom:
            case IndexOp("%", x, Int(step)) if (
                form.coefficient(quotient := IndexOp("//", x, Int(step))) == factor * step
            ):
                return rejoined(form.without(atom).without(quotient).plus(_scale(affine(x), factor)))
            case _:
                pass
    return form


def bounds(form: Affine, ranges: Mapping[str, Index]) -> tuple[int | None, int | None]:
    """The smallest and largest value of the form where every variable's extent is a known integer, else None."""
    low, high = form.constant, form.constant
    for atom, factor in form.terms:
        match atom:
            case Var(name) if isinstance(extent := ranges.get(name), Int):
                span = factor * (extent.value - 1)
                low, high = low + min(span, 0), high + max(span, 0)
            case IndexOp("%", _, Int(step)) if step > 0:
                span = factor * (step - 1)
                low, high = low + min(span, 0), high + max(span, 0)
            case _:
                return None, None
    return low, high


def simplified(expression: Index, extents: Mapping[str, Index] | None = None) -> Index:
    """The expression in canonical form."""
    return affine(expression, extents).index()
