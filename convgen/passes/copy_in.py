"""copy_in: what the loops inside a loop, or a whole stage, read of a buffer is copied to memory of its own first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.affine import Affine, affine, rejoined
from convgen.ir.nodes import (
    Buffer,
    For,
    Index,
    IndexOp,
    Load,
    PaddedLoad,
    Program,
    Space,
    Stage,
    Stmt,
    Store,
    Value,
    Var,
)
from convgen.ir.rewrite import loops, map_statement, reads, rewrite_loops, stores, substitute


@dataclass(frozen=True)
class CopiedAxis:
    """An axis of a copy: ``place`` is the coordinate that an access reads, in variables of the loops; ``extent`` is the axis's,
    in sizes of the program, of which ``count`` elements are filled: by default as many as the loop has that is the place, or
    all."""

    label: str
    extent: Index
    place: Index
    count: Index | None = None


@dataclass(frozen=True)
class CopyIn:
    """for t: S[x[f(t, i)]]   →   for t: { for a: xc[a] = x[f(t, a)];  S[xc[i]] }   and xc is local
    S[x[f(i)]]            →  stage copy_xc: for a: xc[a] = x[f(a)];  S[xc[i]]       where ``loop`` is None

    ``origin`` is the element of the buffer that is kept at a place of the copy, in the labels of the axes and variables outside;
    where it is None, every place is a loop's variable and the origin is what is read there. ``order`` lists the labels in the
    order of the copy's loops, where it is not that of the axes; ``dtype`` is that of the copy, by default the buffer's.

    Requires: in the named loop, or in the one stage that reads it, the buffer is read by scalar loads at one index, which is the
    origin at the access's places, and not stored; places lie inside the counts; what is copied lies inside the buffer, or is read
    with padding; both types are computed in one. Ensures: there only the copy reads the buffer, padded or not as before.
    """

    buffer: str
    into: str
    loop: str | None
    axes: tuple[CopiedAxis, ...]
    origin: tuple[Index, ...] | None = None
    order: tuple[str, ...] = ()
    dtype: str = ""

    def __call__(self, program: Program) -> Program:
        space: Space = "workspace" if self.loop is None else "local"
        dtype = self.dtype or program.buffer(self.buffer).dtype
        copy = Buffer(self.into, dtype, tuple(axis.extent for axis in self.axes), space)
        stages = self._before_stage(program) if self.loop is None else self._inside(program, self.loop)
        return replace(program, buffers=(*program.buffers, copy), stages=stages)

    def _before_stage(self, program: Program) -> tuple[Stage, ...]:
        users = [stage for stage in program.stages if any(read.buffer == self.buffer for read in reads(stage.body))]
        if len(users) != 1:
            raise IRError(f"{self.buffer} is read by {len(users)} stages")
        copy, *body = self._with_copy(users[0].body, f"stage {users[0].name}")
        stages: list[Stage] = []
        for stage in program.stages:
            stages += (
                [Stage(f"copy_{self.into}", (copy,)), replace(stage, body=tuple(body))]
                if stage is users[0]
                else [stage]
            )
        return tuple(stages)

    def _inside(self, program: Program, name: str) -> tuple[Stage, ...]:
        found = any(loop.var == name for stage in program.stages for loop in loops(stage.body))
        if not found and program.stages:
            raise IRError(f"there is no loop {name}")

        def change(loop: For) -> tuple[Stmt, ...]:
            return (replace(loop, body=self._with_copy(loop.body, f"loop {name}")),)

        return tuple(replace(stage, body=rewrite_loops(stage.body, name, change)) for stage in program.stages)

    def _with_copy(self, body: tuple[Stmt, ...], where: str) -> tuple[Stmt, ...]:
        """The copy, and the body that reads it."""
        found = {read for read in reads(body) if read.buffer == self.buffer}
        if any(store.buffer == self.buffer for store in stores(body)):
            raise IRError(f"{self.buffer} is stored in {where}")
        if len(found) != 1:
            raise IRError(f"{self.buffer} is read at {len(found)} places in {where}")
        extents = {inner.var: inner.extent for inner in loops(body)}
        changed = tuple(map_statement(inner, lambda index: index, self._redirected) for inner in body)
        return (self._copy(found.pop(), extents), *changed)

    def _redirected(self, value: Value) -> Value:
        match value:
            case Load(buffer) | PaddedLoad(buffer) if buffer == self.buffer:
                return Load(self.into, tuple(axis.place for axis in self.axes))
            case _:
                return value

    def _copy(self, read: Load | PaddedLoad, extents: Mapping[str, Index]) -> Stmt:
        if isinstance(read, Load) and (read.lanes > 1 or read.count is not None):
            raise IRError(f"{self.buffer} is read in vectors")
        value = replace(read, index=self._origin(read.index))
        names = {axis.label: f"{self.into}_{axis.label}" for axis in self.axes}
        statement: Stmt = Store(self.into, tuple(map(Var, names.values())), value)
        axes = {axis.label: axis for axis in self.axes}
        if self.order and sorted(self.order) != sorted(axes):
            raise IRError(f"order={self.order} is not one of the axes of {self.into}")
        for label in reversed(self.order or tuple(axes)):
            statement = For(names[label], _count(axes[label], extents if self.origin is None else {}), (statement,))
        return statement

    def _origin(self, index: tuple[Index, ...]) -> tuple[Index, ...]:
        labels: dict[str, Index] = {axis.label: Var(f"{self.into}_{axis.label}") for axis in self.axes}
        if self.origin is None:
            kept = {axis.place.name: labels[axis.label] for axis in self.axes if isinstance(axis.place, Var)}
            if len(kept) < len(self.axes):
                raise IRError(f"an axis of {self.into} is not a loop's variable, and no origin is given")
            return tuple(substitute(part, kept) for part in index)
        places = {axis.label: axis.place for axis in self.axes}
        for part, origin in zip(index, self.origin, strict=True):
            if _canonical(part) != _canonical(substitute(origin, places)):
                raise IRError(f"{self.buffer} is not read where {self.into} keeps it")
        return tuple(substitute(origin, labels) for origin in self.origin)


def _count(axis: CopiedAxis, extents: Mapping[str, Index]) -> Index:
    """How many elements of an axis are filled; ``extents`` are those of the loops inside."""
    if axis.count is not None:
        return axis.count
    return extents.get(axis.place.name, axis.extent) if isinstance(axis.place, Var) else axis.extent


def _canonical(index: Index) -> Affine:
    """An index as a sum whose terms stand in one order, inside quotients and remainders too."""
    form = rejoined(affine(index))
    terms = sorted(((_ordered(atom), factor) for atom, factor in form.terms), key=repr)
    return affine(Affine(tuple(terms), form.constant).index())


def _ordered(atom: Index) -> Index:
    match atom:
        case IndexOp(op, a, b):
            return IndexOp(op, _canonical(a).index(), _canonical(b).index())
        case _:
            return atom
