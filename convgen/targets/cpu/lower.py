"""From a stage of the IR to the lines of a Python function, and the vector operations that it uses.

Loops stay loops; the parallel loops become the task range ``begin..end``. Registers become local variables. Within a run of
stores, what several of them read is read once into a variable, and addresses that differ by constants share a base.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from convgen.dtypes import DTYPES
from convgen.errors import IRError
from convgen.ir.build import floordiv, mod, mul
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
    Int,
    Interleave,
    Less,
    Load,
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
from convgen.ir.printer import format_index
from convgen.ir.rewrite import reads, statements, stores, values
from convgen.ir.types import compute_dtype, value_type
from convgen.machine import Machine
from convgen.targets.cpu.mentions import WORKER_BYTES, mentioned_names
from convgen.targets.cpu.operations import BITS_DTYPE, TERMS_DTYPE, Operation
from convgen.targets.cpu.places import INDENT, WIDTH, Places
from convgen.targets.cpu.tiles import Tiles, tiles_of
from convgen.transforms.lines import transform_lines

# The bytes of an accumulator of the matrix unit.
LANE_BYTES = 4
# What two vectors of 16-bit numbers make.
_PAIRS = ("bfloat16*2", "float16*2")
_ARITH = {"+": "add", "-": "sub", "*": "mul", "/": "div", "min": "min", "max": "max"}


@dataclass(frozen=True)
class LoweredStage:
    """The body of a stage's function, what it uses, and how many tasks it has.

    ``sizes`` are the names whose values the function reads from its ``sizes`` argument, in order; ``tasks`` is an expression
    of the program's sizes and the stage's bindings.
    """

    name: str
    body: tuple[str, ...]
    operations: tuple[Operation, ...]
    sizes: tuple[str, ...]
    tasks: Index


def lower_stage(program: Program, stage: Stage, machine: Machine) -> LoweredStage:
    """The text of a stage for a machine; raises IRError where a register is not addressed by constants."""
    writer = _Writer(program, stage, machine)
    nest, body = _parallel_nest(stage.body)
    writer.depth = 1
    writer.configure_tiles()
    tasks = writer.task_loop(nest)
    writer.hoist(body)
    writer.block(body)
    writer.depth = 1
    writer.release_tiles()
    used = mentioned_names(program, stage)
    known = (*program.sizes, *(name for name, _ in stage.bindings), WORKER_BYTES)
    sizes = tuple(name for name in known if name in used)
    return LoweredStage(
        stage.name,
        (*_unpacking(program, stage, sizes), *writer.lines),
        tuple(sorted(writer.operations)),
        sizes,
        tasks,
    )


def _parallel_nest(body: tuple[Stmt, ...]) -> tuple[tuple[For, ...], tuple[Stmt, ...]]:
    nest: tuple[For, ...] = ()
    while len(body) == 1 and isinstance(loop := body[0], For) and loop.kind == "parallel":
        nest += (loop,)
        body = loop.body
    return nest, body


def _unpacking(program: Program, stage: Stage, sizes: tuple[str, ...]) -> Iterator[str]:
    """The lines that name the buffers and sizes."""
    accessed = {access.buffer for access in (*reads(stage.body), *stores(stage.body))}
    places = [(buffer, i) for i, buffer in enumerate(program.buffers) if buffer.name in accessed]
    shared = [(buffer.name, f"buffers[{i}]") for buffer, i in places if buffer.space != "local"]
    local = [
        (buffer.name, f"buffers[{i}] + worker * {WORKER_BYTES}") for buffer, i in places if buffer.space == "local"
    ]
    for assigned in (shared, [(name, f"sizes[{i}]") for i, name in enumerate(sizes)], local):
        if assigned:
            yield from _assignment([name for name, _ in assigned], [source for _, source in assigned])


def _assignment(names: list[str], sources: list[str]) -> Iterator[str]:
    line = f"{INDENT}{', '.join(names)} = {', '.join(sources)}"
    if len(line) <= WIDTH:
        yield line
        return
    half = len(names) // 2
    yield from _assignment(names[:half], sources[:half])
    yield from _assignment(names[half:], sources[half:])


def _prefix(value: Value) -> str:
    """What a shared value is called."""
    match value:
        case Load(buffer) | Choose(_, Load(buffer)):
            return f"{buffer}_here"
        case Interleave((Load(buffer) | Choose(_, Load(buffer)), *_)):
            return f"{buffer}_terms"
        case _:
            return "constant"


def _is_load_or_zero(choice: Value) -> bool:
    """Whether a choice is between a vector of memory and zeros, so that it needs no branch."""
    match choice:
        case Choose(_, Load(_, _, lanes, _, 1), Const(0)):
            return lanes > 1
        case _:
            return False


@dataclass
class _Writer(Places):
    """The statements and values written so far."""

    kept: dict[Value, str] = field(default_factory=dict)
    limits: dict[Index, str] = field(default_factory=dict)
    tested: dict[Less, str] = field(default_factory=dict)
    has_dots: bool = False
    tiles: dict[str, Tiles] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = (value for store in stores(self.stage.body) for value in values(store.value))
        multiplied = any(isinstance(statement, TileDot) for statement in statements(self.stage.body))
        self.has_dots = multiplied or any(isinstance(value, Dot) for value in found)

    # ---- statements

    def task_loop(self, nest: tuple[For, ...]) -> Index:
        """The loop over tasks, and the parallel loops' variables from a task's number."""
        match nest:
            case (only,):
                self.line(f"for {only.var} in range(begin, end):")
                self.depth += 1
                return only.extent
            case _:
                self.line("for task in range(begin, end):")
                self.depth += 1
        rest: Index = Var("task")
        tasks: Index = Int(1)
        places: dict[str, str] = {}
        for loop in reversed(nest):
            outermost = loop is nest[0]
            value = rest if outermost else mod(rest, loop.extent)
            places[loop.var] = format_index(value)
            rest = floordiv(Var("task"), tasks := mul(tasks, loop.extent))
        names = list(reversed(places))
        self.assign_all(names, [places[name] for name in names])
        return tasks

    def block(self, body: tuple[Stmt, ...]) -> None:
        run: list[Store] = []
        for statement in body:
            if isinstance(statement, Store):
                run.append(statement)
                continue
            self.stores(run)
            run = []
            self.compound(statement)
        self.stores(run)

    def compound(
        self, statement: For | If | Alloc | Transform | Transpose | Prefetch | Barrier | CopyStmt | TileStmt
    ) -> None:
        match statement:
            case TileZero() | TileLoad() | TileDot() | TileStore():
                self.tile(statement)
            case Prefetch(name, index, lanes):
                self.bases = {}
                dtype = self.program.buffer(name).dtype
                operation = self.use(Operation("prefetch", dtype, lanes, dtype))
                self.line(f"{operation}({name}, {self.place(name, index)})")
            case Transpose():
                self.transpose(statement)
            case Barrier() | CopyAsync() | CopyGroup() | CopyWait():
                raise IRError(f"stage {self.stage.name} has threads, which are for GPUs")
            case Transform():
                self.transform(statement)
            case For(var, extent, body):
                self.line(f"for {var} in range({self.text(extent)}):")
                self.indented(body)
            case If(condition, body):
                self.line(f"if {self.condition(condition)}:")
                self.indented(body)
            case Alloc(buffer, body):
                if buffer.space == "register":
                    self.registers[buffer.name] = buffer
                self.block(body)

    # ---- the matrix unit

    def configure_tiles(self) -> None:
        """Before all tasks; what stands in for the unit says where tiles are kept."""
        self.tiles = tiles_of(self.stage)
        if not self.tiles:
            return
        if not self.machine.matrix:
            raise IRError(f"stage {self.stage.name} needs a matrix unit")
        if self.machine.matrix == "emulated":
            self.line(f"tiles = {self.use(Operation('emulated_tile_config', '', 1))}()")
            return
        shapes = tuple(
            size for found in self.tiles.values() for size in (found.rows, found.row_bytes) * math.prod(found.counts)
        )
        self.line(f"{self.use(Operation('tile_config', '', 1, '', shapes))}()")

    def release_tiles(self) -> None:
        """After all tasks."""
        if self.tiles and self.machine.matrix == "amx":
            self.line(f"{self.use(Operation('tile_release', '', 1))}()")

    def tile(self, statement: TileStmt) -> None:
        self.bases = {}
        match statement:
            case TileZero(tile, index):
                self.tile_operation("zero", "", (self.tiles[tile].number(index),), (), ())
            case TileLoad(tile, index, memory, place, axis, step):
                self.tile_move("load", tile, index, memory, place, axis, step)
            case TileStore(memory, place, axis, tile, index):
                self.tile_move("store", tile, index, memory, place, axis, 1)
            case TileDot(c, c_index, a, a_index, b, b_index):
                total, first, second = self.tiles[c], self.tiles[a], self.tiles[b]
                numbers = (total.number(c_index), first.number(a_index), second.number(b_index))
                shape = (total.rows, total.row_bytes // LANE_BYTES, second.rows)
                self.tile_operation("dot", self.tile_dtypes[a], numbers, shape, ())

    def tile_move(
        self,
        kind: str,
        tile: str,
        index: tuple[Index, ...],
        memory: str,
        place: tuple[Index, ...],
        axis: int,
        step: int,
    ) -> None:
        found, buffer = self.tiles[tile], self.program.seen(self.stage, memory)
        apart = self.text(mul(*buffer.shape[axis + 1 :], step))
        operands = (memory, self.place(memory, place), apart)
        self.tile_operation(kind, buffer.dtype, (found.number(index),), (found.rows, found.row_bytes), operands)

    def tile_operation(
        self, kind: str, storage: str, numbers: tuple[int, ...], shape: tuple[int, ...], operands: tuple[str, ...]
    ) -> None:
        """The unit has shapes from its configuration; what stands in for it is told."""
        if self.machine.matrix == "emulated":
            operation = Operation(f"emulated_tile_{kind}", "", 1, storage, (*numbers, *shape))
            operands = ("tiles", *operands)
        else:
            operation = Operation(f"tile_{kind}", "", 1, storage, numbers)
        self.line(f"{self.use(operation)}({', '.join(operands)})")

    @property
    def tile_dtypes(self) -> dict[str, str]:
        """What the elements of tiles are."""
        allocs = (s.buffer for s in statements(self.stage.body) if isinstance(s, Alloc))
        return {buffer.name: buffer.dtype for buffer in allocs if buffer.space == "tile"}

    def transform(self, transform: Transform) -> None:
        """The steps of the matrix, once for each place of the register's other axes."""
        buffer = self.registers[transform.buffer]
        extents = [extent.value for extent in buffer.shape if isinstance(extent, Int)]
        lanes = extents[-1] if len(extents) > 1 else 1
        self.line(f"# {transform.label}")
        for rest in itertools.product(*map(range, extents[1:-1])):
            places = [(Int(i), *map(Int, rest), *([Int(0)] if len(extents) > 1 else [])) for i in range(extents[0])]
            names = [self.register(buffer.name, place, lanes) for place in places]
            maker = f"np.{buffer.dtype}" if lanes == 1 else self.use(Operation("splat", buffer.dtype, lanes))

            def named(kind: str, lanes: int = lanes) -> str:
                return self.use(Operation(kind, buffer.dtype, lanes))

            def constant(number: float, maker: str = maker) -> str:
                return f"{maker}({number!r})"

            for text in transform_lines(transform.map, buffer.name, names, constant, named):
                self.line(text)

    def transpose(self, transpose: Transpose) -> None:
        """One operation: where the square begins, and how far apart its rows are, in both buffers."""
        self.bases = {}
        dtype = self.program.buffer(transpose.source).dtype
        arguments: list[str] = []
        for buffer, index, axis in (
            (transpose.source, transpose.source_index, transpose.source_axis),
            (transpose.target, transpose.target_index, transpose.target_axis),
        ):
            step = mul(*self.program.seen(self.stage, buffer).shape[axis + 1 :])
            arguments += [buffer, self.place(buffer, index), self.text(step)]
        counts = (transpose.rows, transpose.columns)
        if counts != (None, None):
            arguments += [self.text(Int(transpose.size) if count is None else count) for count in counts]
        kind = "transpose" if counts == (None, None) else "transpose_some"
        self.line(f"{self.use(Operation(kind, dtype, transpose.size, dtype))}({', '.join(arguments)})")

    def indented(self, body: tuple[Stmt, ...]) -> None:
        self.depth += 1
        named, fixed = dict(self.named), dict(self.fixed)
        self.hoist(body)
        self.block(body)
        self.named, self.fixed = named, fixed
        self.depth -= 1

    def stores(self, run: list[Store]) -> None:
        """A run of stores without control flow between them."""
        self.bases, self.places, self.kept, self.limits = {}, {}, {}, {}
        if all(isinstance(store.value, Const) and store.buffer in self.registers for store in run):
            self.assign([(self.register(s.buffer, s.index, s.lanes), self.value(s.value)) for s in run])
            return
        self.name_bases(run)
        self.name_values(run)
        pending: list[tuple[str, str]] = []
        for store in run:
            if store.buffer in self.registers:
                pending.append((self.register(store.buffer, store.index, store.lanes), self.value(store.value)))
                continue
            self.assign(pending)
            pending = []
            self.memory_store(store)
        self.assign(pending)

    def assign(self, pending: list[tuple[str, str]]) -> None:
        """Assignments, those of one constant to many names in one line."""
        while pending:
            value = pending[0][1]
            same = [name for name, text in pending if text == value]
            chained = len(same) == len(pending) > 1 and not any(name in value for name in same)
            line = " = ".join((*same, value))
            if chained and self.depth * len(INDENT) + len(line) <= WIDTH:
                self.line(line)
                return
            name, text = pending.pop(0)
            self.line(f"{name} = {text}")

    def memory_store(self, store: Store) -> None:
        buffer = self.program.buffer(store.buffer)
        place = self.place(store.buffer, store.index)
        kind, tail = ("store", "") if store.count is None else ("store_some", f", {self.limit(store.count)}")
        dtype, storage = compute_dtype(buffer.dtype), buffer.dtype
        if isinstance(store.value, Interleave):
            kind, dtype = "store_terms", TERMS_DTYPE
            value = self.value(store.value)
        elif self.is_copy(store):
            assert isinstance(store.value, Load)
            dtype = storage = BITS_DTYPE
            value = self.load(store.value, bits=True)
        else:
            value = self.value(store.value)
            if storage == "bfloat16" and self.has_dots and self.machine.has("avx512bf16"):
                kind = kind.replace("store", "store_flushed")
        name = self.use(Operation(kind, dtype, store.lanes, storage))
        self.line(f"{name}({buffer.name}, {place}, {value}{tail})")

    def is_copy(self, store: Store) -> bool:
        """Whether a floating-point number of two bytes goes from memory to memory as it is."""
        match store.value:
            case Load(source, _, _, _, 1) if source not in self.registers and store.value not in self.kept:
                dtypes = {self.program.buffer(name).dtype for name in (source, store.buffer)}
                return dtypes in ({"bfloat16"}, {"float16"})
            case _:
                return False

    # ---- values

    def name_values(self, run: list[Store]) -> None:
        """Computes once what several stores of the run use: loads, constant vectors and counts of lanes."""
        stored = {store.buffer for store in run}
        found = [value for store in run for value in values(store.value, conditional=False)]
        choices = [value for value in dict.fromkeys(found) if isinstance(value, Choose) and value not in self.kept]
        self.name_conditions(choices)
        joined = {
            piece for value in found if isinstance(value, Interleave) for part in value.values for piece in values(part)
        }
        uses = Counter(value for value in found if value not in joined and self.is_shared(value, stored))
        for value, count in uses.items():
            if count > 1:
                prefix = _prefix(value)
                taken = sum(1 for name in self.kept.values() if name.startswith(prefix))
                name = f"{prefix}{taken or ''}"
                self.line(f"{name} = {self.value(value)}")
                self.kept[value] = name
        branches: dict[tuple[Less, ...], list[Choose]] = {}
        for choice in choices:
            if choice not in self.kept and not _is_load_or_zero(choice):
                branches.setdefault(choice.conditions, []).append(choice)
        for conditions, chosen in branches.items():
            self.name_choices(conditions, chosen)
        limits = Counter(store.count for store in run if store.count is not None)
        for limit, repeats in limits.items():
            if repeats > 1 and limit is not None:
                name = f"valid{len(self.limits) or ''}"
                self.line(f"{name} = {self.text(limit)}")
                self.limits[limit] = name

    def name_conditions(self, choices: list[Choose]) -> None:
        """Tests once what all of several choices depend on."""
        self.tested = {}
        shared = (
            [c for c in choices[0].conditions if all(c in choice.conditions for choice in choices)] if choices else []
        )
        if len(choices) > 1 and shared:
            self.line(f"inside = {' & '.join(f'({self.condition(test)})' for test in shared)}")
            self.tested = dict.fromkeys(shared, "inside")

    def name_choices(self, conditions: tuple[Less, ...], choices: list[Choose]) -> None:
        """One branch for all choices under the same conditions."""
        taken = sum(1 for name in self.kept.values() if name.startswith("chosen"))
        names = [f"chosen{taken + i or ''}" for i in range(len(choices))]
        tests = dict.fromkeys(self.tested.get(condition) or self.condition(condition) for condition in conditions)
        self.line(f"if {' and '.join(tests)}:")
        for name, choice in zip(names, choices, strict=True):
            self.line(f"{INDENT}{name} = {self.value(choice.a)}")
        self.line("else:")
        for name, choice in zip(names, choices, strict=True):
            self.line(f"{INDENT}{name} = {self.value(choice.b)}")
        self.kept.update(zip(choices, names, strict=True))

    def is_shared(self, value: Value, stored: set[str]) -> bool:
        match value:
            case Load(buffer):
                return buffer not in self.registers and buffer not in stored
            case Interleave():
                return not stored & {read.buffer for read in values(value) if isinstance(read, Load)}
            case Const(_, _, lanes):
                return lanes > 1
            case Choose():
                return _is_load_or_zero(value)
            case _:
                return False

    def limit(self, count: Index) -> str:
        return self.limits.get(count) or self.text(count)

    def value(self, value: Value) -> str:
        if value in self.kept:
            return self.kept[value]
        match value:
            case Const(number, _, lanes):
                dtype = self.dtype(value)
                text = repr(float(number) if "float" in dtype else int(number))
                maker = f"np.{dtype}" if lanes == 1 else self.use(Operation("splat", dtype, lanes))
                return f"{maker}({text})"
            case Load(buffer, index, lanes) if buffer in self.registers:
                return self.register(buffer, index, lanes)
            case Load():
                return self.load(value)
            case Choose(conditions, Load() as load) if _is_load_or_zero(value):
                return self.load_if(load, conditions)
            case Splat(a, lanes):
                return self.call("splat", self.dtype(a), lanes, a)
            case Spread(a, lanes, repeat, step, first):
                pattern = (self.lanes(a), repeat, step, first)
                return f"{self.use(Operation('spread', self.dtype(a), lanes, pattern=pattern))}({self.value(a)})"
            case Interleave(pieces):
                dtype, lanes = value_type(value, self.buffers())
                if dtype not in _PAIRS or lanes < 2:
                    raise IRError(f"{dtype} x {lanes} cannot be interleaved; allowed: vectors of {' or '.join(_PAIRS)}")
                operation = Operation("interleave", TERMS_DTYPE, lanes, BITS_DTYPE)
                return f"{self.use(operation)}({', '.join(map(self.stored, pieces))})"
            case Sum(a):
                return self.call("sum", self.dtype(a), self.lanes(a), a)
            case Fma(a, b, c):
                return self.call("fma", self.dtype(a), self.lanes(a), a, b, c)
            case Dot(a, b, c):
                return self.dot(a, b, c)
            case Arith(op, a, b):
                return self.call(_ARITH[op], self.dtype(a), self.lanes(a), a, b)
            case Convert(a, dtype):
                operation = Operation("convert", dtype, self.lanes(a), self.dtype(a))
                return f"{self.use(operation)}({self.value(a)})"
            case Apply(function, a):
                return self.call(function, self.dtype(a), self.lanes(a), a)
            case Where(test, a, b):
                return self.call("where", self.dtype(a), self.lanes(a), test, a, b)
            case _:
                raise IRError(f"{type(value).__name__} cannot be lowered; expand_padding comes first")

    def load(self, load: Load, *, bits: bool = False) -> str:
        """The element, or with ``bits`` as it is stored."""
        storage = BITS_DTYPE if bits else self.program.buffer(load.buffer).dtype
        kind, tail = ("load", "") if load.count is None else ("load_some", f", {self.text(load.count)}")
        if load.terms > 1:
            kind = "load_terms"
        name = self.use(Operation(kind, BITS_DTYPE if bits else self.dtype(load), load.lanes, storage))
        base, displacement = self.offset(load.buffer, load.index)
        if (load.buffer, base) in self.places:
            return f"{name}({self.places[load.buffer, base]}, {self.text(displacement)}{tail})"
        return f"{name}({load.buffer}, {self.place(load.buffer, load.index)}{tail})"

    def stored(self, piece: Value) -> str:
        """A read, or zeros by conditions, as it is stored."""
        match piece:
            case Load():
                return self.load(piece, bits=True)
            case Choose(conditions, Load() as load):
                return self.load_if(load, conditions, bits=True)
            case _:
                raise IRError(f"{type(piece).__name__} is not interleaved")

    def load_if(self, load: Load, conditions: tuple[Less, ...], *, bits: bool = False) -> str:
        """A load that reads zeros where the conditions do not hold, with ``bits`` as it is stored."""
        tests = dict.fromkeys(
            self.tested.get(condition) or f"({self.condition(condition)})" for condition in conditions
        )
        storage, test = self.program.buffer(load.buffer).dtype, " & ".join(tests)
        place = self.place(load.buffer, load.index)
        kind, tail = ("load_if", test) if load.count is None else ("load_some_if", f"{self.text(load.count)}, {test}")
        dtype, storage = (BITS_DTYPE, BITS_DTYPE) if bits else (compute_dtype(storage), storage)
        name = self.use(Operation(kind, dtype, load.lanes, storage))
        return f"{name}({load.buffer}, {place}, {tail})"

    def dot(self, a: Value, b: Value, c: Value) -> str:
        """The operation says how many lanes the processor's instruction has."""
        dtype, lanes = value_type(c, self.buffers())
        storage = value_type(a, self.buffers())[0].partition("*")[0]
        widest = self.machine.vector_bytes // DTYPES[dtype].itemsize
        operation = Operation("dot", dtype, lanes, storage, (min(lanes, widest),))
        return f"{self.use(operation)}({', '.join(map(self.value, (a, b, c)))})"

    def call(self, kind: str, dtype: str, lanes: int, *operands: Value) -> str:
        return f"{self.use(Operation(kind, dtype, lanes))}({', '.join(map(self.value, operands))})"

    def register(self, buffer: str, index: tuple[Index, ...], lanes: int) -> str:
        """The local variable that an element, or a whole vector, of a register buffer is kept in."""
        shape = self.registers[buffer].shape
        places = [i.value for i in index if isinstance(i, Int)]
        if len(places) != len(index) or (lanes > 1 and (places[-1] or shape[-1] != Int(lanes))):
            raise IRError(f"register {buffer}[{', '.join(map(format_index, index))}] x{lanes} is not one variable")
        axes = len(shape) - (lanes > 1)
        parts = (str(i) for i, extent in zip(places[:axes], shape, strict=False) if extent != Int(1))
        return buffer + "_".join(parts)

    def dtype(self, value: Value) -> str:
        """The type of a value, or that of the integers in which several terms are kept."""
        dtype = value_type(value, self.buffers())[0]
        return TERMS_DTYPE if "*" in dtype else dtype

    def lanes(self, value: Value) -> int:
        return value_type(value, self.buffers())[1]

    def buffers(self) -> dict[str, Buffer]:
        return {**{buffer.name: buffer for buffer in self.program.buffers}, **self.registers}
