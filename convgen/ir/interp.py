"""The meaning of a program: a slow interpreter over NumPy arrays. Every access is checked to lie inside its buffer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from convgen.dtypes import DTYPES
from convgen.errors import IRError
from convgen.ir.build import add
from convgen.ir.nodes import (
    Alloc,
    Apply,
    Arith,
    Barrier,
    Buffer,
    Choose,
    Const,
    Convert,
    CopyAsync,
    CopyGroup,
    CopyStmt,
    CopyWait,
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
    Prefetch,
    Program,
    Splat,
    Spread,
    Stage,
    Stmt,
    Store,
    Sum,
    TileDot,
    TileLoad,
    TileStmt,
    TileStore,
    TileZero,
    Transform,
    Transpose,
    Value,
    Var,
    Where,
)
from convgen.ir.printer import format_condition
from convgen.ir.types import compute_dtype

Array = np.ndarray

_INDEX: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "min": min,
    "max": max,
}
_ARITH: dict[str, Callable[[Array, Array], Array]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "min": np.minimum,
    "max": np.maximum,
}
_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
}


def evaluate_index(expression: Index, names: Mapping[str, int]) -> int:
    """The value of an index expression."""
    match expression:
        case Int(value):
            return value
        case Var(name):
            return names[name]
        case IndexOp(op, a, b):
            return _INDEX[op](evaluate_index(a, names), evaluate_index(b, names))


def stage_sizes(stage: Stage, sizes: Mapping[str, int]) -> dict[str, int]:
    """The values of the program's sizes and of the stage's own."""
    return dict(sizes) | {name: evaluate_index(value, sizes) for name, value in stage.bindings}


def buffer_shape(buffer: Buffer, names: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a buffer for given sizes."""
    return tuple(evaluate_index(extent, names) for extent in buffer.shape)


def interpret(
    program: Program,
    sizes: Mapping[str, int],
    arrays: Mapping[str, Array],
    *,
    shuffle: np.random.Generator | None = None,
) -> dict[str, Array]:
    """Runs a program and returns all its memory buffers.

    ``arrays`` holds the operands, of any shape with the right number of elements; they are not changed. Other memory starts as
    NaN (integers: the largest value), so that a read before a write shows. ``shuffle`` randomises the order of parallel
    iterations, and of threads between barriers. Raises IRError for an access outside a buffer, and for sizes that a stage is not
    made for.
    """
    memory: dict[str, Array] = {}
    for buffer in program.buffers:
        shape = buffer_shape(buffer, sizes)
        if buffer.space == "operand":
            memory[buffer.name] = np.array(arrays[buffer.name], dtype=DTYPES[buffer.dtype].numpy).reshape(shape)
        else:
            memory[buffer.name] = _poisoned(shape, DTYPES[buffer.dtype].numpy)
    check_needs(program, sizes)
    for stage in program.stages:
        names = stage_sizes(stage, sizes)
        for view in stage.views:
            if buffer_shape(view, names) != memory[view.name].shape:
                raise IRError(f"stage {stage.name}: view of {view.name} is not {memory[view.name].shape}")
        _Run(program, stage, memory, shuffle).block(stage.body, names, {})
    return memory


def check_needs(program: Program, sizes: Mapping[str, int]) -> None:
    """Raises IRError where the sizes are not what a stage needs, naming the stage."""
    for stage in program.stages:
        names = stage_sizes(stage, sizes)
        for need in stage.needs:
            if not evaluate_index(need.a, names) < evaluate_index(need.b, names):
                raise IRError(f"stage {stage.name} needs {format_condition(need)}, which does not hold for {names}")


def _poisoned(shape: tuple[int, ...], dtype: np.dtype) -> Array:
    poison = np.iinfo(dtype).max if dtype.kind in "iu" else np.nan
    return np.full(shape, poison, dtype=dtype)


@dataclass
class _Run:
    """One stage being executed."""

    program: Program
    stage: Stage
    memory: dict[str, Array]
    shuffle: np.random.Generator | None
    registers: dict[str, Array] = field(default_factory=dict)
    copies: list[tuple[Array, Array]] = field(default_factory=list)
    groups: list[list[tuple[Array, Array]]] = field(default_factory=list)

    def block(self, body: tuple[Stmt, ...], names: dict[str, int], dtypes: dict[str, str]) -> None:
        for statement in body:
            match statement:
                case For(var, extent, inner, kind):
                    order = np.arange(evaluate_index(extent, names))
                    if kind != "serial" and self.shuffle is not None:
                        self.shuffle.shuffle(order)
                    for i in order:
                        if kind == "parallel":
                            self._forget_locals()
                        self.block(inner, {**names, var: int(i)}, dtypes)
                case If(condition, inner):
                    if self._holds(condition, names):
                        self.block(inner, names, dtypes)
                case Alloc(buffer, inner):
                    self.registers[buffer.name] = _poisoned(buffer_shape(buffer, names), DTYPES[buffer.dtype].numpy)
                    self.block(inner, names, dtypes)
                    del self.registers[buffer.name]
                case Store(buffer, index, Interleave() as value):
                    for lane, terms in enumerate(self._value(value, names)):
                        target, position = self._locate(buffer, _moved_lane(index, lane), len(terms), None, names)
                        target[position] = terms.astype(target.dtype)
                case Store(buffer, index, value, lanes, count):
                    target, position = self._locate(buffer, index, lanes, count, names)
                    stored = np.broadcast_to(self._value(value, names), (lanes,))
                    if target.ndim:
                        target[position] = stored[: len(target[position])].astype(target.dtype)
                    else:
                        target[()] = stored[0]
                case Transform(buffer, linear, _):
                    register = self.registers[buffer]
                    register[: len(linear.outputs)] = linear.apply(register[: linear.inputs], 0)
                case Transpose():
                    self._transpose(statement, names)
                case TileZero() | TileLoad() | TileDot() | TileStore():
                    self._tile(statement, names)
                case CopyAsync() | CopyGroup() | CopyWait():
                    self._copy(statement, names)
                case Prefetch() | Barrier():
                    pass

    def _copy(self, statement: CopyStmt, names: Mapping[str, int]) -> None:
        """A copy reads at once, and arrives when it is waited for."""
        match statement:
            case CopyAsync(target, place, source, origin, lanes, conditions):
                array, position = self._locate(target, place, lanes, None, names)
                into = array[position]
                values = np.zeros(lanes, array.dtype)
                if all(self._holds(condition, names) for condition in conditions):
                    read, where = self._locate(source, origin, lanes, None, names)
                    values[...] = read[where]
                into[...] = _poisoned((lanes,), array.dtype)
                self.copies.append((into, values))
            case CopyGroup():
                self.groups.append(self.copies)
                self.copies = []
            case CopyWait(pending):
                while len(self.groups) > pending:
                    for into, values in self.groups.pop(0):
                        into[...] = values

    def _tile(self, statement: TileStmt, names: Mapping[str, int]) -> None:
        match statement:
            case TileZero(tile, index):
                self._of(tile, index, names)[...] = 0
            case TileLoad(tile, index, source, place, axis, step, turned):
                found = self._of(tile, index, names)
                into = found.T if turned else found
                into[...] = self._rows(into.shape, source, place, axis, step, names)
            case TileStore(target, place, axis, tile, index):
                found = self._of(tile, index, names)
                self._rows(found.shape, target, place, axis, 1, names)[...] = found
            case TileDot(c, c_index, a, a_index, b, b_index, turned):
                total, x, y = (self._of(*each, names) for each in ((c, c_index), (a, a_index), (b, b_index)))
                if turned:
                    total[...] = _turned_dot(x, y, total)
                    return
                terms = x.shape[1] // y.shape[0]
                pairs = y.reshape(y.shape[0], -1, terms)
                for i in range(total.shape[0]):
                    for k in range(y.shape[0]):
                        row = np.broadcast_to(x[i, k * terms : (k + 1) * terms], pairs[k].shape)
                        total[i] = _dot(row, pairs[k], total[i])

    def _of(self, tile: str, index: tuple[Index, ...], names: Mapping[str, int]) -> Array:
        found: Array = self.registers[tile][tuple(evaluate_index(i, names) for i in index)]
        return found

    def _rows(
        self,
        shape: tuple[int, ...],
        buffer: str,
        place: tuple[Index, ...],
        axis: int,
        step: int,
        names: Mapping[str, int],
    ) -> Array:
        """A view of the rows of a tile in memory."""
        array, (rows, columns) = self.memory[buffer], shape
        first = [evaluate_index(i, names) for i in place]
        inner = array.ndim - 1
        while inner > axis + 1 and math.prod(array.shape[inner:]) < columns:
            inner -= 1
        inside = all(0 <= i < extent for i, extent in zip(first, array.shape, strict=True))
        fits = first[inner] * math.prod(array.shape[inner + 1 :]) + columns <= math.prod(array.shape[inner:])
        whole = inner == array.ndim - 1 or not any(first[inner:])
        if not (inside and fits and whole and first[axis] + (rows - 1) * step < array.shape[axis]):
            raise IRError(f"stage {self.stage.name}: tile at {buffer}{first} lies outside {array.shape}")
        start = sum(i * stride for i, stride in zip(first, array.strides, strict=True)) // array.itemsize
        strides = (array.strides[axis] * step, array.itemsize)
        flat = array.reshape(-1)[start:]
        return np.lib.stride_tricks.as_strided(flat, (rows, columns), strides)

    def _transpose(self, transpose: Transpose, names: Mapping[str, int]) -> None:
        rows, columns = (
            transpose.size if count is None else max(0, min(transpose.size, evaluate_index(count, names)))
            for count in (transpose.rows, transpose.columns)
        )
        for i, j in itertools.product(range(rows), range(columns)):
            into = _moved(transpose.target_index, transpose.target_axis, j, i)
            origin = _moved(transpose.source_index, transpose.source_axis, i, j)
            target, place = self._locate(transpose.target, into, 1, None, names)
            source, position = self._locate(transpose.source, origin, 1, None, names)
            target[place] = source[position]

    def _forget_locals(self) -> None:
        """A task finds nothing of use in its worker's memory."""
        for buffer in self.program.buffers:
            if buffer.space == "local":
                array = self.memory[buffer.name]
                array[...] = _poisoned(array.shape, array.dtype)

    def _locate(
        self, buffer: str, index: tuple[Index, ...], lanes: int, count: Index | None, names: Mapping[str, int]
    ) -> tuple[Array, tuple[int | slice, ...]]:
        array = self.registers[buffer] if buffer in self.registers else self.memory[buffer]
        place = [evaluate_index(expression, names) for expression in index]
        if not place:
            return array, ()
        valid = lanes if count is None else max(0, min(lanes, evaluate_index(count, names)))
        last = place[-1] + max(valid, 1) - 1
        inside = all(0 <= i < extent for i, extent in zip([*place[:-1], last], array.shape, strict=True))
        if valid and (not inside or place[-1] < 0):
            raise IRError(f"stage {self.stage.name}: access {buffer}{place} x{lanes} lies outside {array.shape}")
        if not valid:
            return array, (*([0] * (len(place) - 1)), slice(0, 0))
        return array, (*place[:-1], slice(place[-1], place[-1] + valid))

    def _holds(self, condition: Less, names: Mapping[str, int]) -> bool:
        return evaluate_index(condition.a, names) < evaluate_index(condition.b, names)

    def _value(self, value: Value, names: Mapping[str, int]) -> Array:
        match value:
            case Const(number, dtype, lanes):
                storage, _, terms = dtype.partition("*")
                return np.full((lanes, int(terms)) if terms else lanes, number, dtype=DTYPES[storage].numpy)
            case Load(buffer, index, lanes, count, 1):
                return self._load(buffer, index, lanes, count, names)
            case Load():
                return self._terms(value, names)
            case PaddedLoad(buffer, index, mode):
                return self._padded(buffer, index, mode, names)
            case Splat(a, lanes):
                return np.repeat(self._value(a, names), lanes, axis=0)
            case Spread(a):
                return self._value(a, names)[list(value.sources)]
            case Interleave(pieces):
                return np.stack([self._value(piece, names) for piece in pieces], axis=1)
            case Sum(a):
                parts = self._value(a, names)
                while len(parts) > 1:
                    parts = parts[: len(parts) // 2] + parts[len(parts) // 2 :]
                return parts
            case Fma(a, b, c):
                return _fma(self._value(a, names), self._value(b, names), self._value(c, names))
            case Dot(a, b, c):
                return _dot(self._value(a, names), self._value(b, names), self._value(c, names))
            case Arith(op, a, b):
                return _ARITH[op](self._value(a, names), self._value(b, names))
            case Convert(a, dtype):
                operand = self._value(a, names)
                return (operand if dtype == "float32" else np.rint(operand)).astype(DTYPES[dtype].numpy)
            case Apply(function, a):
                operand = self._value(a, names)
                return _FUNCTIONS[function](operand.astype(np.float64)).astype(operand.dtype)
            case Choose(conditions, a, b):
                chosen = a if all(self._holds(condition, names) for condition in conditions) else b
                return self._value(chosen, names)
            case Where(test, a, b):
                return np.where(self._value(test, names) < 0, self._value(a, names), self._value(b, names))

    def _load(
        self, buffer: str, index: tuple[Index, ...], lanes: int, count: Index | None, names: Mapping[str, int]
    ) -> Array:
        array, position = self._locate(buffer, index, lanes, count, names)
        dtype = array.dtype if buffer in self.registers else DTYPES[compute_dtype(self._storage(buffer))].numpy
        result = np.zeros(lanes, dtype=dtype)
        read = np.atleast_1d(array[position])
        result[: len(read)] = read
        return result

    def _terms(self, load: Load, names: Mapping[str, int]) -> Array:
        """[lane, term], as they are stored."""
        lanes = [
            self._locate(load.buffer, _moved_lane(load.index, lane), load.terms, None, names)
            for lane in range(load.lanes)
        ]
        return np.stack([array[position] for array, position in lanes])

    def _storage(self, buffer: str) -> str:
        return self.program.buffer(buffer).dtype

    def _padded(self, buffer: str, index: tuple[Index, ...], mode: str, names: Mapping[str, int]) -> Array:
        array = self.memory[buffer]
        dtype = DTYPES[compute_dtype(self._storage(buffer))].numpy
        place: list[int] = []
        for expression, extent in zip(index, array.shape, strict=True):
            i = evaluate_index(expression, names)
            match mode:
                case "replicate":
                    i = min(max(i, 0), extent - 1)
                case "circular":
                    i = i % extent
                case "reflect":
                    i = extent - 1 - abs(extent - 1 - abs(i))
                case _:
                    if not 0 <= i < extent:
                        return np.zeros(1, dtype)
            place.append(i)
        if not all(0 <= i < extent for i, extent in zip(place, array.shape, strict=True)):
            raise IRError(f"stage {self.stage.name}: padded access {buffer}{place} lies outside {array.shape}")
        return np.full(1, array[tuple(place)], dtype)


def _moved(index: tuple[Index, ...], axis: int, along: int, last: int) -> tuple[Index, ...]:
    """The place ``along`` steps further on the axis and ``last`` further on the last one."""
    return (*index[:axis], add(index[axis], along), *index[axis + 1 : -1], add(index[-1], last))


def _moved_lane(index: tuple[Index, ...], lane: int) -> tuple[Index, ...]:
    """The place of a lane that is one element of the axis before the last."""
    return (*index[:-2], add(index[-2], lane), index[-1]) if lane else index


def _dot(a: Array, b: Array, c: Array) -> Array:
    """One product after the other."""
    total = c
    for term in range(a.shape[1]):
        x, y = (_flushed(part[:, term].astype(c.dtype)) for part in (a, b))
        total = _flushed(_fma(x, y, total))
    return total


def _turned_dot(a: Array, b: Array, c: Array) -> Array:
    """c + a times b transposed, one product after the other."""
    total = c
    x, y = (_tf32(part) if part.dtype == np.float32 else part.astype(c.dtype) for part in (a, b))
    for k in range(a.shape[1]):
        total = _fma(x[:, k, None], y[None, :, k], total)
    return total


def _tf32(values: Array) -> Array:
    """Rounded to ten bits behind the first, halves away from zero."""
    bits = values.view(np.uint32) + np.uint32(0x1000) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(values), bits.view(np.float32), values)


def _flushed(values: Array) -> Array:
    """Zeros of the same sign for denormals."""
    if values.dtype != np.float32:
        return values
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), values), values)


def _fma(a: Array, b: Array, c: Array) -> Array:
    if a.dtype != np.float32:
        exact: Array = a * b + c
        return exact
    product: Array = a.astype(np.float64) * b
    rounded: Array = (product + c).astype(np.float32)
    return rounded
