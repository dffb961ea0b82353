"""compute_at: a copy is made piece by piece, each piece in a worker's own memory just before it is needed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.build import add, sub
from convgen.ir.nodes import For, Index, Int, Load, Program, Stage, Stmt, Store, Value, Var
from convgen.ir.regions import region, stores_with_loops
from convgen.ir.rewrite import (
    loops,
    map_statement,
    map_value,
    perfect_nest,
    reads,
    rewrite_named,
    substitute,
    substitute_block,
    values,
)


@dataclass(frozen=True)
class ComputeAt:
    """stage a: for i: b[i] = f(i);  stage s: for t: for u: S(b[t * T + u])
    →  stage s: for t: { for i in U: b[i] = f(t * T + i);  for u: S(b[u]) }   and b is local

    (Ragan-Kelley et al., "Halide", 2013.) ``shape`` is that of the local buffer.

    Requires: stage a is one perfect nest around one store at its loop variables; others read the buffer inside ``loop`` alone, at
    places that are sums of multiples of loop variables, all within ``shape``. Ensures: stage a is gone.
    """

    stage: str
    loop: str
    shape: tuple[Index, ...]

    def __call__(self, program: Program) -> Program:
        producer = next((stage for stage in program.stages if stage.name == self.stage), None)
        if producer is None:
            raise IRError(f"there is no stage {self.stage}")
        nest, store = copy_nest(producer)
        buffer = program.buffer(store.buffer)
        if len(self.shape) != len(buffer.shape) or buffer.space != "workspace":
            raise IRError(f"{buffer.name} is not a workspace buffer with {len(self.shape)} axes")
        local = replace(buffer, shape=self.shape, space="local")
        others = replace(program, stages=tuple(stage for stage in program.stages if stage is not producer))
        moved = rewrite_named(others, self.loop, lambda loop: (self._with_copy(loop, nest, store),))
        for stage in others.stages:
            before = sum(read.buffer == buffer.name for read in reads(stage.body))
            found = [loop for loop in loops(stage.body) if loop.var == self.loop]
            inside = sum(read.buffer == buffer.name for loop in found for read in reads(loop.body))
            if before != inside:
                raise IRError(f"stage {stage.name} reads {buffer.name} outside loop {self.loop}")
        return replace(moved, buffers=tuple(local if b is buffer else b for b in program.buffers))

    def _with_copy(self, loop: For, nest: tuple[For, ...], copy: Store) -> For:
        places = [
            (read.index, around)
            for around in stores_with_loops(loop.body)
            for read in values(around.store.value)
            if isinstance(read, Load) and read.buffer == copy.buffer
        ]
        regions = {tuple(region(index, around) for index in place) for place, around in places}
        if not regions:
            return loop
        if len(regions) > 1:
            raise IRError(f"{copy.buffer} is read in several regions inside loop {self.loop}")
        pieces = regions.pop()
        body = tuple(self._redirect(inner, copy.buffer, tuple(first for first, _ in pieces)) for inner in loop.body)
        if any(Int(0) in around.loops.values() for _, around in places):
            return replace(loop, body=body)
        return replace(loop, body=(*piece_of_copy(nest, copy, pieces), *body))

    @staticmethod
    def _redirect(statement: Stmt, buffer: str, origin: tuple[Index, ...]) -> Stmt:
        def visit(value: Value) -> Value:
            match value:
                case Load(name, index, 1, None) if name == buffer:
                    return Load(name, tuple(map(sub, index, origin)))
                case Load(name) if name == buffer:
                    raise IRError(f"{buffer} is read in vectors")
                case _:
                    return value

        return map_statement(statement, lambda index: index, visit)


def copy_nest(stage: Stage) -> tuple[tuple[For, ...], Store]:
    """The loops of a stage that copies, and its store at their variables, with the stage's bindings put in."""
    nest, body = perfect_nest(substitute_block(stage.body, dict(stage.bindings)))
    if len(body) != 1 or not isinstance(store := body[0], Store) or store.lanes != 1:
        raise IRError(f"stage {stage.name} is not a nest around one store")
    if set(store.index) != {Var(loop.var) for loop in nest} or len(store.index) != len(nest):
        raise IRError(f"stage {stage.name} does not store at its loop variables")
    return nest, store


def piece_of_copy(nest: tuple[For, ...], copy: Store, pieces: tuple[tuple[Index, Index], ...]) -> tuple[Stmt, ...]:
    """The copy of a region, (first, count) along each axis of what is stored, into a buffer that begins there."""
    places = dict(zip((index.name for index in copy.index if isinstance(index, Var)), pieces, strict=True))
    moved = {name: add(name, first) for name, (first, _) in places.items()}
    value = map_value(copy.value, lambda index: substitute(index, moved))
    body: Stmt = replace(copy, value=value)
    for loop in reversed(nest):
        body = For(loop.var, places[loop.var][1], (body,))
    return (body,)
