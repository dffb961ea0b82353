"""widen_reads: neighbours that are broadcast one after another are read at once."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.errors import IRError
from convgen.ir.affine import Affine, affine
from convgen.ir.nodes import Load, Program, Splat, Spread, Value
from convgen.ir.rewrite import map_stages, map_statement


@dataclass(frozen=True)
class WidenReads:
    """splat(x[i * W + c], L) with c < W   →   spread(x[i * W :W], L: lane c)   for every such read of ``buffer``; W is ``lanes``

    Requires: ``lanes`` is at least 2; the buffer's last axis has a multiple of so many elements wherever one of them is read.
    Ensures: other reads stay as they are.
    """

    buffer: str
    lanes: int

    def __call__(self, program: Program) -> Program:
        if self.lanes < 2:
            raise IRError(f"lanes={self.lanes} of {self.buffer} must be at least 2")
        return map_stages(
            program,
            lambda body: tuple(map_statement(statement, lambda index: index, self._widened) for statement in body),
        )

    def _widened(self, value: Value) -> Value:
        match value:
            case Splat(Load(buffer, index, 1, None, 1), lanes) if buffer == self.buffer:
                form = affine(index[-1])
                if any(factor % self.lanes for _, factor in form.terms):
                    return value
                lane = form.constant % self.lanes
                place = Affine(form.terms, form.constant - lane).index()
                return Spread(Load(buffer, (*index[:-1], place), self.lanes), lanes, lanes, 1, lane)
            case _:
                return value
