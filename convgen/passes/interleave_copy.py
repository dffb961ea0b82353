"""interleave_copy: a copy that brings rows of a buffer next to each other, element by element, is done in vectors of the rows."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.errors import IRError
from convgen.ir.nodes import For, Int, Interleave, Program, Stmt, Store, Var
from convgen.ir.rewrite import rewrite_named, value_at, variables
from convgen.ir.types import read_or_zero


@dataclass(frozen=True)
class InterleaveCopy:
    """for t in T: y[.., t] = x[k + t, ..]   →   y[.., 0]*T = interleave(x[k, ..], .., x[k + T - 1, ..])

    Requires: the loop is of constant extent, which is that of the last axis of y, around one copy, perhaps of zero where
    conditions do not hold. Ensures: the same elements are stored.
    """

    loop: str

    def __call__(self, program: Program) -> Program:
        return rewrite_named(program, self.loop, lambda loop: self._interleaved(program, loop))

    def _interleaved(self, program: Program, loop: For) -> tuple[Stmt, ...]:
        match loop:
            case For(_, Int(terms), (Store(buffer, (*place, Var(self.loop)), value, 1, None),)) if (
                program.buffer(buffer).shape[-1] == Int(terms)
                and not any(self.loop in variables(index) for index in place)
                and (read := read_or_zero(value)) is not None
                and read.count is None
            ):
                pieces = tuple(value_at(value, self.loop, term) for term in range(terms))
                return (Store(buffer, (*place, Int(0)), Interleave(pieces)),)
            case _:
                raise IRError(f"loop {self.loop} is not one copy to all of a last axis")
