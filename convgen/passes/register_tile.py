"""register_tile: a scalar accumulator becomes a tile of registers, and the tile's loops move inside the reduction."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.affine import affine
from convgen.ir.nodes import (
    Alloc,
    Buffer,
    For,
    If,
    Index,
    Int,
    Less,
    Load,
    Program,
    Stmt,
    Store,
    Value,
    Var,
)
from convgen.ir.rewrite import map_statement, reads, rewrite_named, stores, variables


@dataclass(frozen=True)
class RegisterTile:
    """for a: for b: alloc acc[]: { init; for r: update; finish }
    →  alloc acc[A, B]: { for a: for b: init;  for r: for a: for b: update;  for a: for b: finish }

    (scalar expansion, loop distribution and interchange in one step). A guard that ``tile`` put into the nest stays on
    ``finish``, as does one around a store of ``finish``; it is dropped from ``init`` and ``update`` where all they read stays
    inside its buffer without it, because what they store is private.

    Requires: ``loops`` are perfectly nested around one alloc, of constant extent; the reduction's extents do not depend on
    them; a memory buffer that is both read and stored is accessed at one place, in which each loop moves an index of its own.
    Ensures: each accumulator sees the same operations in the same order.
    """

    loops: tuple[str, ...]

    def __call__(self, program: Program) -> Program:
        shapes = {buffer.name: buffer.shape for buffer in program.buffers}

        def change(loop: For) -> tuple[Stmt, ...]:
            return TileNest.collect(loop, self.loops, shapes).distributed()

        return rewrite_named(program, self.loops[0], change)


@dataclass(frozen=True)
class TileNest:
    """The loops, the guards between them and the alloc inside."""

    loops: tuple[tuple[str, Int], ...]
    guards: tuple[Less, ...]
    alloc: Alloc
    shapes: dict[str, tuple[Index, ...]]

    @staticmethod
    def collect(loop: For, names: tuple[str, ...], shapes: dict[str, tuple[Index, ...]]) -> TileNest:
        found: list[tuple[str, Int]] = []
        guards: list[Less] = []
        statement: Stmt = loop
        while not isinstance(statement, Alloc):
            match statement:
                case For(var, Int() as extent, (inner,), "serial") if var == names[len(found) : len(found) + 1][0]:
                    found.append((var, extent))
                    statement = inner
                case If(condition, (inner,)):
                    guards.append(condition)
                    statement = inner
                case _:
                    raise IRError(f"loops {names} are not perfectly nested around one alloc")
            if len(found) == len(names) and isinstance(statement, For):
                raise IRError(f"loop {statement.var} stands between {names[-1]} and the alloc")
        if len(found) < len(names):
            raise IRError(f"loops {names[len(found) :]} are not among those around the alloc in {names[0]}")
        nest = TileNest(tuple(found), tuple(guards), statement, shapes)
        nest.check()
        return nest

    def check(self) -> None:
        stored = {store.buffer for store in stores(self.alloc.body)}
        shared = stored & {read.buffer for read in reads(self.alloc.body)} - {self.alloc.buffer.name}
        for name in sorted(shared):
            accesses = (*stores(self.alloc.body), *reads(self.alloc.body))
            places = {access.index for access in accesses if access.buffer == name}
            if len(places) != 1 or not self._differs(places.pop()):
                raise IRError(f"{name} is read and stored in the nest")

    def _differs(self, place: tuple[Index, ...]) -> bool:
        """Whether each iteration has a place of its own: with each loop one index moves that no other loop moves."""
        names = {name for name, _ in self.loops}

        def moves(index: Index, name: str) -> bool:
            form = affine(index)
            others = variables(form.without(Var(name)).index()) & names
            return form.coefficient(Var(name)) != 0 and not others

        return all(any(moves(index, name) for index in place) for name in names)

    def distributed(self) -> tuple[Stmt, ...]:
        buffer = self.alloc.buffer
        shape = (*(extent for _, extent in self.loops), *buffer.shape)
        body = tuple(part for statement in self.alloc.body for part in self._sink(statement))
        return (Alloc(Buffer(buffer.name, buffer.dtype, shape, "register"), body),)

    def _sink(self, statement: Stmt) -> tuple[Stmt, ...]:
        names = {name for name, _ in self.loops}
        match statement:
            case For(var, extent, body, kind):
                if variables(extent) & names:
                    raise IRError(f"the extent of reduction loop {var} depends on {sorted(names)}")
                return (For(var, extent, tuple(part for inner in body for part in self._sink(inner)), kind),)
            case If(condition, body) if not (variables(condition.a) | variables(condition.b)) & names:
                return (If(condition, tuple(part for inner in body for part in self._sink(inner))),)
            case Store():
                return (self._wrapped(statement),)
            case If(_, (inner,)) if self._is_guarded_store(inner):
                return (self._around(statement),)
            case _:
                raise IRError("a guard on the tile, an alloc or a transform inside the reduction cannot be distributed")

    def _is_guarded_store(self, statement: Stmt) -> bool:
        """Whether it is a store to memory, with guards around it."""
        while isinstance(statement, If) and len(statement.body) == 1:
            statement = statement.body[0]
        return isinstance(statement, Store) and statement.buffer != self.alloc.buffer.name

    def _around(self, guarded: If) -> Stmt:
        """The tile's loops and guards around a store with guards of its own."""
        inner: Stmt = map_statement(guarded, lambda index: index, self._expand)
        for guard in reversed(self.guards):
            inner = If(guard, (inner,))
        for name, extent in reversed(self.loops):
            inner = For(name, extent, (inner,))
        return inner

    def _wrapped(self, store: Store) -> Stmt:
        private = store.buffer == self.alloc.buffer.name
        inner: Stmt = map_statement(store, lambda index: index, self._expand)
        if private:
            assert isinstance(inner, Store)
            inner = replace(inner, index=(*self._position(), *inner.index))
        for guard in reversed(self.guards):
            if not private or not self._safe_without(guard, store):
                inner = If(guard, (inner,))
        for name, extent in reversed(self.loops):
            inner = For(name, extent, (inner,))
        return inner

    def _position(self) -> tuple[Index, ...]:
        return tuple(Var(name) for name, _ in self.loops)

    def _expand(self, value: Value) -> Value:
        match value:
            case Load(buffer, index, lanes, count) if buffer == self.alloc.buffer.name:
                return Load(buffer, (*self._position(), *index), lanes, count)
            case _:
                return value

    def _safe_without(self, guard: Less, store: Store) -> bool:
        """True where every read that involves the guard's variables spans exactly the extent of its axis."""
        involved = variables(guard.a) | variables(guard.b)
        guarded = involved & {name for name, _ in self.loops} or involved
        extents: dict[str, Index] = dict(self.loops)
        for read in reads((store,)):
            if read.buffer == self.alloc.buffer.name:
                continue
            for index, axis in zip(read.index, self.shapes[read.buffer], strict=True):
                whole = isinstance(index, Var) and extents.get(index.name) == axis
                if variables(index) & guarded and not whole:
                    return False
        return True
