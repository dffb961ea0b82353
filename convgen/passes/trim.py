"""trim: a reduction leaves out the iterations that would add zeros from outside of an image."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.errors import IRError
from convgen.ir.affine import Affine
from convgen.ir.build import add, sub
from convgen.ir.nodes import For, If, Less, Program, Stmt, Store, Var
from convgen.ir.rewrite import loops, rewrite_named, statements, substitute_block, variables
from convgen.passes.masked import MaskedUpdate, inside, masked_update


@dataclass(frozen=True)
class Trim:
    """for k in K: acc = fma(x if -1 < k + i and k + i < n else 0, w, acc)
    →  for k in min(K, n - i) - max(0, -i): S[k = k + max(0, -i)]

    Conditions that do not involve k stay where they are. ``widened`` names loops around it, and their extents, on which the
    iterations shall not depend: those are kept that meet the conditions in any of theirs.

    Requires: the loop holds such updates alone, all under the same conditions on k, which involve no loop inside it; with
    ``widened`` x is zero where they do not hold. Ensures: the same sums, the terms that are left out being zero times a finite
    weight.
    """

    loop: str
    widened: tuple[tuple[str, int], ...] = ()

    def __call__(self, program: Program) -> Program:
        return rewrite_named(program, self.loop, self._trim)

    def _trim(self, loop: For) -> tuple[Stmt, ...]:
        updates = [masked_update(s) for s in statements(loop.body) if isinstance(s, Store)]
        involved = {self._about_loop(update) for update in updates}
        if (
            None in updates
            or len(involved) != 1
            or involved == {()}
            or any(isinstance(s, If) for s in statements(loop.body))
        ):
            raise IRError(f"loop {self.loop} is not a sum under one set of conditions on {self.loop}")
        (conditions,) = involved
        inner = {nested.var for nested in loops(loop.body)}
        if any(variables(side) & inner for c in conditions for side in (c.a, c.b)):
            raise IRError(f"conditions on {self.loop} involve loops inside it")
        first, last = inside(conditions, loop, self._widest)
        body = tuple(self._without(statement, conditions) for statement in loop.body)
        shifted = substitute_block(body, {self.loop: add(first, self.loop)})
        return (For(loop.var, sub(last, first), shifted, loop.kind),)

    def _about_loop(self, update: MaskedUpdate | None) -> tuple[Less, ...]:
        conditions = update.conditions if update else ()
        return tuple(c for c in conditions if self.loop in variables(c.a) | variables(c.b))

    def _widest(self, rest: Affine) -> Affine:
        """The largest that what a condition leaves room for becomes in the widened loops."""
        for name, extent in self.widened:
            factor = rest.coefficient(Var(name))
            rest = rest.without(Var(name))
            rest = Affine(rest.terms, rest.constant + max(0, factor) * (extent - 1))
        return rest

    def _without(self, statement: Stmt, conditions: tuple[Less, ...]) -> Stmt:
        match statement:
            case For(var, extent, body, kind):
                return For(var, extent, tuple(self._without(inner, conditions) for inner in body), kind)
            case _:
                update = masked_update(statement)
                assert update is not None
                return update.under(tuple(c for c in update.conditions if c not in conditions))
