"""tile: one loop becomes a loop over blocks and a loop inside a block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from convgen.errors import IRError
from convgen.ir.build import add, as_index, ceildiv, divides, minimum, mul, sub
from convgen.ir.nodes import Alloc, For, If, Index, Int, Less, Program, Stage, Stmt
from convgen.ir.rewrite import loops, reads, rewrite_named, statements, stores, substitute_block, variables


@dataclass(frozen=True)
class Tile:
    """for v in E: S   →   for v_outer in ...: for v_inner in factor: S[v = v_outer * factor + v_inner]

    ``factor`` may be a size of the program. Where it does not divide E, ``tail`` says what becomes of the last, partial block.
    "guard": ``if v < E`` is put around S. "clamp": the inner loop's extent is min(factor, E - v_outer * factor). "overlap":
    the last block begins early, at E - factor, and repeats iterations of the one before.

    Requires: factor at least 1; for "overlap" E is at least factor, or 0, and S, which must not read memory that it stores,
    may run again. Ensures: every iteration runs, in order; without "overlap" exactly once.
    """

    loop: str
    factor: int | Index
    outer: str
    inner: str
    tail: Literal["guard", "clamp", "overlap"] = "guard"

    def __call__(self, program: Program) -> Program:
        if isinstance(self.factor, int) and self.factor < 1:
            raise IRError(f"factor={self.factor} of loop {self.loop} must be at least 1")
        stages = tuple(self._with_need(program, stage) for stage in program.stages)
        return rewrite_named(replace(program, stages=stages), self.loop, self._tile)

    def _with_need(self, program: Program, stage: Stage) -> Stage:
        """The stage, with what the extent must be for an early last block noted where the sizes decide it."""
        if self.tail != "overlap":
            return stage
        known = {*program.sizes, *(name for name, _ in stage.bindings)}
        extents = dict.fromkeys(loop.extent for loop in loops(stage.body) if loop.var == self.loop)
        needs = tuple(
            Less(mul(minimum(extent, 1), self.factor), add(extent, 1))
            for extent in extents
            if not isinstance(extent, Int) and variables(extent) <= known
        )
        return replace(stage, needs=(*stage.needs, *needs))

    def _tile(self, loop: For) -> tuple[Stmt, ...]:
        even = divides(self.factor, loop.extent)
        start, extent = mul(self.outer, self.factor), as_index(self.factor)
        if not even and self.tail == "overlap":
            self._check_repeatable(loop)
            start = minimum(start, sub(loop.extent, self.factor))
        value = add(start, self.inner)
        body = substitute_block(loop.body, {self.loop: value})
        if not even and self.tail == "clamp":
            extent = minimum(self.factor, sub(loop.extent, start))
        if not even and self.tail == "guard":
            body = (If(Less(value, loop.extent), body),)
        return (For(self.outer, ceildiv(loop.extent, self.factor), (For(self.inner, extent, body),), loop.kind),)

    def _check_repeatable(self, loop: For) -> None:
        private = {inner.buffer.name for inner in statements(loop.body) if isinstance(inner, Alloc)}
        both = {store.buffer for store in stores(loop.body)} & {read.buffer for read in reads(loop.body)} - private
        if both:
            raise IRError(f"loop {self.loop} cannot be repeated: {sorted(both)} is read and stored")
        if isinstance(self.factor, int) and isinstance(loop.extent, Int) and loop.extent.value < self.factor:
            raise IRError(f"factor={self.factor} is larger than the extent {loop.extent.value} of loop {self.loop}")
