"""How operands are read, results written and instructions guarded: what all families of instructions share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from convgen.errors import PtxError
from convgen.targets.cuda.interp.fault import Fault
from convgen.targets.cuda.interp.frame import Frame
from convgen.targets.cuda.interp.program import Argument, Op, Slot, Source
from convgen.targets.cuda.interp.syntax import Imm, Sink
from convgen.targets.cuda.interp.types import Value, numpy_type, storage_type, unsigned, width_of

Step: TypeAlias = Callable[[Frame], None]
Reader: TypeAlias = Callable[[Frame], Value]
# Instructions whose registers may be wider than their type.
_MAY_BE_WIDER = frozenset(("ld", "ldu", "st", "cvt", "mov"))

Writer: TypeAlias = Callable[[Frame, Value], None]


@dataclass(frozen=True, slots=True)
class Pure:
    """An instruction whose results are a function of its sources alone, with the PTX types it takes and gives."""

    function: Callable[..., Value]
    takes: tuple[str, ...]
    gives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Context:
    """What compiling an instruction needs to know of its program."""

    temporary: frozenset[int]
    doubtful: frozenset[int]


def unknown(op: Op, reason: str = "is not known to the interpreter") -> PtxError:
    """The error for an instruction, or a form of one, that is not supported."""
    return PtxError(f"{op.where}: {op.name} {reason}")


def retyped(value: Value, dtype: np.dtype[Any]) -> Value:
    """The same bits as another type, cut off or filled up with zeros or, for signed integers, the sign."""
    if value.dtype == dtype:
        return value
    if value.dtype == np.bool_ or dtype == np.bool_:
        raise TypeError("a predicate is no number")
    size, wanted = value.dtype.itemsize, dtype.itemsize
    if size == wanted:
        return value.view(dtype)
    if value.dtype.kind == "f":
        value = value.view(unsigned(8 * size))
    same_sign = np.dtype(f"{'i' if value.dtype.kind == 'i' else 'u'}{wanted}")
    return value.astype(same_sign).view(dtype)


def constant(imm: Imm, kind: str) -> Value:
    """A constant as a number of a type."""
    dtype = numpy_type(kind)
    if kind == "pred":
        return np.bool_(imm.value != 0)
    if imm.width and dtype.kind == "f" and imm.width != width_of(kind):
        number = np.array(imm.value, unsigned(imm.width)).view(f"f{imm.width // 8}")
        return number.astype(dtype)[()]
    bits = width_of(kind)
    return np.array(imm.value % (1 << bits), unsigned(bits)).view(dtype)[()]


def reader(source: Source, kind: str, op: Op) -> Reader:
    """Reads an operand as a number of a type."""
    dtype = numpy_type(kind)
    match source:
        case Imm():
            value = constant(source, kind)
            return lambda frame: value
        case Argument(offset):
            return lambda frame: np.frombuffer(frame.arguments, dtype, 1, offset)[0]
        case Slot(index, declared, negated):
            if not _fits(declared, kind, op):
                raise PtxError(f"{op.where}: a register of type .{declared} is read as .{kind}")
            if negated:
                return lambda frame: ~frame.registers[index]
            if storage_type(declared) == dtype:
                return lambda frame: frame.registers[index]
            if width_of(declared) == width_of(kind):
                return lambda frame: frame.registers[index].view(dtype)
            return lambda frame: retyped(frame.registers[index], dtype)
    raise PtxError(f"{op.where}: an operand of {op.name} is not understood")


def _fits(declared: str, kind: str, op: Op) -> bool:
    """Whether a register's type goes with an instruction's: the same width, or a wider one where that is allowed."""
    if "pred" in (declared, kind):
        return declared == kind
    wide, narrow = width_of(declared), width_of(kind)
    return wide == narrow or (wide > narrow and op.opcode[0] in _MAY_BE_WIDER)


def writer(result: Source, kind: str, op: Op, context: Context) -> Writer:
    """Writes a number of a type for the lanes at work."""
    match result:
        case Sink():
            return lambda frame, value: None
        case Slot(index, declared):
            pass
        case _:
            raise PtxError(f"{op.where}: a result of {op.name} is not understood")
    if not _fits(declared, kind, op):
        raise PtxError(f"{op.where}: a register of type .{declared} is written as .{kind}")
    dtype = storage_type(declared)
    if op.guard is None and index in context.temporary:

        def write_all(frame: Frame, value: Value) -> None:
            frame.registers[index] = value if value.dtype == dtype else retyped(value, dtype)

        return write_all

    def write(frame: Frame, value: Value) -> None:
        if value.dtype != dtype:
            value = retyped(value, dtype)
        if frame.merge:
            value = np.where(frame.working, value, frame.registers[index])
        frame.registers[index] = value

    return write


def pure_step(op: Op, pure: Pure, context: Context) -> Step:
    """The step that reads the sources, applies the function and writes the results."""
    carries = tuple(slot for slot in (op.carry_in,) if slot is not None)
    given = tuple(slot for slot in (op.carry_out,) if slot is not None)
    sources, results = (*flat(op.sources), *carries), (*flat(op.results), *given)
    if len(sources) != len(pure.takes) or len(results) > len(pure.gives):
        raise unknown(op, f"takes {len(pure.takes)} operands and gives {len(pure.gives)}")
    readers = [reader(source, kind, op) for source, kind in zip(sources, pure.takes, strict=True)]
    writers = [writer(result, kind, op, context) for result, kind in zip(results, pure.gives, strict=False)]
    function = pure.function
    if len(pure.gives) > 1:

        def several(frame: Frame) -> None:
            values = function(*(read(frame) for read in readers))
            for write, value in zip(writers, values, strict=False):
                write(frame, value)

        return several
    (write,) = writers
    match readers:
        case [first]:
            return lambda frame: write(frame, function(first(frame)))
        case [first, second]:
            return lambda frame: write(frame, function(first(frame), second(frame)))
        case [first, second, third]:
            return lambda frame: write(frame, function(first(frame), second(frame), third(frame)))
        case _:
            return lambda frame: write(frame, function(*(read(frame) for read in readers)))


def flat(operands: tuple[Source, ...]) -> tuple[Source, ...]:
    """Operands with those of vectors and pairs side by side."""
    made: list[Source] = []
    for operand in operands:
        made.extend(operand if isinstance(operand, tuple) else (operand,))
    return tuple(made)


def guarded(op: Op, step: Step) -> Step:
    """The step for the lanes whose guard holds."""
    if op.guard is None:
        return step
    read = reader(op.guard, "pred", op)

    def run(frame: Frame) -> None:
        holds = read(frame)
        if not holds.ndim:
            if holds:
                step(frame)
            return
        mask = holds if frame.mask is None else frame.mask & holds
        if mask.any():
            with frame.narrowed(mask):
                step(frame)

    return run


def checked(op: Op, step: Step, context: Context) -> Step:
    """The step with a watch over registers that may not have been written; moving such a value about is no fault."""
    reads = () if op.opcode[0] == "mov" else tuple(s.index for s in op.reads if s.index in context.doubtful)
    writes = tuple(slot.index for slot in op.writes if slot.index in context.doubtful)
    origins = tuple(slot.index for slot in op.reads if slot.index in context.doubtful)
    if not origins and not writes:
        return step
    guard = None if op.guard is None else reader(op.guard, "pred", op)

    def run(frame: Frame) -> None:
        working = frame.working
        if guard is not None:
            working = working & guard(frame)
        for index in reads:
            bad = working & ~frame.defined[index]
            if bad.any():
                raise Fault("uninitialised", "a register is read that was never written", int(bad.argmax()))
        step(frame)
        known = working
        for index in origins:
            known = known & frame.defined[index]
        for index in writes:
            frame.defined[index] = np.where(working, known, frame.defined[index])

    return run
