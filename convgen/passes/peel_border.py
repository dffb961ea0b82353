"""peel_border: iterations of a loop that lie inside an image have none of its tests, and leave the others theirs."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from convgen.ir.affine import Affine
from convgen.ir.build import minimum
from convgen.ir.facts import slack
from convgen.ir.nodes import Alloc, Choose, For, If, Index, Int, Less, Program, Stmt, Value, Var
from convgen.ir.rewrite import loops, map_body, map_statement, rewrite_named, substitute_block, variables
from convgen.passes.masked import choosing_without


@dataclass(frozen=True)
class PeelBorder:
    """for v in E: { if -1 < v - 1: S;  if v + 1 < n: T }
    →  for v in E: { if -1 < room: { S; T };  if room < 0: { if -1 < v - 1: S;  if v + 1 < n: T } }

    where ``room`` is what the tightest of the conditions has to spare, of guards and choices that involve no loop inside. Unlike
    SplitBorder it takes conditions that are not linear and leaves two bodies, not three. Loops inside the second are renamed.
    Conditions that involve a loop inside stay in both.

    Requires: nothing; where there are no such conditions nothing changes. It is meant to run once on a loop. Ensures: the same
    stores in the same order.
    """

    loop: str

    def __call__(self, program: Program) -> Program:
        return rewrite_named(program, self.loop, self._peeled)

    def _peeled(self, loop: For) -> tuple[Stmt, ...]:
        conditions = _conditions(loop.body)
        if not conditions:
            return (loop,)
        room = functools.reduce(minimum, _tightest(conditions))
        inside = tuple(_without(statement, conditions) for statement in loop.body)
        border = tuple(_renamed(statement) for statement in loop.body)
        guarded = (
            If(Less(Int(-1), room), tuple(part for parts in inside for part in parts)),
            If(Less(room, Int(0)), border),
        )
        return (replace(loop, body=guarded),)


def _conditions(body: tuple[Stmt, ...]) -> frozenset[Less]:
    """The conditions in a body that involve no loop inside it."""
    nested = {inner.var for inner in loops(body)}
    found: set[Less] = set()

    def keep(condition: Less) -> None:
        if not (variables(condition.a) | variables(condition.b)) & nested:
            found.add(condition)

    def visit(value: Value) -> Value:
        if isinstance(value, Choose):
            for condition in value.conditions:
                keep(condition)
        return value

    def walk(inner: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        for statement in inner:
            if isinstance(statement, If):
                keep(statement.condition)
            map_body(statement, walk)
        return inner

    walk(body)
    for statement in body:
        map_statement(statement, lambda index: index, visit)
    return frozenset(found)


def _tightest(conditions: frozenset[Less]) -> tuple[Index, ...]:
    """What conditions have to spare, of those that differ by a constant the least."""
    least: dict[frozenset[tuple[Index, int]], Affine] = {}
    for form in map(slack, conditions):
        terms = frozenset(form.terms)
        if terms not in least or form.constant < least[terms].constant:
            least[terms] = form
    return tuple(form.index() for form in sorted(least.values(), key=repr))


def _without(statement: Stmt, conditions: frozenset[Less]) -> tuple[Stmt, ...]:
    """The statement where the conditions hold."""

    def block(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(part for inner in body for part in _without(inner, conditions))

    match statement:
        case If(condition, body) if condition in conditions:
            return block(body)
        case For() | If() | Alloc():
            return (map_body(statement, block),)
        case _:
            return (map_statement(statement, lambda index: index, choosing_without(conditions)),)


def _renamed(statement: Stmt) -> Stmt:
    """The statement with all loops in it under other names."""

    def change(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(map(_renamed, body))

    inner = map_body(statement, change)
    if not isinstance(inner, For):
        return inner
    name = f"{inner.var}_border"
    return replace(inner, var=name, body=substitute_block(inner.body, {inner.var: Var(name)}))
