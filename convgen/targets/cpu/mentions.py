"""What a stage mentions: names, index expressions, loops."""

from __future__ import annotations

from collections.abc import Iterator

from convgen.ir.nodes import (
    Alloc,
    Choose,
    For,
    If,
    Index,
    Load,
    Prefetch,
    Program,
    Stage,
    Stmt,
)
from convgen.ir.rewrite import reads, statements, stores, values, variables

# The size of one worker's local memory, among a stage's sizes.
WORKER_BYTES = "worker_bytes"


def mentioned_names(program: Program, stage: Stage) -> frozenset[str]:
    """Every name that an index, extent or condition of the stage mentions, and the strides of the buffers it accesses."""
    found: set[str] = set()

    def note(*expressions: Index | None) -> None:
        for expression in expressions:
            if expression is not None:
                found.update(variables(expression))

    for statement in statements(stage.body):
        match statement:
            case For():
                note(statement.extent)
            case If(condition):
                note(condition.a, condition.b)
            case Prefetch(_, index):
                note(*index)
            case _:
                pass
    for read in reads(stage.body):
        note(*read.index)
    for store in stores(stage.body):
        note(*store.index, store.count)
        for value in values(store.value):
            match value:
                case Load():
                    note(*value.index, value.count)
                case Choose(conditions):
                    note(*(side for c in conditions for side in (c.a, c.b)))
                case _:
                    pass
    for access in (*reads(stage.body), *stores(stage.body)):
        if program.has_buffer(access.buffer):
            seen = program.seen(stage, access.buffer)
            note(*seen.shape[1:])
            if seen.space == "local":
                found.add(WORKER_BYTES)
    return frozenset(found)


def store_expressions(body: tuple[Stmt, ...]) -> Iterator[Index]:
    """Every index and count in a block's stores; extents and conditions are used where they stand."""
    for store in stores(body):
        yield from store.index
        if store.count is not None:
            yield store.count
        for read in reads((store,)):
            yield from read.index
            if isinstance(read, Load) and read.count is not None:
                yield read.count


def outer_loops(body: tuple[Stmt, ...]) -> Iterator[For]:
    """The outermost loops of a block."""
    for statement in body:
        match statement:
            case For():
                yield statement
            case If(_, inner) | Alloc(_, inner):
                yield from outer_loops(inner)
            case _:
                pass
