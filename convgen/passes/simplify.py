"""simplify: index arithmetic in canonical form, guards and loops that are decided at compile time resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from convgen.ir.affine import affine, bounds, simplified
from convgen.ir.build import sub
from convgen.ir.nodes import Alloc, Choose, For, If, Index, Int, Less, Program, Stmt, Store, Transform, Value
from convgen.ir.rewrite import map_condition, map_value, substitute_block


@dataclass(frozen=True)
class Simplify:
    """(a * 4 + b) // 4 with b < 4  →  a;   if 0 < 1: S  →  S;   for v in 1: S  →  S[v = 0];   for v in 0: S  →  nothing

    With ``keep_unit_loops`` loops of one iteration stay, for passes that look for them.

    Requires: nothing. Ensures: the same stores in the same order; index expressions are sums in canonical form.
    """

    keep_unit_loops: bool = False

    def __call__(self, program: Program) -> Program:
        stages = tuple(replace(stage, body=self._block(stage.body, {})) for stage in program.stages)
        return replace(program, stages=stages)

    def _block(self, body: tuple[Stmt, ...], ranges: Mapping[str, Index]) -> tuple[Stmt, ...]:
        result: list[Stmt] = []
        for statement in body:
            match statement:
                case For():
                    result.extend(self._loop(statement, ranges))
                case If(condition, inner):
                    result.extend(self._guard(condition, inner, ranges))
                case Alloc(buffer, inner):
                    result.append(Alloc(buffer, self._block(inner, ranges)))
                case Store(buffer, index, value, lanes, count):
                    place = tuple(simplified(i, ranges) for i in index)
                    limit = None if count is None else simplified(count, ranges)
                    if isinstance(limit, Int) and limit.value >= lanes:
                        limit = None
                    result.append(Store(buffer, place, _value(value, ranges), lanes, limit))
                case Transform():
                    result.append(statement)
        return tuple(result)

    def _loop(self, loop: For, ranges: Mapping[str, Index]) -> tuple[Stmt, ...]:
        extent = simplified(loop.extent, ranges)
        match extent:
            case Int(count) if count <= 0:
                return ()
            case Int(1) if not self.keep_unit_loops:
                return self._block(substitute_block(loop.body, {loop.var: Int(0)}), ranges)
        inner = self._block(loop.body, {**ranges, loop.var: extent})
        return (For(loop.var, extent, inner, loop.kind),) if inner else ()

    def _guard(self, condition: Less, body: tuple[Stmt, ...], ranges: Mapping[str, Index]) -> tuple[Stmt, ...]:
        inner = self._block(body, ranges)
        match _decided(condition, ranges):
            case True:
                return inner
            case False:
                return ()
            case None:
                rewritten = map_condition(condition, lambda i: simplified(i, ranges))
                return (If(rewritten, inner),) if inner else ()


def _decided(condition: Less, ranges: Mapping[str, Index]) -> bool | None:
    low, high = bounds(affine(sub(condition.a, condition.b), ranges), ranges)
    if high is not None and high < 0:
        return True
    if low is not None and low >= 0:
        return False
    return None


def _value(value: Value, ranges: Mapping[str, Index]) -> Value:
    def visit(node: Value) -> Value:
        match node:
            case Choose(conditions, a, b):
                open_conditions = [c for c in conditions if _decided(c, ranges) is not True]
                if any(_decided(c, ranges) is False for c in open_conditions):
                    return b
                return Choose(tuple(open_conditions), a, b) if open_conditions else a
            case _:
                return node

    return map_value(value, lambda index: simplified(index, ranges), visit)
