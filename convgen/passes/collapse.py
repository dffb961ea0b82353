"""collapse: loops of a perfect nest become one."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.errors import IRError
from convgen.ir.build import floordiv, mod, mul
from convgen.ir.nodes import For, Index, Int, Program, Stmt, Var
from convgen.ir.rewrite import rewrite_named, substitute_block, variables


@dataclass(frozen=True)
class Collapse:
    """for a in A: for b in B: S   →   for v in A * B: S[a = v // B, b = v % B]

    Requires: the loops are perfectly nested, serial, and no extent depends on another of them. Ensures: the same iterations
    in the same order.
    """

    loops: tuple[str, ...]
    into: str

    def __call__(self, program: Program) -> Program:
        return rewrite_named(program, self.loops[0], self._collapse)

    def _collapse(self, loop: For) -> tuple[Stmt, ...]:
        nest = self._nest(loop)
        values: dict[str, Index] = {}
        rest: Index = Var(self.into)
        total: Index = Int(1)
        for inner in reversed(nest):
            values[inner.var] = rest if inner is nest[0] else mod(rest, inner.extent)
            total = mul(inner.extent, total)
            rest = floordiv(rest, inner.extent)
        return (For(self.into, total, substitute_block(nest[-1].body, values)),)

    def _nest(self, loop: For) -> list[For]:
        nest = [loop]
        for name in self.loops[1:]:
            body = nest[-1].body
            if len(body) != 1 or not isinstance(inner := body[0], For) or inner.var != name:
                raise IRError(f"loop {name} is not perfectly nested in {nest[-1].var}")
            nest.append(inner)
        for inner in nest:
            if inner.kind != "serial" or variables(inner.extent) & set(self.loops):
                raise IRError(f"loop {inner.var} is parallel or its extent depends on the nest")
        return nest
