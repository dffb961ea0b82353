"""vectorize: a loop of constant extent becomes vector operations of as many lanes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.affine import affine
from convgen.ir.build import sub
from convgen.ir.nodes import (
    Alloc,
    Apply,
    Arith,
    Buffer,
    Choose,
    Const,
    Convert,
    Dot,
    Fma,
    For,
    If,
    Index,
    IndexOp,
    Int,
    Interleave,
    Less,
    Load,
    PaddedLoad,
    Program,
    Splat,
    Spread,
    Stmt,
    Store,
    Transform,
    Value,
    Var,
    Where,
)
from convgen.ir.rewrite import reads, rewrite_named, statements, stores, substitute_block, variables


@dataclass(frozen=True)
class Vectorize:
    """for l in L: y[.., l] = f(x[.., l], s)   →   y[.., 0 :L] = f(x[.., 0 :L], splat(s, L))

    Lanes of several terms run along the axis before the last one.

    A guard ``if e + l < n`` becomes the count of lanes of every load and store inside, and a choice by it between a load and zero
    the count of that load; loops inside stay, and register buffers that are allocated inside become buffers of vectors.

    With ``spreads`` a read of x[.., l // r * s + c] with c < s becomes one of the s * L / r elements from c elements before its
    place on, spread over the lanes.

    Requires: the loop's body is stores, transforms, and loops, guards and allocs around them; every access that depends on l runs
    along the last axis with step 1, but for reads that are spread, whose elements all exist; all accesses to a buffer of memory
    that is stored are at the same place of the last axis. Ensures: the same elements are computed.
    """

    loop: str
    spreads: bool = False

    def __call__(self, program: Program) -> Program:
        return rewrite_named(program, self.loop, self._vectorize)

    def _vectorize(self, loop: For) -> tuple[Stmt, ...]:
        if not isinstance(loop.extent, Int):
            raise IRError(f"the extent of loop {self.loop} is not constant")
        private = {inner.buffer.name for inner in statements(loop.body) if isinstance(inner, Alloc)}
        lane_places = {store.buffer: store.index[-1:] for store in stores(loop.body) if store.buffer not in private}
        for access in (*stores(loop.body), *reads(loop.body)):
            if lane_places.get(access.buffer, access.index[-1:]) != access.index[-1:]:
                raise IRError(f"{access.buffer} is stored and accessed at different places of its last axis")
        lanes = loop.extent.value
        if lanes == 1:
            return substitute_block(loop.body, {self.loop: Int(0)})
        return _Lanes(self.loop, lanes, None, self.spreads).block(loop.body)


def wide_value(value: Value, var: str, lanes: int) -> Value:
    """A value for all iterations of a loop at once; raises IRError where what it reads does not run along with the loop."""
    return _Lanes(var, lanes, None, spreads=False)._wide(value)


@dataclass(frozen=True)
class _Lanes:
    """The vector form of what depends on loop variable ``var``; ``count`` limits the lanes, reads may be spread."""

    var: str
    lanes: int
    count: Index | None
    spreads: bool
    private: frozenset[str] = frozenset()

    def block(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(statement for inner in body for statement in self.statement(inner))

    def statement(self, statement: Stmt) -> tuple[Stmt, ...]:
        match statement:
            case If(condition, body):
                count = self._lane_count(condition)
                if count is None:
                    return (If(condition, self.block(body)),)
                if self.count is not None:
                    raise IRError(f"two guards on the lanes of loop {self.var}")
                return replace(self, count=count).block(body)
            case For(var, extent, body, "serial") if self.var not in variables(extent):
                return (For(var, extent, self.block(body)),)
            case Alloc(Buffer(name, dtype, shape, space), body):
                wide = Buffer(name, dtype, (*shape, Int(self.lanes)), space)
                return (Alloc(wide, replace(self, private=self.private | {name}).block(body)),)
            case Transform():
                return (statement,)
            case Store(buffer, index, value, 1, None) if buffer in self.private:
                return (Store(buffer, (*index, Int(0)), self._wide(value), self.lanes),)
            case Store(buffer, index, Interleave() as value, 1, None):
                place, along = self._place(buffer, index[:-1])
                if not along:
                    raise IRError(f"the store to {buffer} does not depend on {self.var}")
                return (Store(buffer, (*place, index[-1]), self._wide(value), self.lanes, self.count),)
            case Store(buffer, index, value, 1, None):
                place, along = self._place(buffer, index)
                if not along:
                    raise IRError(f"the store to {buffer} does not depend on {self.var}")
                return (Store(buffer, place, self._wide(value), self.lanes, self.count),)
            case _:
                raise IRError(f"the body of loop {self.var} is not stores in serial loops")

    def _lane_count(self, condition: Less) -> Index | None:
        """How many lanes satisfy base + lane < bound, or None where the condition does not depend on the lane."""
        if self.var in variables(condition.b):
            raise IRError(f"the bound of a guard depends on {self.var}")
        if self.var not in variables(condition.a):
            return None
        form = affine(condition.a)
        if form.coefficient(Var(self.var)) != 1:
            raise IRError(f"a guard is not in steps of 1 of {self.var}")
        return sub(condition.b, form.without(Var(self.var)).index())

    def _place(self, buffer: str, index: tuple[Index, ...]) -> tuple[tuple[Index, ...], bool]:
        """The place of lane 0 and whether the access moves with the lane."""
        if not any(self.var in variables(i) for i in index):
            return index, False
        form = affine(index[-1], {self.var: Int(self.lanes)})
        rest = form.without(Var(self.var)).index()
        crossing = any(self.var in variables(i) for i in (*index[:-1], rest))
        if crossing or form.coefficient(Var(self.var)) != 1:
            raise IRError(f"access to {buffer} does not run along its last axis in {self.var}")
        return (*index[:-1], rest), True

    def _spread(self, buffer: str, index: tuple[Index, ...]) -> Value | None:
        """The lanes of a read that takes a step every ``repeat`` lanes, from a vector that begins with a whole step; None for
        other reads."""
        if not index or not self.spreads:
            return None
        form = affine(index[-1])
        repeat = 1
        match [(atom, factor) for atom, factor in form.terms if self.var in variables(atom)]:
            case [(Var(), step)] if step > 1:
                moving: Index = Var(self.var)
            case [(IndexOp("//", Var(), Int(repeat)) as moving, step)] if step > 0 and self.lanes % repeat == 0:
                pass
            case _:
                return None
        if self.count is not None or any(self.var in variables(i) for i in index[:-1]):
            raise IRError(f"access to {buffer} in steps of {repeat} lanes is guarded or crosses axes")
        first = form.constant % step
        place = sub(form.without(moving).index(), first)
        whole = Load(buffer, (*index[:-1], affine(place).index()), self.lanes // repeat * step)
        return Spread(whole, self.lanes, repeat, step, first)

    def _wide(self, value: Value) -> Value:
        match value:
            case Const(number, dtype, 1):
                return Const(number, dtype, self.lanes)
            case Load(buffer, index, 1, None) if buffer in self.private:
                return Load(buffer, (*index, Int(0)), self.lanes)
            case Load(buffer, index, 1, None) if (spread := self._spread(buffer, index)) is not None:
                return spread
            case Load(buffer, index, 1, None, 1):
                place, along = self._place(buffer, index)
                return Load(buffer, place, self.lanes, self.count) if along else self._splat(value)
            case Load(buffer, index, 1, None, terms):
                place, along = self._place(buffer, index[:-1])
                whole = Load(buffer, (*place, index[-1]), self.lanes, self.count, terms)
                return whole if along else self._splat(value)
            case PaddedLoad(buffer, index, _):
                if any(self.var in variables(i) for i in index):
                    raise IRError(f"a padded load of {buffer} cannot be vectorized")
                return self._splat(value)
            case Fma(a, b, c):
                return Fma(self._wide(a), self._wide(b), self._wide(c))
            case Dot(a, b, c):
                return Dot(self._wide(a), self._wide(b), self._wide(c))
            case Interleave(pieces):
                return Interleave(tuple(map(self._wide, pieces)))
            case Arith(op, a, b):
                return Arith(op, self._wide(a), self._wide(b))
            case Convert(a, dtype):
                return Convert(self._wide(a), dtype)
            case Apply(function, a):
                return Apply(function, self._wide(a))
            case Where(test, a, b):
                return Where(self._wide(test), self._wide(a), self._wide(b))
            case Choose(conditions, a, b):
                return self._choose(conditions, a, b)
            case _:
                raise IRError(f"{type(value).__name__} is already a vector")

    def _choose(self, conditions: tuple[Less, ...], a: Value, b: Value) -> Value:
        """The count of lanes of one condition that depends on them limits the load that is chosen: the others are zero."""
        counts = [count for condition in conditions if (count := self._lane_count(condition)) is not None]
        others = tuple(condition for condition in conditions if self.var not in variables(condition.a))
        lanes = self
        if counts:
            if len(counts) > 1 or self.count is not None or not _is_load_or_zero(a) or not _is_zero(b):
                raise IRError(f"a choice depends on {self.var}, not between one load and zero")
            lanes = replace(self, count=counts[0])
        chosen = lanes._wide(a)
        return Choose(others, chosen, self._wide(b)) if others else chosen

    def _splat(self, value: Value) -> Value:
        return Splat(value, self.lanes)


def _is_zero(value: Value) -> bool:
    return isinstance(value, Const) and value.value == 0


def _is_load_or_zero(value: Value) -> bool:
    match value:
        case Load():
            return True
        case Choose(_, a, b):
            return _is_load_or_zero(a) and _is_zero(b)
        case _:
            return False
