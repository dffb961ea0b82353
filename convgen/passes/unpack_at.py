"""unpack_at: results are collected in a worker's own memory and copied to their places piece by piece."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.build import add, sub
from convgen.ir.nodes import For, Index, Load, Program, Stmt, Store, Transpose, Var
from convgen.ir.regions import region, stores_with_loops
from convgen.ir.rewrite import map_body, rewrite_named
from convgen.passes.compute_at import copy_nest


@dataclass(frozen=True)
class UnpackAt:
    """stage s: for t: for u: b[t * T + u] = v;  stage a: for i: y[i] = b[i]
    →  stage s: for t: { for u: b[u] = v;  for i in U: y[t * T + i] = b[i] }   and b is local

    The mirror image of compute_at. ``shape`` is that of the local buffer.

    Requires: stage a is one perfect nest around one copy at its loop variables; others store to the buffer inside ``loop`` alone,
    at places that are sums of loop variables times 1, all within ``shape``, and to all of each region. Ensures: stage a is gone.
    """

    stage: str
    loop: str
    shape: tuple[Index, ...]

    def __call__(self, program: Program) -> Program:
        consumer = next((stage for stage in program.stages if stage.name == self.stage), None)
        if consumer is None:
            raise IRError(f"there is no stage {self.stage}")
        nest, store = copy_nest(consumer)
        if not isinstance(store.value, Load):
            raise IRError(f"stage {self.stage} is not a copy")
        buffer = program.buffer(store.value.buffer)
        if len(self.shape) != len(buffer.shape) or buffer.space != "workspace":
            raise IRError(f"{buffer.name} is not a workspace buffer with {len(self.shape)} axes")
        local = replace(buffer, shape=self.shape, space="local")
        others = replace(program, stages=tuple(stage for stage in program.stages if stage is not consumer))
        moved = rewrite_named(others, self.loop, lambda loop: (self._with_copy(loop, nest, store),))
        return replace(moved, buffers=tuple(local if b is buffer else b for b in program.buffers))

    def _with_copy(self, loop: For, nest: tuple[For, ...], copy: Store) -> For:
        assert isinstance(copy.value, Load)
        buffer, read = copy.value.buffer, copy.value.index
        found = [around for around in stores_with_loops(loop.body) if around.store.buffer == buffer]
        regions = {tuple(region(index, around) for index in around.store.index) for around in found}
        if not regions:
            return loop
        if len(regions) > 1:
            raise IRError(f"{buffer} is stored in several regions inside loop {self.loop}")
        pieces = regions.pop()
        origin = tuple(first for first, _ in pieces)
        body = tuple(self._redirect(inner, buffer, origin) for inner in loop.body)
        places = {index.name: piece for index, piece in zip(read, pieces, strict=True) if isinstance(index, Var)}
        target = tuple(add(i, places[i.name][0]) if isinstance(i, Var) else i for i in copy.index)
        statement: Stmt = Store(copy.buffer, target, copy.value)
        for outer in reversed(nest):
            statement = For(outer.var, places[outer.var][1], (statement,))
        return replace(loop, body=(*body, statement))

    def _redirect(self, statement: Stmt, buffer: str, origin: tuple[Index, ...]) -> Stmt:
        match statement:
            case Store(name, index, value, 1, None) if name == buffer:
                return Store(name, tuple(map(sub, index, origin)), value)
            case Store(name) | Transpose(name) if name == buffer:
                raise IRError(f"{buffer} is stored in vectors")
            case _:
                return map_body(statement, lambda body: tuple(self._redirect(i, buffer, origin) for i in body))
