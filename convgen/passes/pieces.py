"""pieces: products of float32 become sums of products of bfloat16."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.nodes import (
    Arith,
    Buffer,
    Const,
    Fma,
    Int,
    Load,
    Program,
    Stage,
    Stmt,
    Store,
    Transpose,
    Value,
)
from convgen.ir.rewrite import map_body, reads


@dataclass(frozen=True)
class Pieces:
    """x[i] = v;  acc = fma(x[i], w[j], acc)
    →  x[0, i] = v;  x[1, i] = v - x[0, i];  acc = fma(x[1, i], w[0, j], acc);  acc = fma(x[0, i], w[1, j], acc);  ..

    ``source`` and ``weight`` are x and w, which become buffers of bfloat16 with an axis of so many ``pieces``; ``products`` lists
    the pairs of pieces whose products are added, in order.

    Requires: both are copies of float32 in memory of the call, stored by no transpose and read in such updates alone.
    Ensures: the same sums, but for the products that are left out and what the last piece rounds; numbers below 2**-118
    lose pieces that bfloat16 has no normal numbers for, and those above its largest, 3.39e38, become infinite.
    """

    source: str
    weight: str
    pieces: int
    products: tuple[tuple[int, int], ...]

    def __call__(self, program: Program) -> Program:
        for name in (self.source, self.weight):
            buffer = program.buffer(name)
            if buffer.dtype != "float32" or buffer.space not in ("workspace", "local", "packed"):
                raise IRError(f"{name} is not a copy of float32")
        stages = tuple(self._stage(stage) for stage in program.stages)
        return replace(program, buffers=tuple(map(self._in_pieces, program.buffers)), stages=stages)

    def _in_pieces(self, buffer: Buffer) -> Buffer:
        if buffer.name not in (self.source, self.weight):
            return buffer
        return replace(buffer, dtype="bfloat16", shape=(Int(self.pieces), *buffer.shape))

    def _stage(self, stage: Stage) -> Stage:
        return replace(stage, body=self._block(stage.body), views=tuple(map(self._in_pieces, stage.views)))

    def _block(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(part for statement in body for part in self._statement(statement))

    def _statement(self, statement: Stmt) -> tuple[Stmt, ...]:
        both = (self.source, self.weight)
        match statement:
            case Transpose(target, _, _, source) if target in both or source in both:
                raise IRError(f"{self.source} or {self.weight} is copied by a transpose")
            case Store(buffer) if buffer in both:
                return self._stored(statement)
            case Store(_, _, Fma(Load(self.source, x, 1, None, 1), Load(self.weight, w, 1, None, 1), total)):
                return tuple(
                    replace(
                        statement, value=Fma(Load(self.source, (Int(a), *x)), Load(self.weight, (Int(b), *w)), total)
                    )
                    for a, b in self.products
                )
            case Store() if any(read.buffer in both for read in reads((statement,))):
                raise IRError(f"{self.source} or {self.weight} is read outside of their product")
            case _:
                return (map_body(statement, self._block),)

    def _stored(self, store: Store) -> tuple[Stmt, ...]:
        """Each piece is what the ones before have left of the value."""
        result: list[Stmt] = []
        rest: Value = store.value
        for piece in range(self.pieces):
            place = (Int(piece), *store.index)
            result.append(replace(store, index=place, value=rest))
            if not isinstance(rest, Const):
                rest = Arith("-", rest, Load(store.buffer, place, store.lanes, store.count))
        return tuple(result)
