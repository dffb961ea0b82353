"""prefetch: what a loop will read of a buffer some iterations later is asked for now."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.errors import IRError
from convgen.ir.affine import Affine, affine
from convgen.ir.build import add
from convgen.ir.nodes import For, Index, Load, Prefetch, Program, Stmt
from convgen.ir.rewrite import loops, map_body, map_stages, reads, substitute


@dataclass(frozen=True)
class PrefetchReads:
    """for v: acc = acc + x[v :32] * y   →   for v: prefetch x[v :32] + 2048; acc = acc + x[v :32] * y

    In innermost loops every vector of ``buffer`` that is read is preceded by a prefetch of as many elements, ``ahead`` elements
    behind it; with ``loops``, in the first of these alone, and of what no read has met in an earlier iteration of any of them.

    Requires: an innermost loop that reads the buffer in vectors. Ensures: the same stores of the same values.
    """

    buffer: str
    ahead: int
    loops: tuple[str, ...] = ()

    def __call__(self, program: Program) -> Program:
        changed = map_stages(program, self._block)
        if changed == program:
            raise IRError(f"no innermost loop reads {self.buffer} in vectors")
        return changed

    def _block(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(map(self._statement, body))

    def _statement(self, statement: Stmt) -> Stmt:
        if isinstance(statement, For) and not any(True for _ in loops(statement.body)):
            named = not self.loops or statement.var == self.loops[0]
            return map_body(statement, self._with_prefetches) if named else statement
        return map_body(statement, self._block)

    def _with_prefetches(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        vectors = dict.fromkeys(
            read for read in reads(body) if isinstance(read, Load) and read.buffer == self.buffer and read.lanes > 1
        )
        places = {_place(read.index) for read in vectors}
        found = (
            Prefetch(read.buffer, read.index, read.lanes, self.ahead)
            for read in vectors
            if not any(_place(_next(read.index, loop)) in places for loop in self.loops)
        )
        return (*found, *body)


def _next(index: tuple[Index, ...], loop: str) -> tuple[Index, ...]:
    """What is read there in the next iteration of a loop."""
    return tuple(substitute(part, {loop: add(loop, 1)}) for part in index)


def _place(index: tuple[Index, ...]) -> tuple[Affine, ...]:
    return tuple(map(affine, index))
