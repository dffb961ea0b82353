"""tile: one loop becomes a loop over blocks and a loop inside a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from convgen.errors import IRError
from convgen.ir.build import add, as_index, ceildiv, minimum, mul, sub
from convgen.ir.nodes import Alloc, For, If, Index, Int, Less, Program, Stmt
from convgen.ir.rewrite import reads, rewrite_named, statements, stores, substitute_block


@dataclass(frozen=True)
class Tile:
    """for v in E: S   →   for v_outer in ...: for v_inner in factor: S[v = v_outer * factor + v_inner]

    ``factor`` may be a size of the program. Where it does not divide E, ``tail`` says what becomes of the last, partial block.
    "guard": ``if v < E`` is put around S. "clamp": the inner loop's extent is min(factor, E - v_outer * factor). "overlap":
    the last block begins early, at E - factor, and repeats iterations of the one before.

    Requires: factor at least 1; for "overlap" E is at least factor and S, which must not read memory that it stores, may run
    again. Ensures: every iteration runs, in order; without "overlap" exactly once.
    """

    loop: str
    factor: int | Index
    outer: str
    inner: str
    tail: Literal["guard", "clamp", "overlap"] = "guard"

    def __call__(self, program: Program) -> Program:
        if isinstance(self.factor, int) and self.factor < 1:
            raise IRError(f"factor={self.factor} of loop {self.loop} must be at least 1")
        return rewrite_named(program, self.loop, self._tile)

    def _tile(self, loop: For) -> tuple[Stmt, ...]:
        divides = self.factor == 1 or _divides(self.factor, loop.extent)
        start, extent = mul(self.outer, self.factor), as_index(self.factor)
        if not divides and self.tail == "overlap":
            self._check_repeatable(loop)
            start = minimum(start, sub(loop.extent, self.factor))
        value = add(start, self.inner)
        body = substitute_block(loop.body, {self.loop: value})
        if not divides and self.tail == "clamp":
            extent = minimum(self.factor, sub(loop.extent, start))
        if not divides and self.tail == "guard":
            body = (If(Less(value, loop.extent), body),)
        return (For(self.outer, ceildiv(loop.extent, self.factor), (For(self.inner, extent, body),), loop.kind),)

    def _check_repeatable(self, loop: For) -> None:
        private = {inner.buffer.name for inner in statements(loop.body) if isinstance(inner, Alloc)}
        both = {store.buffer for store in stores(loop.body)} & {read.buffer for read in reads(loop.body)} - private
        if both:
            raise IRError(f"loop {self.loop} cannot be repeated: {sorted(both)} is read and stored")
        if isinstance(self.factor, int) and isinstance(loop.extent, Int) and loop.extent.value < self.factor:
            raise IRError(f"factor={self.factor} is larger than the extent {loop.extent.value} of loop {self.loop}")


def _divides(factor: int | Index, extent: Index) -> bool:
    return isinstance(factor, int) and isinstance(extent, Int) and extent.value % factor == 0
