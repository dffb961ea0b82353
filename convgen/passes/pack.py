"""pack: a buffer is copied once into the order in which a kernel reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from convgen.errors import IRError
from convgen.ir.affine import affine
from convgen.ir.build import add, ceildiv, divides, floordiv, mod, mul
from convgen.ir.nodes import (
    Buffer,
    Choose,
    Const,
    For,
    Index,
    Int,
    Less,
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
from convgen.ir.rewrite import loop_names, map_statement, reads
from convgen.ir.types import compute_dtype


@dataclass(frozen=True)
class PackedAxis:
    """An axis of the packed buffer: a whole axis of the original, or the block number or the place in the block of one that is
    split into blocks of ``factor``. Of blocks there are a multiple of ``multiple``."""

    axis: int
    part: Literal["whole", "block", "place"] = "whole"
    factor: int = 1
    multiple: int = 1


@dataclass(frozen=True)
class Pack:
    """w[k, c]   →   stage pack_w: wp[kb, c, ki] = w[kb * F + ki, c] (0 beyond the end);   wp[k // F, c, k % F]

    ``dtype`` is that of the copy, by default the buffer's.

    Requires: the buffer is read by plain scalar loads alone; both types are computed in one. Ensures: only pack_w reads the
    buffer; the packed buffer holds zeros where a block reaches beyond the end.
    """

    buffer: str
    into: str
    layout: tuple[PackedAxis, ...]
    space: Space = "packed"
    labels: tuple[str, ...] = ()
    dtype: str = ""

    def __call__(self, program: Program) -> Program:
        source = program.buffer(self.buffer)
        self._check(source)
        users = [i for i, stage in enumerate(program.stages) if any(r.buffer == self.buffer for r in reads(stage.body))]
        if not users:
            raise IRError(f"{self.buffer} is not read")
        copy = Buffer(
            self.into, self.dtype or source.dtype, tuple(self._extent(source, part) for part in self.layout), self.space
        )
        stages = [replace(stage, body=tuple(map(self._redirect, stage.body))) for stage in program.stages]
        stages.insert(users[0], self._copy_stage(source))
        return replace(program, buffers=(*program.buffers, copy), stages=tuple(stages))

    def _check(self, source: Buffer) -> None:
        whole = sorted(part.axis for part in self.layout if part.part != "place")
        blocks = sorted((part.axis, part.factor) for part in self.layout if part.part == "block")
        places = sorted((part.axis, part.factor) for part in self.layout if part.part == "place")
        if whole != list(range(len(source.shape))) or blocks != places:
            raise IRError(f"layout of {self.into} does not cover the axes of {self.buffer} once each")
        if any(part.factor < 1 or part.multiple < 1 for part in self.layout):
            raise IRError(f"layout of {self.into} has a factor below 1")

    @staticmethod
    def _extent(source: Buffer, part: PackedAxis) -> Index:
        match part.part:
            case "whole":
                return source.shape[part.axis]
            case "block":
                return mul(ceildiv(source.shape[part.axis], part.factor * part.multiple), part.multiple)
            case "place":
                return Int(part.factor)

    def _redirect(self, statement: Stmt) -> Stmt:
        def visit(value: Value) -> Value:
            match value:
                case Load(buffer, index, 1, None) if buffer == self.buffer:
                    return Load(self.into, tuple(self._position(index[part.axis], part) for part in self.layout))
                case Load(buffer) | PaddedLoad(buffer) if buffer == self.buffer:
                    raise IRError(f"{self.buffer} is not read by plain loads alone")
                case _:
                    return value

        return map_statement(statement, lambda index: index, visit)

    @staticmethod
    def _position(index: Index, part: PackedAxis) -> Index:
        if part.part == "whole":
            return index
        # Whole blocks stand outside of the quotient, so that it moves by 1 with what moves by a block.
        whole, rest = (form.index() for form in affine(index).divided(part.factor))
        return add(whole, floordiv(rest, part.factor)) if part.part == "block" else mod(rest, part.factor)

    def _copy_stage(self, source: Buffer) -> Stage:
        names = loop_names(self.into, self.labels, len(self.layout))
        bindings = self._bindings(source, names)
        axes = {
            part.axis: Var(f"{name}s") for name, part in zip(names, self.layout, strict=True) if f"{name}s" in bindings
        }
        view = replace(source, shape=tuple(axes.get(axis, extent) for axis, extent in enumerate(source.shape)))
        copy = Buffer(
            self.into, self.dtype or source.dtype, tuple(self._extent(view, part) for part in self.layout), self.space
        )
        origin: dict[int, Index] = dict.fromkeys(range(len(source.shape)), Int(0))
        for name, part in zip(names, self.layout, strict=True):
            term = mul(name, part.factor) if part.part == "block" else Var(name)
            origin[part.axis] = add(origin[part.axis], term)
        beyond = tuple(
            Less(origin[part.axis], source.shape[part.axis])
            for part in self.layout
            if part.part == "block" and not divides(part.factor * part.multiple, source.shape[part.axis])
        )
        value: Value = Load(self.buffer, tuple(origin[axis] for axis in range(len(source.shape))))
        if beyond:
            value = Choose(beyond, value, Const(0.0, compute_dtype(source.dtype)))
        statement: Stmt = Store(self.into, tuple(Var(name) for name in names), value)
        for name, extent in zip(reversed(names), reversed(copy.shape), strict=True):
            statement = For(name, extent, (statement,))
        return Stage(f"pack_{self.buffer}", (statement,), tuple(bindings.items()), (view, copy) if bindings else ())

    def _bindings(self, source: Buffer, names: tuple[str, ...]) -> dict[str, Index]:
        """Constant extents of whole axes as arguments of the copy: one kernel packs for any number of taps and channels."""
        return {
            f"{name}s": extent
            for name, part in zip(names, self.layout, strict=True)
            if part.part == "whole" and isinstance(extent := source.shape[part.axis], Int)
        }
