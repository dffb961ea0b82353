"""The rules that every program obeys, before and after every pass.

Names are defined before use and never shadowed; ranks, data types and lanes agree; register buffers have constant shapes;
operands are read only; parallel loops are outermost and their iterations store to different places; thread loops stand in no
other, are all as long, and number the registers that live on after them; a vector access runs along the last axis. Whether
indices stay inside buffers is checked by the interpreter, element by element.
"""

from __future__ import annotations

from convgen.dtypes import DTYPES
from convgen.errors import IRError
from convgen.ir.build import mul
from convgen.ir.nodes import (
    Alloc,
    Barrier,
    Buffer,
    Choose,
    CopyAsync,
    CopyGroup,
    CopyWait,
    For,
    If,
    Index,
    Int,
    Interleave,
    Less,
    Load,
    PaddedLoad,
    Prefetch,
    Program,
    Stage,
    Stmt,
    Store,
    TileDot,
    TileLoad,
    TileStmt,
    TileStore,
    TileZero,
    Transform,
    Transpose,
    Value,
    Var,
)
from convgen.ir.printer import format_index
from convgen.ir.rewrite import loops, reads, statements, stores, values, variables
from convgen.ir.types import TILE_TERMS, TURNED_TILES, compute_dtype, terms_dtype, value_type

# Threads of a warp.
WARP = 32
# A tile of the matrix unit has no more rows, each of no more bytes.
TILE_ROWS, TILE_BYTES = 16, 64


def _tile_shape(buffer: Buffer) -> tuple[int, int]:
    rows, columns = (extent.value for extent in buffer.shape[-2:] if isinstance(extent, Int))
    return rows, columns


def check(program: Program) -> None:
    """Raises IRError naming the stage and the rule that is broken."""
    names = [buffer.name for buffer in program.buffers]
    _unique("buffer", names)
    _unique("size", list(program.sizes))
    _unique("stage", [stage.name for stage in program.stages])
    for stage in program.stages:
        if stage.name in names:
            raise IRError(f"stage {stage.name} has the name of a buffer")
    sizes = frozenset(program.sizes)
    for buffer in program.buffers:
        if buffer.space == "register":
            raise IRError(f"buffer {buffer.name}: register buffers belong to an alloc, not to the program")
        _check_buffer(buffer, sizes)
    for stage in program.stages:
        try:
            _Checker(program, stage).run()
        except IRError as error:
            raise IRError(f"stage {stage.name}: {error}") from error


def _unique(kind: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise IRError(f"{kind} {name} is defined twice")


def _check_buffer(buffer: Buffer, names: frozenset[str]) -> None:
    if buffer.dtype not in DTYPES:
        raise IRError(f"buffer {buffer.name}: unknown data type {buffer.dtype}")
    for extent in buffer.shape:
        _check_index(extent, names)


def _check_index(expression: Index, names: frozenset[str]) -> None:
    for name in sorted(variables(expression) - names):
        raise IRError(f"{name} is used in {format_index(expression)} but not defined")


class _Checker:
    """Checks one stage; the sets of visible names travel down the recursion."""

    def __init__(self, program: Program, stage: Stage) -> None:
        self._stage = stage
        self._sizes = frozenset(program.sizes)
        self._memory = {buffer.name: buffer for buffer in program.buffers}
        self._warps = {Var(loop.var) for loop in loops(stage.body) if loop.kind == "warp"}

    def run(self) -> None:
        bound = [name for name, _ in self._stage.bindings]
        _unique("binding", bound)
        for name, expression in self._stage.bindings:
            if name in self._sizes:
                raise IRError(f"binding {name} shadows a size")
            _check_index(expression, self._sizes)
        for view in self._stage.views:
            self._view(view, self._sizes | frozenset(bound))
        for need in self._stage.needs:
            self._condition(need, self._sizes | frozenset(bound))
        self._block(self._stage.body, self._sizes | frozenset(bound), dict(self._memory), parallel=True)
        self._threads()

    def _threads(self) -> None:
        """The rules of stages whose tasks have threads."""
        every = tuple(loops(self._stage.body))
        found = {loop.extent for loop in every if loop.kind == "thread"}
        found |= {mul(loop.extent, WARP) for loop in every if loop.kind == "warp"}
        if not found:
            return
        if len(found) > 1 or not all(isinstance(extent, Int) and extent.value > 0 for extent in found):
            raise IRError(f"thread loops of {sorted(map(format_index, found))} iterations are not all as long")
        self._outside_threads(self._stage.body, frozenset())

    def _outside_threads(self, body: tuple[Stmt, ...], shared: frozenset[str]) -> None:
        """``shared`` names the registers of all threads."""
        for statement in body:
            match statement:
                case For(var, _, inner, "thread" | "warp"):
                    self._inside_threads(inner, var, shared)
                case For(_, _, inner) | If(_, inner):
                    self._outside_threads(inner, shared)
                case Alloc(buffer, inner):
                    self._outside_threads(inner, shared | {buffer.name})
                case _:
                    pass

    def _inside_threads(self, body: tuple[Stmt, ...], thread: str, shared: frozenset[str]) -> None:
        for statement in statements(body):
            match statement:
                case Barrier() | CopyGroup() | CopyWait() | For(kind="thread" | "warp"):
                    raise IRError(f"a barrier or threads stand in thread loop {thread}")
                case _:
                    pass
        for access in (*stores(body), *reads(body)):
            if access.buffer in shared and access.index[:1] != (Var(thread),):
                raise IRError(f"{access.buffer} is not numbered by thread {thread}")

    def _view(self, view: Buffer, names: frozenset[str]) -> None:
        if view.name not in self._memory:
            raise IRError(f"view of {view.name}, which is not a buffer")
        whole = self._memory[view.name]
        if (view.dtype, view.space, len(view.shape)) != (whole.dtype, whole.space, len(whole.shape)):
            raise IRError(f"view of {view.name} is of another type, space or rank")
        _check_buffer(view, names)

    def _block(
        self, body: tuple[Stmt, ...], names: frozenset[str], buffers: dict[str, Buffer], *, parallel: bool
    ) -> None:
        for statement in body:
            match statement:
                case For():
                    self._loop(statement, names, buffers, parallel=parallel and len(body) == 1)
                case If(condition, inner):
                    self._condition(condition, names)
                    self._block(inner, names, buffers, parallel=False)
                case Alloc(buffer, inner):
                    self._alloc(buffer, names, buffers)
                    self._block(inner, names, {**buffers, buffer.name: buffer}, parallel=False)
                case Store():
                    self._store(statement, names, buffers)
                case Transform():
                    self._transform(statement, buffers)
                case Transpose():
                    self._transpose(statement, names, buffers)
                case Barrier() | CopyGroup() | CopyWait():
                    pass
                case CopyAsync():
                    self._copy(statement, names, buffers)
                case Prefetch():
                    self._prefetch(statement, names, buffers)
                case TileZero() | TileLoad() | TileDot() | TileStore():
                    self._tile(statement, names, buffers)

    def _loop(self, loop: For, names: frozenset[str], buffers: dict[str, Buffer], *, parallel: bool) -> None:
        _check_index(loop.extent, names)
        if loop.var in names:
            raise IRError(f"loop {loop.var} shadows a name")
        if loop.var in buffers:
            raise IRError(f"loop {loop.var} has the name of a buffer")
        if loop.kind == "parallel":
            if not parallel:
                raise IRError(f"parallel loop {loop.var} is not outermost")
            for store in stores(loop.body):
                shared = store.buffer in self._memory and self._memory[store.buffer].space != "local"
                if shared and not any(loop.var in variables(i) for i in store.index):
                    raise IRError(f"iterations of parallel loop {loop.var} store to the same place of {store.buffer}")
        self._block(loop.body, names | {loop.var}, buffers, parallel=parallel and loop.kind == "parallel")

    def _alloc(self, buffer: Buffer, names: frozenset[str], buffers: dict[str, Buffer]) -> None:
        if buffer.name in buffers:
            raise IRError(f"alloc {buffer.name} shadows a buffer")
        if buffer.name in names:
            raise IRError(f"alloc {buffer.name} has the name of a loop or a size")
        if buffer.space not in ("register", "tile") or not all(isinstance(extent, Int) for extent in buffer.shape):
            raise IRError(f"alloc {buffer.name} needs a register buffer of constant shape")
        if buffer.space == "tile":
            self._alloc_tile(buffer)
            return
        if buffer.dtype not in DTYPES or compute_dtype(buffer.dtype) != buffer.dtype:
            raise IRError(f"alloc {buffer.name}: {buffer.dtype} is not a type that is computed in")

    @staticmethod
    def _alloc_tile(buffer: Buffer) -> None:
        if buffer.dtype not in DTYPES or len(buffer.shape) < 2:
            raise IRError(f"alloc {buffer.name} is not of tiles of a known type")
        rows, columns = _tile_shape(buffer)
        size = columns * DTYPES[buffer.dtype].itemsize
        if not 1 <= rows <= TILE_ROWS or not 1 <= size <= TILE_BYTES:
            raise IRError(f"alloc {buffer.name}: a tile of {rows} rows of {size} bytes is none of the matrix unit")

    def _tile(self, statement: TileStmt, names: frozenset[str], buffers: dict[str, Buffer]) -> None:
        match statement:
            case TileZero(tile, index):
                self._tile_buffer(tile, index, buffers)
            case TileLoad(tile, index, memory, place, axis, step, _):
                self._access(Load(memory, place), names, buffers)
                self._tile_rows(self._tile_buffer(tile, index, buffers), buffers[memory], axis, step)
            case TileStore(memory, place, axis, tile, index):
                self._access(Load(memory, place), names, buffers)
                self._tile_rows(self._tile_buffer(tile, index, buffers), buffers[memory], axis, 1)
                if buffers[memory].space == "operand":
                    raise IRError(f"operand {memory} is stored to")
            case TileDot(c, c_index, a, a_index, b, b_index, turned):
                found = [self._tile_buffer(*each, buffers) for each in ((c, c_index), (a, a_index), (b, b_index))]
                dtypes = tuple(buffer.dtype for buffer in found)
                (rows, lanes), (a_rows, a_columns), (b_rows, b_columns) = map(_tile_shape, found)
                if turned:
                    known = (
                        dtypes[1] == dtypes[2] and dtypes[1] in TURNED_TILES and dtypes[0] == compute_dtype(dtypes[1])
                    )
                    if not known or (a_rows, b_rows, a_columns) != (rows, lanes, b_columns):
                        raise IRError(f"tiles {c}, {a} and turned {b} are no product: {', '.join(dtypes)}")
                    return
                terms = TILE_TERMS.get((dtypes[1], dtypes[2]), 0)
                fits = (a_rows, a_columns, b_columns) == (rows, b_rows * terms, lanes * terms)
                if not terms or dtypes[0] != compute_dtype(dtypes[1]) or not fits:
                    raise IRError(f"tiles {c}, {a} and {b} are no product: {', '.join(dtypes)}")

    def _tile_buffer(self, name: str, index: tuple[Index, ...], buffers: dict[str, Buffer]) -> Buffer:
        buffer = buffers.get(name)
        if buffer is None or buffer.space != "tile":
            raise IRError(f"{name} is not a buffer of tiles")
        own = index[1:] if index and index[0] in self._warps else index
        numbered = all(isinstance(i, Int) for i in own)
        if len(index) != len(buffer.shape) - 2 or not numbered:
            raise IRError(
                f"tile {name} is not numbered by {len(buffer.shape) - 2} constants, the first of which may be a warp"
            )
        return buffer

    @staticmethod
    def _tile_rows(tile: Buffer, memory: Buffer, axis: int, step: int) -> None:
        if memory.space in ("register", "tile") or memory.dtype != tile.dtype:
            raise IRError(f"rows of {tile.name} are not rows of memory of its type: {memory.name}")
        if not 0 <= axis < len(memory.shape) - 1 or step < 1:
            raise IRError(f"rows of {tile.name} along axis {axis} of {memory.name}, which is not before its last")

    def _condition(self, condition: Less, names: frozenset[str]) -> None:
        _check_index(condition.a, names)
        _check_index(condition.b, names)

    def _access(self, access: Load | PaddedLoad | Store, names: frozenset[str], buffers: dict[str, Buffer]) -> None:
        if access.buffer not in buffers:
            raise IRError(f"buffer {access.buffer} is not defined")
        rank = len(buffers[access.buffer].shape)
        if len(access.index) != rank:
            raise IRError(f"buffer {access.buffer} has {rank} axes, not {len(access.index)}")
        for expression in access.index:
            _check_index(expression, names)
        if isinstance(access, PaddedLoad):
            return
        if isinstance(access, Load) and access.terms > 1:
            self._terms(access, buffers[access.buffer])
        if isinstance(access, Load) and access.terms < 1:
            raise IRError(f"access to {access.buffer} with {access.terms} terms a lane")
        if access.lanes < 1 or (access.lanes > 1 and not rank):
            raise IRError(f"access to {access.buffer} with {access.lanes} lanes")
        if access.count is not None:
            _check_index(access.count, names)

    @staticmethod
    def _terms(load: Load, buffer: Buffer) -> None:
        if buffer.space == "register" or load.count is not None:
            raise IRError(f"terms of {load.buffer} are counted, or no elements of memory")
        whole = len(buffer.shape) > 1 and buffer.shape[-1] == Int(load.terms) and load.index[-1] == Int(0)
        if load.lanes > 1 and not whole:
            raise IRError(f"lanes of {load.terms} terms are not the last axis of {load.buffer}")

    def _store(self, store: Store, names: frozenset[str], buffers: dict[str, Buffer]) -> None:
        self._access(store, names, buffers)
        if buffers[store.buffer].space == "operand":
            raise IRError(f"operand {store.buffer} is stored to")
        for value in values(store.value):
            self._value(value, names, buffers)
        dtype, lanes = value_type(store.value, buffers)
        expected = (compute_dtype(buffers[store.buffer].dtype), store.lanes)
        if isinstance(store.value, Interleave):
            terms = len(store.value.values)
            self._terms(Load(store.buffer, store.index, max(2, lanes), store.count, terms), buffers[store.buffer])
            expected = (terms_dtype(buffers[store.buffer].dtype, terms), store.lanes)
        if (dtype, lanes) != expected:
            raise IRError(f"store to {store.buffer} takes {expected[0]} x {expected[1]}, not {dtype} x {lanes}")

    def _transform(self, transform: Transform, buffers: dict[str, Buffer]) -> None:
        buffer = buffers.get(transform.buffer)
        if buffer is None or buffer.space != "register" or not buffer.shape:
            raise IRError(f"transform of {transform.buffer}, which is not a register buffer with an axis")
        needed = max(transform.map.inputs, len(transform.map.outputs))
        if not isinstance(extent := buffer.shape[0], Int) or extent.value < needed:
            raise IRError(
                f"transform of {transform.buffer} needs {needed} elements, not {format_index(buffer.shape[0])}"
            )

    def _transpose(self, transpose: Transpose, names: frozenset[str], buffers: dict[str, Buffer]) -> None:
        for store in stores((transpose,)):
            self._store(store, names, buffers)
        target, source = buffers[transpose.target], buffers[transpose.source]
        if target.name == source.name or target.dtype != source.dtype:
            raise IRError(f"transpose of {source.name} into {target.name}, which are not two buffers of one type")
        if "register" in (target.space, source.space):
            raise IRError(f"transpose of {source.name} into {target.name}, which are not both memory")
        for buffer, axis in ((target, transpose.target_axis), (source, transpose.source_axis)):
            if not 0 <= axis < len(buffer.shape) - 1:
                raise IRError(f"transpose along axis {axis} of {buffer.name}, which is not before its last")
        if transpose.size < 2 or transpose.size & (transpose.size - 1):
            raise IRError(f"transpose of {transpose.size} rows, which is not a power of two above 1")

    def _copy(self, copy: CopyAsync, names: frozenset[str], buffers: dict[str, Buffer]) -> None:
        for store in stores((copy,)):
            self._store(store, names, buffers)
        target, source = buffers[copy.target], buffers[copy.source]
        if target.space != "local" or source.space in ("local", "register", "tile") or target.dtype != source.dtype:
            raise IRError(f"{source.name} is not copied to local memory of its type: {target.name}")

    def _prefetch(self, prefetch: Prefetch, names: frozenset[str], buffers: dict[str, Buffer]) -> None:
        self._access(Load(prefetch.buffer, prefetch.index, prefetch.lanes), names, buffers)
        if buffers[prefetch.buffer].space == "register":
            raise IRError(f"prefetch of {prefetch.buffer}, which is a register")

    def _value(self, value: Value, names: frozenset[str], buffers: dict[str, Buffer]) -> None:
        match value:
            case Load() | PaddedLoad():
                self._access(value, names, buffers)
            case Choose(conditions, _, _):
                for condition in conditions:
                    self._condition(condition, names)
            case _:
                pass
