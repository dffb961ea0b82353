"""pipeline_copies: what a loop's iterations read is on its way to shared memory several iterations ahead."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.dtypes import DTYPES
from convgen.errors import IRError
from convgen.ir.build import add, mod
from convgen.ir.nodes import (
    Barrier,
    Buffer,
    Choose,
    Const,
    CopyAsync,
    CopyGroup,
    CopyWait,
    For,
    If,
    Index,
    Int,
    Less,
    Load,
    Program,
    Stmt,
    Store,
    TileLoad,
    Value,
)
from convgen.ir.rewrite import map_body, map_statement, rewrite_named, stores, substitute_block

# What a thread can copy without waiting.
COPY_BYTES = (4, 8, 16)


@dataclass(frozen=True)
class PipelineCopies:
    """for b in B: { s = x[b];  S[s] }
    →  for a in P - 1: { if a < B: s[a] <- x[a];  group };
       for b in B: { wait for all groups but P - 2;  barrier;
                     if b + P - 1 < B: s[(b + P - 1) % P] <- x[b + P - 1];  group;  S[s[b % P]] }

    ``loop`` is b, ``buffers`` are the local buffers that are filled at its beginning and get an axis of ``stages`` = P parts.
    Copies of 4, 8 or 16 bytes between memories of one type are asynchronous (``<-``), others plain stores.

    Requires: the loop's threads fill the buffers before anything else, and nothing else stores to them. Ensures: the same reads
    see the same elements; a part is filled behind a barrier that stands behind its last read, and read behind one that stands
    behind its filling.
    """

    loop: str
    buffers: tuple[str, ...]
    stages: int

    def __call__(self, program: Program) -> Program:
        if self.stages < 2:
            raise IRError(f"stages={self.stages} of loop {self.loop} must be at least 2")
        changed = rewrite_named(program, self.loop, lambda loop: self._pipelined(program, loop))
        return replace(changed, buffers=tuple(map(self._with_stages, changed.buffers)))

    def _with_stages(self, buffer: Buffer) -> Buffer:
        if buffer.name not in self.buffers:
            return buffer
        return replace(buffer, shape=(Int(self.stages), *buffer.shape))

    def _pipelined(self, program: Program, loop: For) -> tuple[Stmt, ...]:
        copies = [s for s in loop.body if {store.buffer for store in stores((s,))} & set(self.buffers)]
        if loop.body[: len(copies)] != tuple(copies):
            raise IRError(f"loop {self.loop} does not begin with the copies to {self.buffers}")
        rest = loop.body[len(copies) :]
        ahead = tuple(self._copy(program, copy) for copy in copies)

        def started(block: Index) -> Stmt:
            moved = substitute_block(ahead, {self.loop: block})
            return If(Less(block, loop.extent), tuple(self._in_part(s, mod(block, self.stages)) for s in moved))

        first: list[Stmt] = []
        for block in range(self.stages - 1):
            first += [started(Int(block)), CopyGroup()]
        body = (
            CopyWait(self.stages - 2),
            Barrier(),
            started(add(self.loop, self.stages - 1)),
            CopyGroup(),
            *(self._in_part(statement, mod(self.loop, self.stages)) for statement in rest),
        )
        return (*first, replace(loop, body=body))

    def _copy(self, program: Program, statement: Stmt) -> Stmt:
        """The copy without waiting, where it can be."""
        match statement:
            case Store(target, place, value, lanes, None) if target in self.buffers:
                source, conditions = _moved(value)
                if source is None or program.buffer(source.buffer).dtype != program.buffer(target).dtype:
                    return statement
                if lanes * DTYPES[program.buffer(target).dtype].itemsize not in COPY_BYTES:
                    return statement
                return CopyAsync(target, place, source.buffer, source.index, lanes, conditions)
            case _:
                return map_body(statement, lambda body: tuple(self._copy(program, inner) for inner in body))

    def _in_part(self, statement: Stmt, part: Index) -> Stmt:
        """The statement with the buffers' accesses in one of their parts."""

        def visit(value: Value) -> Value:
            match value:
                case Load(buffer, index) if buffer in self.buffers:
                    return replace(value, index=(part, *index))
                case _:
                    return value

        def moved(inner: Stmt) -> Stmt:
            match inner:
                case Store(buffer, index) if buffer in self.buffers:
                    return replace(inner, index=(part, *index))
                case CopyAsync(target, place) if target in self.buffers:
                    return replace(inner, target_index=(part, *place))
                case TileLoad(_, _, source, place, axis) if source in self.buffers:
                    return replace(inner, source_index=(part, *place), axis=axis + 1)
                case _:
                    return map_body(inner, lambda body: tuple(map(moved, body)))

        return moved(map_statement(statement, lambda index: index, visit))


def _moved(value: Value) -> tuple[Load | None, tuple[Less, ...]]:
    """What is copied as it is, and under what conditions."""
    match value:
        case Load(_, _, _, None, 1):
            return value, ()
        case Choose(conditions, Load(_, _, _, None, 1) as load, Const(0)):
            return load, conditions
        case _:
            return None, ()
