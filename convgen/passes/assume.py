"""assume: what facts about sizes decide is resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from convgen.ir.build import add
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
            replace(stage, body=_Scope(self.facts, {}).block(stage.body)) if stage.name == self.stage else stage
            for stage in program.stages
        )
        return replace(program, stages=stages)


@dataclass(frozen=True)
class _Scope:
    """The loops around a block. What was asked once, which in an unrolled kernel is most of it, is remembered."""

    facts: tuple[Less, ...]
    ranges: Mapping[str, Index]
    answers: dict[Less, bool | None] = field(default_factory=dict)
    resolved: dict[Index, Index] = field(default_factory=dict)

    def block(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(part for statement in body for part in self._statement(statement))

    def _statement(self, statement: Stmt) -> tuple[Stmt, ...]:
        match statement:
            case For(var, extent, body):
                inside = _Scope(self.facts, {**self.ranges, var: extent})
                return (replace(statement, body=inside.block(body)),)
            case If(condition, body):
                inner = self.block(body)
                match self._holds(condition):
                    case True:
                        return inner
                    case False:
                        return ()
                    case None:
                        return (If(condition, inner),)
            case Alloc(buffer, body):
                return (Alloc(buffer, self.block(body)),)
            case Store(index=index, value=value):
                return (replace(statement, index=tuple(map(self._index, index)), value=self._value(value)),)
            case _:
                return (statement,)

    def _holds(self, condition: Less) -> bool | None:
        if condition not in self.answers:
            self.answers[condition] = proves(self.facts, condition, self.ranges)
        return self.answers[condition]

    def _value(self, value: Value) -> Value:
        return map_value(value, self._index, self._chosen)

    def _chosen(self, node: Value) -> Value:
        match node:
            case Choose(conditions, a, b):
                if any(self._holds(condition) is False for condition in conditions):
                    return b
                unsure = tuple(condition for condition in conditions if self._holds(condition) is None)
                return Choose(unsure, a, b) if unsure else a
            case _:
                return node

    def _index(self, expression: Index) -> Index:
        match expression:
            case IndexOp(op, a, b):
                if expression not in self.resolved:
                    self.resolved[expression] = self._operation(IndexOp(op, self._index(a), self._index(b)))
                return self.resolved[expression]
            case _:
                return expression

    def _operation(self, expression: IndexOp) -> Index:
        a, b = expression.a, expression.b
        match expression.op:
            case "min" | "max":
                below, above = (a, b) if expression.op == "min" else (b, a)
                if self._holds(Less(below, add(above, 1))):
                    return a
                return b if self._holds(Less(above, add(below, 1))) else expression
            case "%":
                return a if self._holds(Less(Int(-1), a)) and self._holds(Less(a, b)) else expression
            case _:
                return expression
