"""whole_vectors: a test that decides alike for all lanes of a vector is made once."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.errors import IRError
from convgen.ir.affine import affine
from convgen.ir.nodes import Choose, For, If, Index, Int, Less, Program, Stmt, Value, Var
from convgen.ir.rewrite import map_body, map_statement, rewrite_named, variables


@dataclass(frozen=True)
class WholeVectors:
    """for l in L: if i * L + l < n * L: S   →   for l in L: if i * L < n * L: S;   the same for choices

    Requires: the loop has a constant extent. Ensures: tests that hold for some lanes alone are left as they are.
    """

    loop: str

    def __call__(self, program: Program) -> Program:
        return rewrite_named(program, self.loop, self._change)

    def _change(self, loop: For) -> tuple[Stmt, ...]:
        if not isinstance(loop.extent, Int):
            raise IRError(f"the extent of loop {self.loop} is not constant")
        lanes = loop.extent.value

        def visit(value: Value) -> Value:
            match value:
                case Choose(conditions, a, b):
                    return Choose(tuple(self._whole(condition, lanes) for condition in conditions), a, b)
                case _:
                    return value

        def guards(statement: Stmt) -> Stmt:
            changed = map_body(statement, lambda body: tuple(map(guards, body)))
            match changed:
                case If(condition, body):
                    return If(self._whole(condition, lanes), body)
                case _:
                    return changed

        return (guards(map_statement(loop, lambda index: index, visit)),)

    def _whole(self, condition: Less, lanes: int) -> Less:
        """The test of lane 0, where it decides for the others: all else are multiples of the lanes."""
        if self.loop not in variables(condition.a) or lanes == 1:
            return condition
        lane = Var(self.loop)
        a, b = affine(condition.a), affine(condition.b)
        rest = a.without(lane)
        even = all(self._multiple(atom, factor, lanes) for atom, factor in (*rest.terms, *b.terms))
        if a.coefficient(lane) == 1 and even and not rest.constant % lanes and not b.constant % lanes:
            return Less(rest.index(), condition.b)
        return condition

    def _multiple(self, atom: Index, factor: int, lanes: int) -> bool:
        return factor % lanes == 0 and self.loop not in variables(atom)
