"""assume: what facts about sizes decide is resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from convgen.ir.facts import proves
from convgen.ir.nodes import Alloc, Choose, For, If, Index, IndexOp, Int, Less, Program, Stmt, Store, Value
from convgen.ir.rewrite import map_value


@dataclass(frozen=True)
class Assume:
    """(x if -1 < i and i < n else 0)  →  x;   min(max(i, 0), n - 1)  →  i;   i % n  →  i;   if i < n: S  →  S
    where ``facts`` prove 0 <= i < n

    Requires: the facts hold for the sizes that stage ``stage`` will run with; that is the caller's word. Ensures: the same
    stores in the same order.
    """

    stage: str
    facts: tuple[Less, ...]

    def __call__(self, program: Program) -> Program:
        stages = tuple(
            replace(stage, body=self._block(stage.body, {})) if stage.name == self.stage else stage
            for stage in program.stages
        )
        return replace(program, stages=stages)

    def _block(self, body: tuple[Stmt, ...], ranges: Mapping[str, Index]) -> tuple[Stmt, ...]:
        return tuple(part for statement in body for part in self._statement(statement, ranges))

    def _statement(self, statement: Stmt, ranges: Mapping[str, Index]) -> tuple[Stmt, ...]:
        match statement:
            case For(var, extent, body):
                return (replace(statement, body=self._block(body, {**ranges, var: extent})),)
            case If(condition, body):
                inner = self._block(body, ranges)
                match proves(self.facts, condition, ranges):
                    case True:
                        return inner
                    case False:
                        return ()
                    case None:
                        return (If(condition, inner),)
            case Alloc(buffer, body):
                return (Alloc(buffer, self._block(body, ranges)),)
            case Store(index=index, value=value):
                place = tuple(self._index(i, ranges) for i in index)
                return (replace(statement, index=place, value=self._value(value, ranges)),)

    def _value(self, value: Value, ranges: Mapping[str, Index]) -> Value:
        def visit(node: Value) -> Value:
            match node:
                case Choose(conditions, a, b):
                    decided = {condition: proves(self.facts, condition, ranges) for condition in conditions}
                    if any(answer is False for answer in decided.values()):
                        return b
                    unsure = tuple(condition for condition, answer in decided.items() if answer is None)
                    return Choose(unsure, a, b) if unsure else a
                case _:
                    return node

        return map_value(value, lambda index: self._index(index, ranges), visit)

    def _index(self, expression: Index, ranges: Mapping[str, Index]) -> Index:
        match expression:
            case IndexOp(op, a, b):
                return self._resolved(IndexOp(op, self._index(a, ranges), self._index(b, ranges)), ranges)
            case _:
                return expression

    def _resolved(self, expression: IndexOp, ranges: Mapping[str, Index]) -> Index:
        a, b = expression.a, expression.b
        match expression.op:
            case "min" | "max":
                smaller = proves(self.facts, Less(a, b), ranges)
                if smaller is None:
                    return expression
                return a if smaller == (expression.op == "min") else b
            case "%":
                inside = proves(self.facts, Less(Int(-1), a), ranges) and proves(self.facts, Less(a, b), ranges)
                return a if inside else expression
            case _:
                return expression
