"""dot_products: a loop over a few neighbouring terms of a sum becomes dot products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from convgen.errors import IRError
from convgen.ir.affine import affine
from convgen.ir.nodes import (
    Choose,
    Const,
    Dot,
    Fma,
    For,
    If,
    Index,
    Int,
    Interleave,
    Load,
    Program,
    Stmt,
    Store,
    Value,
    Var,
)
from convgen.ir.rewrite import map_body, map_stages, value_at, variables
from convgen.ir.types import terms_dtype


@dataclass(frozen=True)
class DotProducts:
    """for l in L: for ..: acc = fma(x[.., l], w[.., l], acc)   →   for ..: acc = dot(x[.., 0]*L, w[.., 0]*L, acc)

    Requires: the loop, of constant extent, holds a multiply-add in loops and guards, which depend on it no more than the
    accumulator does; both factors are plain scalar reads that run with it along their last axis, or along others, which are
    interleaved, or zeros by its conditions. Ensures: the same products are added, in another order; the checker says which types
    and how many terms there may be.
    """

    loop: str

    def __call__(self, program: Program) -> Program:
        dtypes = {buffer.name: buffer.dtype for buffer in program.buffers}
        changed = map_stages(program, lambda body: self._block(body, dtypes))
        if changed == program:
            raise IRError(f"there is no loop {self.loop}")
        return changed

    def _block(self, body: tuple[Stmt, ...], dtypes: Mapping[str, str]) -> tuple[Stmt, ...]:
        return tuple(self._statement(statement, dtypes) for statement in body)

    def _statement(self, statement: Stmt, dtypes: Mapping[str, str]) -> Stmt:
        match statement:
            case For(self.loop, Int(terms), (inner,)):
                return _Terms(self.loop, terms, dtypes).update(inner)
            case For(self.loop):
                raise IRError(f"loop {self.loop} is not of constant extent around one statement")
            case _:
                return map_body(statement, lambda body: self._block(body, dtypes))


@dataclass(frozen=True)
class _Terms:
    """The iterations of ``loop`` at once."""

    loop: str
    terms: int
    dtypes: Mapping[str, str]

    def update(self, statement: Stmt) -> Stmt:
        match statement:
            case For(var, extent, (inner,), kind) if self.loop not in variables(extent):
                return For(var, extent, (self.update(inner),), kind)
            case If(condition, (inner,)) if not self._moves((condition.a, condition.b)):
                return If(condition, (self.update(inner),))
            case Store(buffer, index, Fma(a, b, Load(read, place) as total), 1, None) if (buffer, index) == (
                read,
                place,
            ) and not self._moves(index):
                return Store(buffer, index, Dot(self._together(a), self._together(b), total))
            case _:
                raise IRError(f"loop {self.loop} does not hold one multiply-add to an accumulator")

    def _moves(self, index: tuple[Index, ...]) -> bool:
        return any(self.loop in variables(i) for i in index)

    def _interleaved(self, factor: Value) -> Value:
        return Interleave(tuple(value_at(factor, self.loop, term) for term in range(self.terms)))

    def _together(self, factor: Value) -> Value:
        """The terms of a factor, as one lane."""
        match factor:
            case Load(buffer, index, 1, None, 1) if (
                buffer in self.dtypes and self._moves(index[:-1]) and not self._moves(index[-1:])
            ):
                return self._interleaved(factor)
            case Choose(conditions, Load(buffer, index, 1, None, 1), Const(0)) if (
                buffer in self.dtypes
                and any(self._moves((condition.a, condition.b)) for condition in conditions)
                and not self._moves(index[-1:])
            ):
                return self._interleaved(factor)
            case Load(buffer, index, 1, None, 1) if index and buffer in self.dtypes:
                form = affine(index[-1])
                first: Index = form.without(Var(self.loop)).index()
                crossing = self._moves((*index[:-1], first))
                if form.coefficient(Var(self.loop)) != 1 or crossing:
                    raise IRError(f"access to {buffer} does not run along its last axis in {self.loop}")
                return Load(buffer, (*index[:-1], first), terms=self.terms)
            case Choose(conditions, Load(buffer) as inside, Const(0)) if not any(
                self.loop in variables(c.a) | variables(c.b) for c in conditions
            ):
                zeros = Const(0, terms_dtype(self.dtypes[buffer], self.terms))
                return Choose(conditions, self._together(inside), zeros)
            case _:
                raise IRError(f"a factor in loop {self.loop} is not a plain read, or one of zeros elsewhere")
