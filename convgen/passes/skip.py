"""skip: updates that would add zeros from outside of an image are jumped over."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from convgen.ir.nodes import If, Less, Program, Stmt
from convgen.ir.rewrite import map_body, map_stages
from convgen.passes.masked import masked_update


@dataclass(frozen=True)
class Skip:
    """acc0 = fma(x if i < n else 0, w0, acc0); acc1 = fma(x if i < n else 0, w1, acc1)
    →  if i < n: { acc0 = fma(x, w0, acc0); acc1 = fma(x, w1, acc1) }

    Neighbours under the same conditions share the guard.

    Requires: nothing. Ensures: the same sums, the terms that are left out being zero times a finite weight.
    """

    def __call__(self, program: Program) -> Program:
        return map_stages(program, self._block)

    def _block(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        result: list[Stmt] = []
        for condition, group in itertools.groupby(body, _first_condition):
            inner = tuple(group)
            if condition is not None:
                result.append(If(condition, self._block(tuple(_without(statement, condition) for statement in inner))))
                continue
            result.extend(map_body(statement, self._block) for statement in inner)
        return tuple(result)


def _first_condition(statement: Stmt) -> Less | None:
    update = masked_update(statement)
    return update.conditions[0] if update else None


def _without(statement: Stmt, condition: Less) -> Stmt:
    update = masked_update(statement)
    return update.under(tuple(c for c in update.conditions if c != condition)) if update else statement
