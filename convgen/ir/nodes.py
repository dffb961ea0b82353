"""The nodes of the IR: index expressions, values, statements, programs. All are frozen.

A program is a list of stages over named buffers; a stage is a loop nest of scalar or vector stores. Loops run from 0 to their
extent. A value has a data type and a number of lanes; a load of a narrow type yields its accumulator type, and a store rounds
to the buffer's type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as OneOf
from typing import TypeAlias

from convgen.transforms.linear import LinearProgram

IndexOperator = OneOf["+", "-", "*", "//", "%", "min", "max"]
ArithOperator = OneOf["+", "-", "*", "/", "min", "max"]
Function = OneOf["exp", "tanh", "erf"]
LoopKind = OneOf["serial", "parallel", "thread", "warp"]
Space = OneOf["operand", "result", "packed", "workspace", "local", "register", "tile"]
PaddingMode = OneOf["zeros", "reflect", "replicate", "circular"]


# ---- index expressions: integers known at compile time, loop variables and run-time sizes


@dataclass(frozen=True)
class Int:
    value: int


@dataclass(frozen=True)
class Var:
    name: str


@dataclass(frozen=True)
class IndexOp:
    """Integer arithmetic; ``//`` and ``%`` round towards minus infinity, as in Python."""

    op: IndexOperator
    a: Index
    b: Index


Index: TypeAlias = Int | Var | IndexOp


@dataclass(frozen=True)
class Less:
    """The condition a < b."""

    a: Index
    b: Index


# ---- values


@dataclass(frozen=True)
class Const:
    value: float
    dtype: str
    lanes: int = 1


@dataclass(frozen=True)
class Load:
    """``lanes`` consecutive elements along the last axis; lanes at or beyond ``count`` are not read and are zero.

    With ``terms`` above 1 each lane is as many consecutive elements, as they are stored: an operand of Dot. Lanes then run along
    the axis before the last one, which is as long as a lane.
    """

    buffer: str
    index: tuple[Index, ...]
    lanes: int = 1
    count: Index | None = None
    terms: int = 1


@dataclass(frozen=True)
class PaddedLoad:
    """One element of a buffer that is imagined to continue beyond its edges as ``mode`` says."""

    buffer: str
    index: tuple[Index, ...]
    mode: PaddingMode


@dataclass(frozen=True)
class Splat:
    """A scalar repeated in every lane."""

    value: Value
    lanes: int


@dataclass(frozen=True)
class Spread:
    """Lanes of a vector, each several times: lane l is lane ``first + l // repeat * step`` of ``value``."""

    value: Value
    lanes: int
    repeat: int
    step: int
    first: int

    @property
    def sources(self) -> tuple[int, ...]:
        """For each lane the lane of ``value`` that it is."""
        return tuple(self.first + lane // self.repeat * self.step for lane in range(self.lanes))


@dataclass(frozen=True)
class Interleave:
    """Vectors whose elements are the terms of a lane, as they are stored: lane l is lane l of each of ``values``, in order, which
    are reads, or zero where conditions do not hold. An operand of Dot whose terms do not lie next to each other, or what a
    Store brings there."""

    values: tuple[Value, ...]


@dataclass(frozen=True)
class Sum:
    """The sum of a vector's lanes, a power of two of them: the upper half is added to the lower until one is left."""

    value: Value


@dataclass(frozen=True)
class Fma:
    """a * b + c, rounded once where the type is a floating-point one."""

    a: Value
    b: Value
    c: Value


@dataclass(frozen=True)
class Dot:
    """Per lane c and the products of all terms of ``a`` and ``b``, added in the accumulator's type in any order.

    A sum of bfloat16 takes denormals for zeros: what its operands have of them, and what it would become.
    """

    a: Value
    b: Value
    c: Value


@dataclass(frozen=True)
class Arith:
    op: ArithOperator
    a: Value
    b: Value


@dataclass(frozen=True)
class Convert:
    """int32 as the nearest float32, or float32 rounded to the nearest int32, halves to even; it must be one."""

    a: Value
    dtype: str


@dataclass(frozen=True)
class Apply:
    """An elementary function of every lane."""

    function: Function
    a: Value


@dataclass(frozen=True)
class Choose:
    """``a`` where every condition holds, else ``b``; the value that is not chosen is not evaluated."""

    conditions: tuple[Less, ...]
    a: Value
    b: Value


@dataclass(frozen=True)
class Where:
    """Per lane: ``a`` where ``test`` < 0, else ``b``; both are evaluated."""

    test: Value
    a: Value
    b: Value


Value: TypeAlias = (
    Const | Load | PaddedLoad | Splat | Spread | Interleave | Sum | Fma | Dot | Arith | Convert | Apply | Choose | Where
)


# ---- statements


@dataclass(frozen=True)
class Buffer:
    """Row-major storage. ``register`` buffers live in registers of one task, ``tile`` buffers in those of its matrix unit: their
    last two axes are a tile's rows and columns, the others number the tiles. All others are memory.

    ``local`` memory belongs to one worker at a time: its contents are undefined when a task begins. A task's threads share it.
    """

    name: str
    dtype: str
    shape: tuple[Index, ...]
    space: Space


@dataclass(frozen=True)
class For:
    """A loop from 0. Iterations of ``parallel`` loops are a stage's tasks, those of ``thread`` loops the threads of a task, by
    number: between two barriers they may run in any order, and together. So may those of ``warp`` loops, which are for 32 threads
    in step each: they use the matrix unit together."""

    var: str
    extent: Index
    body: tuple[Stmt, ...]
    kind: LoopKind = "serial"


@dataclass(frozen=True)
class If:
    condition: Less
    body: tuple[Stmt, ...]


@dataclass(frozen=True)
class Alloc:
    """A register buffer that lives in ``body``; its contents are undefined until stored."""

    buffer: Buffer
    body: tuple[Stmt, ...]


@dataclass(frozen=True)
class Store:
    """``lanes`` consecutive elements along the last axis; lanes at or beyond ``count`` are left alone.

    Lanes of several terms run along the axis before the last one, which is as long as a lane; all of them are stored.
    """

    buffer: str
    index: tuple[Index, ...]
    value: Value
    lanes: int = 1
    count: Index | None = None


@dataclass(frozen=True)
class Transform:
    """A constant matrix applied to registers, in place: along the first axis of ``buffer``, at every place of the others, the
    first ``map.inputs`` elements are replaced by ``map``'s outputs. ``label`` says which matrix it is."""

    buffer: str
    map: LinearProgram
    label: str


@dataclass(frozen=True)
class Transpose:
    """A square of ``size`` times ``size`` elements is copied from one buffer of memory to another of the same type:

        target[.., j along target_axis, .., i along the last axis] = source[.., i along source_axis, .., j along the last axis]

    for i < rows and j < columns, both from the places ``target_index`` and ``source_index`` on (None: the whole square).
    """

    target: str
    target_index: tuple[Index, ...]
    target_axis: int
    source: str
    source_index: tuple[Index, ...]
    source_axis: int
    size: int
    rows: Index | None = None
    columns: Index | None = None


@dataclass(frozen=True)
class Prefetch:
    """``lanes`` elements of a memory buffer from ``index`` on will soon be read or written. Nothing is read and nothing changes:
    the elements need not exist."""

    buffer: str
    index: tuple[Index, ...]
    lanes: int


@dataclass(frozen=True)
class Barrier:
    """All threads of a task have done what stands before it, when any of them goes on."""


@dataclass(frozen=True)
class CopyAsync:
    """``lanes`` elements along the last axis begin to be copied from memory to local memory of the same type, or zeros where a
    condition does not hold. They are there when their group has been waited for; until then the target is undefined."""

    target: str
    target_index: tuple[Index, ...]
    source: str
    source_index: tuple[Index, ...]
    lanes: int
    conditions: tuple[Less, ...] = ()


@dataclass(frozen=True)
class CopyGroup:
    """The copies that each thread has begun since the last group are a group, even if there are none."""


@dataclass(frozen=True)
class CopyWait:
    """All groups but the last ``pending`` ones have arrived."""

    pending: int


@dataclass(frozen=True)
class TileZero:
    """Every element of a tile becomes zero; ``index`` numbers the tile among those of its buffer."""

    tile: str
    index: tuple[Index, ...]


@dataclass(frozen=True)
class TileLoad:
    """tile[index][r, c] = element c in memory, in order, from source[source_index, r * step further along axis] on.

    A row is whole in memory: it lies inside the last axis, or begins there where last axes do that it fills. Of a ``turned`` tile
    columns are: tile[index][r, c] = element r in memory, in order, from source[source_index, c * step further along axis] on.
    """

    tile: str
    index: tuple[Index, ...]
    source: str
    source_index: tuple[Index, ...]
    axis: int
    step: int = 1
    turned: bool = False


@dataclass(frozen=True)
class TileDot:
    """c[i, j] = c[i, j] + sum over k and t of a[i, k * terms + t] * b[k, j * terms + t], in the accumulator's type in any order.

    Sums of bfloat16 take denormals for zeros, see Dot. Where b is ``turned`` it is sum over k of a[i, k] * b[j, k]; denormals
    count, and factors of float32 are first rounded to TF32: ten bits behind the first, halves away from zero.
    """

    c: str
    c_index: tuple[Index, ...]
    a: str
    a_index: tuple[Index, ...]
    b: str
    b_index: tuple[Index, ...]
    turned: bool = False


@dataclass(frozen=True)
class TileStore:
    """Element c in memory, in order, from target[target_index, r further along axis] on = tile[index][r, c]; see TileLoad."""

    target: str
    target_index: tuple[Index, ...]
    axis: int
    tile: str
    index: tuple[Index, ...]


TileStmt: TypeAlias = TileZero | TileLoad | TileDot | TileStore
CopyStmt: TypeAlias = CopyAsync | CopyGroup | CopyWait
Stmt: TypeAlias = For | If | Alloc | Store | Transform | Transpose | Prefetch | Barrier | CopyStmt | TileStmt


# ---- programs


@dataclass(frozen=True)
class Stage:
    """One kernel. ``bindings`` are sizes of this stage alone, given by the program's sizes.

    ``views`` say how the stage sees some buffers: the same extents under other names, so that what is constant in the program can
    be an argument of this kernel. ``needs`` is what must hold of the sizes for the stage to mean what it meant before a pass.
    """

    name: str
    body: tuple[Stmt, ...]
    bindings: tuple[tuple[str, Index], ...] = ()
    views: tuple[Buffer, ...] = ()
    needs: tuple[Less, ...] = ()


@dataclass(frozen=True)
class Program:
    """Stages run in order. ``sizes`` names the run-time extents; ``buffers`` are all memory buffers in the order of the call."""

    name: str
    sizes: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    stages: tuple[Stage, ...]

    def buffer(self, name: str) -> Buffer:
        """The memory buffer called ``name``; KeyError if there is none."""
        for buffer in self.buffers:
            if buffer.name == name:
                return buffer
        raise KeyError(name)

    def seen(self, stage: Stage, name: str) -> Buffer:
        """The memory buffer called ``name`` as a stage sees it; KeyError if there is none."""
        return next((view for view in stage.views if view.name == name), self.buffer(name))

    def has_buffer(self, name: str) -> bool:
        return any(buffer.name == name for buffer in self.buffers)
