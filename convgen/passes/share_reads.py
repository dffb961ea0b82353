"""share_reads: updates of registers that read the same element of an image are brought together."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.ir.nodes import Fma, Index, Load, Program, Stmt, Store
from convgen.ir.rewrite import map_body, map_stages, reads

Place = tuple[Index, ...]


@dataclass(frozen=True)
class _Update:
    """A multiply-add with numbers for what it reads and what it stores."""

    store: Store
    place: int
    register: int


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
            match statement:
                case Store(buffer) if self._read(statement) is not None:
                    if run and run[0].buffer != buffer:
                        result.extend(self._grouped(run))
                        run = []
                    run.append(statement)
                    continue
                case _:
                    kept = map_body(statement, self._block)
            result.extend(self._grouped(run))
            run = []
            result.append(kept)
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
        # Numbers for places and registers: comparing expressions would take most of the time.
        places: dict[Place, int] = {}
        registers: dict[Place, int] = {}
        rows: dict[Place, int] = {}
        row_of: list[int] = []
        left: list[_Update] = []
        for store in run:
            place = self._read(store)
            assert place is not None
            if place not in places:
                row_of.append(rows.setdefault(place[:-2], len(rows)))
            number = places.setdefault(place, len(places))
            left.append(_Update(store, number, registers.setdefault(store.index, len(registers))))
        result: list[Stmt] = []
        last: int | None = None
        while left:
            last = _next_place(left, None if last is None else row_of[last], row_of)
            kept: list[_Update] = []
            blocked: set[int] = set()
            for update in left:
                if update.place == last and update.register not in blocked:
                    result.append(update.store)
                else:
                    blocked.add(update.register)
                    kept.append(update)
            left = kept
        return result


def _next_place(left: list[_Update], row: int | None, row_of: list[int]) -> int:
    first: dict[int, int] = {}
    waiting = {update.place for update in left if first.setdefault(update.register, update.place) != update.place}
    ready = [update.place for update in left if update.place not in waiting]
    near = [place for place in ready if row_of[place] == row]
    return (near or ready or [left[0].place])[0]
