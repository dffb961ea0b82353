"""unroll: a loop of constant extent becomes its iterations, one after another."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.errors import IRError
from convgen.ir.nodes import For, Int, Program, Stmt
from convgen.ir.rewrite import rewrite_named, substitute_block


@dataclass(frozen=True)
class Unroll:
    """for v in 3: S   →   S[v = 0]; S[v = 1]; S[v = 2]

    Requires: a constant extent. Ensures: the same statements in the same order.
    """

    loop: str

    def __call__(self, program: Program) -> Program:
        return rewrite_named(program, self.loop, self._unroll)

    def _unroll(self, loop: For) -> tuple[Stmt, ...]:
        if not isinstance(loop.extent, Int):
            raise IRError(f"the extent of loop {self.loop} is not constant")
        copies: list[Stmt] = []
        for i in range(loop.extent.value):
            copies.extend(substitute_block(loop.body, {self.loop: Int(i)}))
        return tuple(copies)
