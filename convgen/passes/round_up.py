"""round_up: a sum gets more terms, which are zero, so that their number is a multiple of what is added at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.build import ceildiv, mul
from convgen.ir.nodes import For, Program, Stmt
from convgen.ir.rewrite import rewrite_named


@dataclass(frozen=True)
class RoundUp:
    """for r in R: acc = fma(x[r], w[r], acc)   →   for r in ceil(R / F) * F: acc = fma(x[r], w[r], acc)

    Requires: beyond the loop's extent x and w have elements, of which one is zero. Ensures: the same sums, the terms that are
    added being zero times a finite number.
    """

    loop: str
    factor: int

    def __call__(self, program: Program) -> Program:
        if self.factor < 1:
            raise IRError(f"factor={self.factor} of loop {self.loop} must be at least 1")
        return rewrite_named(program, self.loop, self._rounded)

    def _rounded(self, loop: For) -> tuple[Stmt, ...]:
        return (replace(loop, extent=mul(ceildiv(loop.extent, self.factor), self.factor)),)
