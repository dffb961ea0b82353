"""order_sum: the loops of a sum change places."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.nodes import For, Program, Stmt, Store
from convgen.ir.rewrite import loops, rewrite_named, variables


@dataclass(frozen=True)
class OrderSum:
    """for a: for b: acc = f(x[a, b], acc)   →   for b: for a: acc = f(x[a, b], acc)   for order ("b", "a")

    Requires: the loops are perfectly nested around one store, no extent depends on another of them. Ensures: the same terms are
    added, in another order.
    """

    order: tuple[str, ...]

    def __call__(self, program: Program) -> Program:
        for stage in program.stages:
            for loop in loops(stage.body):
                if loop.var in self.order:
                    return rewrite_named(program, loop.var, self._ordered)
        raise IRError(f"there is no loop {self.order[0]}")

    def _ordered(self, loop: For) -> tuple[Stmt, ...]:
        nest: dict[str, For] = {}
        statement: Stmt = loop
        while isinstance(statement, For) and statement.var in self.order and len(statement.body) == 1:
            nest[statement.var] = statement
            statement = statement.body[0]
        if set(nest) != set(self.order) or not isinstance(statement, Store):
            raise IRError(f"loops {self.order} are not perfectly nested around one store")
        for inner in nest.values():
            if variables(inner.extent) & set(nest):
                raise IRError(f"the extent of loop {inner.var} depends on another loop of the sum")
        for var in reversed(self.order):
            statement = replace(nest[var], body=(statement,))
        return (statement,)
