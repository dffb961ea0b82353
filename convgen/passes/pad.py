"""pad: padded reads of a buffer become plain reads of a copy that has its padding in place."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.affine import Affine, affine
from convgen.ir.build import add, mul, sub
from convgen.ir.nodes import (
    Buffer,
    For,
    Index,
    Int,
    Load,
    PaddedLoad,
    PaddingMode,
    Program,
    Stage,
    Stmt,
    Store,
    Value,
    Var,
)
from convgen.ir.rewrite import loop_names, loops, map_statement, reads, substitute


@dataclass(frozen=True)
class Pad:
    """padded x[i, j]   →   stage pad_x: xp[p, q] = padded x[p - low_i, q - low_j];   xp[i + low_i, j + low_j]

    ``low`` and ``extents`` give, for each axis of the buffer, how far the copy begins before it and how long the copy is (a
    negative low leaves elements out); ``order`` lists the buffer's axes in the order of the copy, so that a change of layout
    costs no second pass over memory. ``labels`` name the buffer's axes in the copy's loops; ``dtype`` is the copy's type, by
    default the buffer's. With ``steps`` the copy holds every so manieth element of an axis, and no others:
    xp[p] = x[p * step - low].

    Requires: every index that is read lies inside the copy, at one of its elements; padded reads are by ``mode``, none is a
    vector; both types are computed in one. Ensures: no stage but pad_x reads the buffer.
    """

    buffer: str
    into: str
    low: tuple[int, ...]
    extents: tuple[Index, ...]
    order: tuple[int, ...]
    mode: PaddingMode = "zeros"
    labels: tuple[str, ...] = ()
    dtype: str = ""
    steps: tuple[int, ...] = ()

    def __call__(self, program: Program) -> Program:
        source = program.buffer(self.buffer)
        if sorted(self.order) != list(range(len(source.shape))):
            raise IRError(f"order={self.order} is not a permutation of the axes of {self.buffer}")
        if not len(self.low) == len(self.extents) == len(self.order) == len(self.steps or self.order):
            raise IRError(f"low={self.low} and the extents do not have the {len(self.order)} axes of {self.buffer}")
        users = [i for i, stage in enumerate(program.stages) if any(r.buffer == self.buffer for r in reads(stage.body))]
        if not users:
            raise IRError(f"{self.buffer} is not read")
        copy = Buffer(
            self.into, self.dtype or source.dtype, tuple(self.extents[axis] for axis in self.order), "workspace"
        )
        stages = [replace(stage, body=self._redirected(stage.body)) for stage in program.stages]
        stages.insert(users[0], self._copy_stage(source, copy))
        return replace(program, buffers=(*program.buffers, copy), stages=tuple(stages))

    def _redirected(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        # A loop of one iteration, say over the only tap of a window, moves nothing.
        extents = {loop.var: loop.extent for loop in loops(body)}
        still: dict[str, Index] = {name: Int(0) for name, extent in extents.items() if extent == Int(1)}

        def place(index: tuple[Index, ...], axis: int) -> Index:
            position = add(index[axis], self.low[axis])
            step = self._step(axis)
            return position if step == 1 else self._quotient(affine(substitute(position, still), extents), step)

        def visit(value: Value) -> Value:
            match value:
                case PaddedLoad(buffer, _, mode) if buffer == self.buffer and mode != self.mode:
                    raise IRError(f"{self.buffer} is read with padding {mode}, not {self.mode}")
                case PaddedLoad(buffer, index, _) | Load(buffer, index, 1, None) if buffer == self.buffer:
                    return Load(self.into, tuple(place(index, axis) for axis in self.order))
                case Load(buffer) if buffer == self.buffer:
                    raise IRError(f"{self.buffer} is read in vectors")
                case _:
                    return value

        return tuple(map_statement(statement, lambda index: index, visit) for statement in body)

    def _step(self, axis: int) -> int:
        return self.steps[axis] if self.steps else 1

    def _quotient(self, form: Affine, step: int) -> Index:
        if form.constant % step or any(factor % step for _, factor in form.terms):
            raise IRError(f"{self.buffer} is read between the elements that a copy in steps of {step} keeps")
        return Affine(tuple((atom, factor // step) for atom, factor in form.terms), form.constant // step).index()

    def _copy_stage(self, source: Buffer, copy: Buffer) -> Stage:
        names = loop_names(self.into, self.labels, len(self.order))
        # Constant extents that are copied whole are arguments, so that one kernel pads any number of channels.
        bindings = {
            f"{names[axis]}s": extent
            for axis, extent in enumerate(self.extents)
            if isinstance(extent, Int) and extent == source.shape[axis]
        }
        extents = [
            Var(f"{name}s") if f"{name}s" in bindings else e for name, e in zip(names, self.extents, strict=True)
        ]
        shape = [
            e if f"{name}s" in bindings else old for name, e, old in zip(names, extents, source.shape, strict=True)
        ]
        place = tuple(Var(names[axis]) for axis in self.order)
        origin = tuple(sub(mul(names[axis], self._step(axis)), self.low[axis]) for axis in range(len(self.order)))
        statement: Stmt = Store(self.into, place, PaddedLoad(self.buffer, origin, self.mode))
        for axis in reversed(self.order):
            statement = For(names[axis], extents[axis], (statement,))
        views = (replace(source, shape=tuple(shape)), replace(copy, shape=tuple(extents[axis] for axis in self.order)))
        return Stage(f"pad_{self.buffer}", (statement,), tuple(bindings.items()), views if bindings else ())
