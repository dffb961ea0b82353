"""prefetch: what a loop will read or write of a buffer some iterations later is asked for now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convgen.ir.affine import Affine, affine
from convgen.ir.build import add
from convgen.ir.nodes import For, Index, Load, Prefetch, Program, Stmt
from convgen.ir.rewrite import loops, map_body, map_stages, reads, stores, substitute

Body = tuple[Stmt, ...]


@dataclass(frozen=True)
class PrefetchReads:
    """for v: acc = acc + x[v :32] * y   →   for v: prefetch x[v + 2048 :32]; acc = acc + x[v :32] * y

    In innermost loops every vector of ``buffer`` that is read is preceded by a prefetch of as many elements, ``ahead`` places
    further along ``axis``; with ``loops``, in the first of these alone, and of what no read has met in an earlier iteration of
    any of them.

    Ensures: the same stores of the same values; loops that do not read the buffer in vectors stay.
    """

    buffer: str
    ahead: int
    loops: tuple[str, ...] = ()
    axis: int = -1

    def __call__(self, program: Program) -> Program:
        return _in_innermost(program, self._prefetches, self.loops[:1])

    def _prefetches(self, body: Body) -> Body:
        vectors = dict.fromkeys(
            read for read in reads(body) if isinstance(read, Load) and read.buffer == self.buffer and read.lanes > 1
        )
        places = {_place(read.index) for read in vectors}
        return tuple(
            Prefetch(read.buffer, _ahead(read.index, self.axis, self.ahead), read.lanes)
            for read in vectors
            if not any(_place(_next(read.index, loop)) in places for loop in self.loops)
        )


@dataclass(frozen=True)
class PrefetchWrites:
    """for v: y[v :32] = x   →   for v: prefetch y[v + 2048 :32]; y[v :32] = x

    In innermost loops every vector of ``buffer`` that is written is preceded by a prefetch of as many elements, ``ahead`` places
    further along ``axis``, whatever the conditions that it is written under.

    Ensures: the same stores of the same values; loops that do not write the buffer in vectors stay.
    """

    buffer: str
    ahead: int
    axis: int = -1

    def __call__(self, program: Program) -> Program:
        return _in_innermost(program, self._prefetches)

    def _prefetches(self, body: Body) -> Body:
        places = ((s.index, s.lanes) for s in stores(body) if s.buffer == self.buffer and s.lanes > 1)
        return tuple(
            Prefetch(self.buffer, _ahead(index, self.axis, self.ahead), lanes) for index, lanes in dict.fromkeys(places)
        )


def _in_innermost(program: Program, prefetches: Callable[[Body], Body], only: tuple[str, ...] = ()) -> Program:
    """The program with prefetches at the head of every innermost loop, or of those with the given variables."""

    def statement(one: Stmt) -> Stmt:
        if not isinstance(one, For) or any(True for _ in loops(one.body)):
            return map_body(one, block)
        return one if only and one.var not in only else map_body(one, lambda body: (*prefetches(body), *body))

    def block(body: Body) -> Body:
        return tuple(map(statement, body))

    return map_stages(program, block)


def _ahead(index: tuple[Index, ...], axis: int, places: int) -> tuple[Index, ...]:
    """So many places further along an axis."""
    axis %= len(index)
    return (*index[:axis], add(index[axis], places), *index[axis + 1 :])


def _next(index: tuple[Index, ...], loop: str) -> tuple[Index, ...]:
    """What is read there in the next iteration of a loop."""
    return tuple(substitute(part, {loop: add(loop, 1)}) for part in index)


def _place(index: tuple[Index, ...]) -> tuple[Affine, ...]:
    return tuple(map(affine, index))
