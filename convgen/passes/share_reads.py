"""share_reads: updates of registers that read the same element of an image are brought together."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.ir.nodes import Alloc, Fma, For, If, Index, Load, Program, Stmt, Store
from convgen.ir.rewrite import map_stages, reads

Place = tuple[Index, ...]


@dataclass(frozen=True)
class ShareReads:
    """a = f(x[0], a); b = f(x[1], b); a = g(x[1], a)   →   a = f(x[0], a); b = f(x[1], b); a = g(x[1], a)
    with the updates in the order in which their elements of ``buffer`` are first read

    Requires: nothing; only runs of multiply-adds that read no register but the one they store are reordered. Ensures: each
    register sees the same operations in the same order.
    """

    buffer: str

    def __call__(self, program: Program) -> Program:
        return map_stages(program, self._block)

    def _block(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        result: list[Stmt] = []
        run: list[Store] = []
        for statement in body:
            joins = isinstance(statement, Store) and self._read(statement) is not None
            if joins and (not run or run[0].buffer == statement.buffer):
                run.append(statement)
                continue
            result.extend(self._grouped(run))
            run = [statement] if joins else []
            match statement:
                case For(var, extent, inner, kind):
                    result.append(For(var, extent, self._block(inner), kind))
                case If(condition, inner):
                    result.append(If(condition, self._block(inner)))
                case Alloc(buffer, inner):
                    result.append(Alloc(buffer, self._block(inner)))
                case Store() if not joins:
                    result.append(statement)
        return (*result, *self._grouped(run))

    def _read(self, store: Store) -> Place | None:
        """Where a multiply-add reads the buffer; None for any other store."""
        match store.value:
            case Fma(_, _, Load(buffer, index)) if (buffer, index) == (store.buffer, store.index):
                found = list(reads((store,)))
                places = [read.index for read in found if read.buffer == self.buffer]
                alone = all(read.index == index for read in found if read.buffer == buffer)
                return places[0] if len(places) == 1 and alone and buffer != self.buffer else None
            case _:
                return None

    def _grouped(self, run: list[Store]) -> list[Stmt]:
        """The run, element by element; next comes one whose updates may all be made, if possible in the row of the last."""
        left = [(store, self._read(store)) for store in run]
        result: list[Stmt] = []
        place: Place | None = None
        while left:
            place = _next_place(left, place)
            kept: list[tuple[Store, Place | None]] = []
            blocked: set[Place] = set()
            for store, where in left:
                if where == place and store.index not in blocked:
                    result.append(store)
                else:
                    blocked.add(store.index)
                    kept.append((store, where))
            left = kept
        return result


def _next_place(left: list[tuple[Store, Place | None]], last: Place | None) -> Place | None:
    first: dict[Place, Place | None] = {}
    waiting: set[Place | None] = set()
    for store, where in left:
        if first.setdefault(store.index, where) != where:
            waiting.add(where)
    ready = [where for _, where in left if where not in waiting]
    near = [where for where in ready if where and last and where[:-2] == last[:-2]]
    return (near or ready or [left[0][1]])[0]
