"""simplify: index arithmetic in canonical form, guards and loops that are decided at compile time resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from convgen.ir.affine import affine, bounds, simplified
from convgen.ir.build import sub
from convgen.ir.nodes import (
    Alloc,
    Choose,
    For,
    If,
    Index,
    Int,
    Less,
    Program,
    Stmt,
    Store,
    Transform,
    Transpose,
    Value,
)
from convgen.ir.rewrite import map_condition, map_statement, map_value, substitute_block


@dataclass(frozen=True)
class Simplify:
    """(a * 4 + b) // 4 with b < 4  →  a;   if 0 < 1: S  →  S;   for v in 1: S  →  S[v = 0];   for v in 0: S  →  nothing

    With ``keep_unit_loops`` loops of one iteration stay, for passes that look for them; those of threads and warps always do.

    Requires: nothing. Ensures: the same stores in the same order; index expressions are sums in canonical form.
    """

    keep_unit_loops: bool = False

    def __call__(self, program: Program) -> Program:
        stages = tuple(replace(stage, body=self._block(stage.body, _Scope({}))) for stage in program.stages)
        return replace(program, stages=stages)

    def _block(self, body: tuple[Stmt, ...], scope: _Scope) -> tuple[Stmt, ...]:
        result: list[Stmt] = []
        for statement in body:
            match statement:
                case For():
                    result.extend(self._loop(statement, scope))
                case If(condition, inner):
                    result.extend(self._guard(condition, inner, scope))
                case Alloc(buffer, inner):
                    result.append(Alloc(buffer, self._block(inner, scope)))
                case Store(buffer, index, value, lanes, count):
                    place = tuple(map(scope.index, index))
                    limit = None if count is None else scope.index(count)
                    if isinstance(limit, Int) and limit.value >= lanes:
                        limit = None
                    result.append(Store(buffer, place, scope.value(value), lanes, limit))
                case Transform():
                    result.append(statement)
                case Transpose():
                    result.append(_transpose(statement, scope))
                case _:
                    result.append(map_statement(statement, scope.index))
        return tuple(result)

    def _loop(self, loop: For, scope: _Scope) -> tuple[Stmt, ...]:
        extent = scope.index(loop.extent)
        match extent:
            case Int(count) if count <= 0:
                return ()
            case Int(1) if not self.keep_unit_loops and loop.kind in ("serial", "parallel"):
                return self._block(substitute_block(loop.body, {loop.var: Int(0)}), scope)
        inner = self._block(loop.body, _Scope({**scope.extents, loop.var: extent}))
        return (For(loop.var, extent, inner, loop.kind),) if inner else ()

    def _guard(self, condition: Less, body: tuple[Stmt, ...], scope: _Scope) -> tuple[Stmt, ...]:
        inner = self._block(body, scope)
        match scope.decided(condition):
            case True:
                return inner
            case False:
                return ()
            case None:
                rewritten = map_condition(condition, scope.index)
                return (If(rewritten, inner),) if inner else ()


@dataclass(frozen=True)
class _Scope:
    """The loops around a block. In an unrolled kernel the same expressions come again and again and are simplified once."""

    extents: Mapping[str, Index]
    forms: dict[Index, Index] = field(default_factory=dict)

    def index(self, expression: Index) -> Index:
        if expression not in self.forms:
            self.forms[expression] = simplified(expression, self.extents)
        return self.forms[expression]

    def decided(self, condition: Less) -> bool | None:
        return _decided(condition, self.extents)

    def value(self, value: Value) -> Value:
        def visit(node: Value) -> Value:
            match node:
                case Choose(conditions, a, b):
                    open_conditions = [c for c in conditions if self.decided(c) is not True]
                    if any(self.decided(c) is False for c in open_conditions):
                        return b
                    return Choose(tuple(open_conditions), a, b) if open_conditions else a
                case _:
                    return node

        return map_value(value, self.index, visit)


def _transpose(transpose: Transpose, scope: _Scope) -> Stmt:
    def limit(count: Index | None) -> Index | None:
        if count is None or scope.decided(Less(sub(count, transpose.size), Int(0))) is False:
            return None
        return count

    limited = replace(transpose, rows=limit(transpose.rows), columns=limit(transpose.columns))
    return map_statement(limited, scope.index)


def _decided(condition: Less, extents: Mapping[str, Index]) -> bool | None:
    low, high = bounds(affine(sub(condition.a, condition.b), extents), extents)
    if high is not None and high < 0:
        return True
    if low is not None and low >= 0:
        return False
    return None
