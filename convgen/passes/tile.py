"""tile: one loop becomes a loop over blocks and a loop inside a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from typing import Literal

from convgen.errors import IRError
from convgen.ir.build import add, ceildiv, floordiv, minimum, mod, mul, sub
from convgen.ir.nodes import For, If, Index, Int, Less, Program, Stmt
from convgen.ir.rewrite import map_stages, rewrite_loops, substitute_block


@dataclass(frozen=True)
class Tile:
    """for v in E: S   →   for v_outer in ...: for v_inner in factor: S[v = v_outer * factor + v_inner]

    Where factor does not divide E, ``tail`` says what becomes of the last, partial block. "guard": ``if v < E`` is put around
    S. "clamp": the inner loop's extent is min(factor, E - v_outer * factor). "rest": whole blocks are followed by a loop
    called ``rest`` over the remaining iterations.

    Requires: factor at least 1. Ensures: every iteration runs exactly once, in order.
    """

    loop: str
    factor: int
    outer: str
    inner: str
    tail: Literal["guard", "clamp", "rest"] = "guard"
    rest: str = ""

    def __call__(self, program: Program) -> Program:
        if self.factor < 1:
            raise IRError(f"factor={self.factor} of loop {self.loop} must be at least 1")
        return map_stages(program, lambda body: rewrite_loops(body, self.loop, self._tile))

    def _tile(self, loop: For) -> tuple[Stmt, ...]:
        value = add(mul(self.outer, self.factor), self.inner)
        body = substitute_block(loop.body, {self.loop: value})
        divides = self.factor == 1 or (isinstance(loop.extent, Int) and loop.extent.value % self.factor == 0)
        if self.tail == "rest" and not divides:
            whole = floordiv(loop.extent, self.factor)
            tail_value = add(mul(whole, self.factor), self.rest)
            tail = For(
                self.rest,
                mod(loop.extent, self.factor),
                substitute_block(loop.body, {self.loop: tail_value}),
                loop.kind,
            )
            blocks = For(self.outer, whole, (For(self.inner, Int(self.factor), body),), loop.kind)
            return tuple(part for part in (blocks, tail) if part.extent != Int(0))
        extent: Index = Int(self.factor)
        if not divides and self.tail == "clamp":
            extent = minimum(self.factor, sub(loop.extent, mul(self.outer, self.factor)))
        elif not divides:
            body = (If(Less(value, loop.extent), body),)
        inner = For(self.inner, extent, body)
        return (For(self.outer, ceildiv(loop.extent, self.factor), (inner,), loop.kind),)
