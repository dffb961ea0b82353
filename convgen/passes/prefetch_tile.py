"""prefetch_tile: what a register tile meets in memory once it is summed is asked for before its sums begin."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.ir.nodes import Load, Prefetch, Program, Stmt
from convgen.ir.rewrite import loops, map_body, map_stages, reads, stores

Body = tuple[Stmt, ...]


@dataclass(frozen=True)
class PrefetchTile:
    """for r: acc = acc + ..; y[p :16] = acc + z[p :16]   →   prefetch y[p :16]; prefetch z[p :16]; for r: ..; y[p :16] = ..

    In blocks that end, after a loop, with statements without loops, the vectors of ``buffers`` that these read or write are
    prefetched, whatever the conditions they stand under.

    A line that only this core writes waits in the second-level cache as well as one that was asked for with the intent to write,
    which would take a place in the first. Ensures: the same stores of the same values; blocks without such vectors stay.
    """

    buffers: tuple[str, ...]

    def __call__(self, program: Program) -> Program:
        return map_stages(program, self._block)

    def _block(self, body: Body) -> Body:
        last = max((place for place, one in enumerate(body) if any(True for _ in loops((one,)))), default=None)
        inner = tuple(map_body(statement, self._block) for statement in body)
        return inner if last is None else (*self._prefetches(body[last + 1 :]), *inner)

    def _prefetches(self, end: Body) -> Body:
        written = [(store.buffer, store.index, store.lanes) for store in stores(end)]
        read = [(load.buffer, load.index, load.lanes) for load in reads(end) if isinstance(load, Load)]
        return tuple(
            Prefetch(buffer, index, lanes)
            for buffer, index, lanes in dict.fromkeys((*written, *read))
            if buffer in self.buffers and lanes > 1
        )
