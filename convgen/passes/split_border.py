"""split_border: a loop's iterations near the edge of an image are kept apart from those that need no tests."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.build import add, maximum, minimum, sub
from convgen.ir.nodes import Choose, For, Less, Program, Stmt, Value, Var
from convgen.ir.rewrite import loops, map_body, map_statement, rewrite_named, substitute_block, variables
from convgen.passes.masked import choosing_without, inside


@dataclass(frozen=True)
class SplitBorder:
    """for v in E: S[x[v] if -1 < v + i and v + i < n else 0]
    →  for v_low in first: S[v = v_low];  for v in last - first: S[x[v + first]];  for v_high in E - last: S[v = v_high + last]

    for the iterations from first to last that meet every condition on v alone; conditions that involve loops inside it stay.
    Loops inside the two borders are renamed like v.

    Requires: there are such conditions, which are linear in v. Ensures: the same iterations in the same order.
    """

    loop: str

    def __call__(self, program: Program) -> Program:
        return rewrite_named(program, self.loop, self._split)

    def _split(self, loop: For) -> tuple[Stmt, ...]:
        nested = {inner.var for inner in loops(loop.body)}
        conditions = self._conditions(loop, nested)
        if not conditions:
            raise IRError(f"nothing in loop {self.loop} is chosen by conditions on {self.loop}")
        begin, end = inside(conditions, loop)
        first = minimum(begin, loop.extent)
        last = maximum(first, end)
        without = choosing_without(conditions)
        untested = tuple(map_statement(statement, lambda index: index, without) for statement in loop.body)
        body = substitute_block(untested, {self.loop: add(self.loop, first)})
        low, high = (
            _renamed(replace(loop, extent=extent), suffix)
            for extent, suffix in ((first, "low"), (sub(loop.extent, last), "high"))
        )
        high = replace(high, body=substitute_block(high.body, {high.var: add(high.var, last)}))
        return (low, replace(loop, extent=sub(last, first), body=body), high)

    def _conditions(self, loop: For, nested: set[str]) -> tuple[Less, ...]:
        """The conditions of choices in the body that involve the loop and none inside it."""
        found: dict[Less, None] = {}

        def visit(value: Value) -> Value:
            if isinstance(value, Choose):
                for condition in value.conditions:
                    involved = variables(condition.a) | variables(condition.b)
                    if self.loop in involved and not involved & nested:
                        found[condition] = None
            return value

        for statement in loop.body:
            map_statement(statement, lambda index: index, visit)
        return tuple(found)


def _renamed(statement: For, suffix: str) -> For:
    """The loop, and all loops in it, under another name."""

    def change(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(_renamed(inner, suffix) if isinstance(inner, For) else map_body(inner, change) for inner in body)

    name = f"{statement.var}_{suffix}"
    return replace(statement, var=name, body=substitute_block(change(statement.body), {statement.var: Var(name)}))
