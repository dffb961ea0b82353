"""From a stage of the IR to the lines of a CUDA kernel in Python, and the operations that it uses.

The parallel loops become the grid, a thread loop the threads of a block; what stands outside of thread loops is done by all
threads alike. Registers become local variables. Local buffers lie in the memory that a block shares, one after another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from convgen.dtypes import DTYPES
from convgen.errors import IRError
from convgen.ir.addresses import costly_parts
from convgen.ir.build import floordiv, mod, mul
from convgen.ir.check import WARP
from convgen.ir.nodes import (
    Alloc,
    Apply,
    Arith,
    Barrier,
    Choose,
    Const,
    Convert,
    CopyAsync,
    CopyGroup,
    CopyWait,
    Fma,
    For,
    If,
    Index,
    IndexOp,
    Int,
    Less,
    Load,
    Program,
    Splat,
    Spread,
    Stage,
    Stmt,
    Store,
    TileDot,
    TileLoad,
    TileStore,
    TileZero,
    Transform,
    Value,
    Var,
    Where,
)
from convgen.ir.rewrite import loops, map_statement, reads, statements, stores, values, variables
from convgen.ir.types import compute_dtype
from convgen.targets.cuda.operations import Operation
from convgen.targets.cuda.places import INDENT
from convgen.targets.cuda.tiles import LANE, Tiles
from convgen.transforms.lines import transform_lines

# Arrays in shared memory begin at multiples of the widest access.
ALIGNMENT = 16
_ARITH = {"+": "add", "-": "sub", "*": "mul", "/": "div", "min": "min", "max": "max"}
_PART_NAMES = {"//": "row", "%": "col", "min": "start", "max": "limit"}


@dataclass(frozen=True)
class LoweredStage:
    """A stage as a kernel: its parameters (the addresses of ``buffers``, then ``sizes``), its lines, what it uses.

    ``blocks`` is the number of blocks, in sizes of the program and the stage's bindings; ``threads`` those of each, which share
    ``shared_bytes`` of memory.
    """

    name: str
    buffers: tuple[str, ...]
    sizes: tuple[str, ...]
    body: tuple[str, ...]
    operations: tuple[Operation, ...]
    blocks: Index
    threads: int
    shared_bytes: int

    @property
    def parameters(self) -> str:
        return ", ".join((*self.buffers, *self.sizes))


def lower_stage(program: Program, stage: Stage) -> LoweredStage:
    """The text of a stage; raises IRError where it is not made of tasks with threads, or a register is not one variable."""
    threads = {loop.extent for loop in loops(stage.body) if loop.kind == "thread"}
    warps = {loop.var for loop in loops(stage.body) if loop.kind == "warp"}
    if len(threads) != 1 or not isinstance(count := threads.pop(), Int):
        raise IRError(f"stage {stage.name} is not made of the threads of a grid")
    nest, body = _parallel_nest(stage.body)
    accessed = {access.buffer for access in (*reads(stage.body), *stores(stage.body))}
    shared, shared_bytes = _shared_layout(program, stage, accessed)
    writer = _Writer(program, stage, shared)
    writer.depth = 1
    for name, offset in shared.items():
        writer.line(f"{name} = {offset}  # bytes into the shared memory")
    writer.line("thread = cuda.threadIdx.x")
    for warp in sorted(warps):
        writer.line(f"{warp}, {LANE} = {writer.text(floordiv('thread', WARP))}, {writer.text(mod('thread', WARP))}")
    blocks = writer.grid(nest)
    writer.block(body)
    buffers = tuple(b.name for b in program.buffers if b.name in accessed and b.space != "local")
    mentioned = _mentioned(program, stage, accessed)
    sizes = tuple(name for name in (*program.sizes, *(name for name, _ in stage.bindings)) if name in mentioned)
    operations = tuple(sorted(writer.operations))
    return LoweredStage(stage.name, buffers, sizes, tuple(writer.lines), operations, blocks, count.value, shared_bytes)


def _parallel_nest(body: tuple[Stmt, ...]) -> tuple[tuple[For, ...], tuple[Stmt, ...]]:
    nest: tuple[For, ...] = ()
    while len(body) == 1 and isinstance(loop := body[0], For) and loop.kind == "parallel":
        nest += (loop,)
        body = loop.body
    return nest, body


def _shared_layout(program: Program, stage: Stage, accessed: set[str]) -> tuple[dict[str, int], int]:
    """Where each local buffer begins in a block's memory, and how much of it there is. What is not needed at the same time lies
    in the same place."""
    lives = _lives(stage)
    placed: dict[str, tuple[int, int]] = {}
    for buffer in program.buffers:
        if buffer.space != "local" or buffer.name not in accessed:
            continue
        shape = [extent.value for extent in buffer.shape if isinstance(extent, Int)]
        if len(shape) < len(buffer.shape):
            raise IRError(f"stage {stage.name}: {buffer.name} is shared and not of a constant shape")
        first, last = lives[buffer.name]
        others = [name for name in placed if lives[name][0] <= last and first <= lives[name][1]]
        begin = max((placed[name][1] for name in others), default=0)
        size = -(-math.prod(shape) * DTYPES[buffer.dtype].itemsize // ALIGNMENT) * ALIGNMENT
        placed[buffer.name] = begin, begin + size
    return {name: begin for name, (begin, _) in placed.items()}, max((end for _, end in placed.values()), default=0)


def _lives(stage: Stage) -> dict[str, tuple[int, int]]:
    """Between which statements of a task each buffer is accessed, the first and the last."""
    _, body = _parallel_nest(stage.body)
    while len(body) == 1 and isinstance(alloc := body[0], Alloc):
        body = alloc.body
    found: dict[str, tuple[int, int]] = {}
    for number, statement in enumerate(body):
        for access in (*reads((statement,)), *stores((statement,))):
            first, _ = found.get(access.buffer, (number, number))
            found[access.buffer] = first, number
    return found


def _mentioned(program: Program, stage: Stage, accessed: set[str]) -> frozenset[str]:
    """Every name in an index, extent or condition of the stage, and in the strides of the buffers it accesses."""
    found: set[str] = set()

    def note(expression: Index) -> Index:
        found.update(variables(expression))
        return expression

    for statement in stage.body:
        map_statement(statement, note)
    for buffer in program.buffers:
        if buffer.name in accessed:
            for extent in program.seen(stage, buffer.name).shape[1:]:
                note(extent)
    return frozenset(found)


@dataclass
class _Writer(Tiles):
    """The statements and values written so far."""

    kept: dict[Value, str] = field(default_factory=dict)

    # ---- statements

    def grid(self, nest: tuple[For, ...]) -> Index:
        """The parallel loops' variables from the number of the block; returns the number of blocks."""
        if not nest:
            return Int(1)
        if len(nest) == 1:
            self.line(f"{nest[0].var} = cuda.blockIdx.x")
            return nest[0].extent
        self.line("task = cuda.blockIdx.x")
        rest: Index = Var("task")
        blocks: Index = Int(1)
        places: list[tuple[str, Index]] = []
        for loop in reversed(nest):
            places.append((loop.var, rest if loop is nest[0] else mod(rest, loop.extent)))
            blocks = mul(blocks, loop.extent)
            rest = floordiv(rest, loop.extent)
        for name, place in reversed(places):
            self.line(f"{name} = {self.text(place)}")
        return blocks

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

    def compound(self, statement: Stmt) -> None:
        match statement:
            case Transform():
                self.transform(statement)
            case Barrier():
                self.line("cuda.syncthreads()")
            case CopyAsync():
                self.copy(statement)
            case CopyGroup():
                self.line(f"{self.use(Operation('copy_group', ''))}()")
            case CopyWait(pending):
                self.line(f"{self.use(Operation('copy_wait', '', pending))}()")
            case For(var, _, body, "thread"):
                self.thread = var
                if var != "thread":
                    self.line(f"{var} = thread")
                self.scope(body)
                self.thread = ""
            case For(var, _, body, "warp"):
                self.thread = var
                self.scope(body)
                self.thread = ""
            case TileZero() | TileLoad() | TileDot() | TileStore():
                self.tile(statement)
            case For(var, extent, body):
                self.line(f"for {var} in range({self.text(extent)}):")
                self.indented(body)
            case If(condition, body):
                self.line(f"if {self.condition(condition)}:")
                self.indented(body)
            case Alloc(buffer, body):
                self.registers[buffer.name] = buffer
                self.block(body)
            case _:
                raise IRError(f"a {type(statement).__name__.lower()} cannot be lowered to CUDA")

    def transform(self, transform: Transform) -> None:
        """The steps of the matrix on a thread's registers."""
        buffer = self.registers[transform.buffer]
        if len(buffer.shape) != 1 or not isinstance(extent := buffer.shape[0], Int):
            raise IRError(
                f"stage {self.stage.name}: a matrix is applied to {buffer.name}, which has more axes than one"
            )
        names = [self.register(buffer.name, (Int(i),), 1) for i in range(extent.value)]
        self.line(f"# {transform.label}")

        def named(kind: str) -> str:
            return self.use(Operation(kind, buffer.dtype))

        for text in transform_lines(
            transform.map, buffer.name, names, lambda number: f"np.{buffer.dtype}({number!r})", named
        ):
            self.line(text)

    def indented(self, body: tuple[Stmt, ...]) -> None:
        self.depth += 1
        self.scope(body)
        self.depth -= 1

    def scope(self, body: tuple[Stmt, ...]) -> None:
        """A block with names of its own for the quotients and remainders that it uses."""
        named = dict(self.named)
        self.name_parts(body)
        self.block(body)
        self.named = named

    def name_parts(self, body: tuple[Stmt, ...]) -> None:
        """Names what is costly to compute and does not depend on the loops inside."""
        inside = {loop.var for loop in loops(body)}
        found = [
            part
            for expression in self.expressions(body)
            for part in costly_parts(expression)
            if not variables(part) & inside
        ]
        for part in dict.fromkeys(found):
            if part in self.named or not isinstance(part, IndexOp):
                continue
            name = self.fresh(_PART_NAMES[part.op])
            self.line(f"{name} = {self.text(part)}")
            self.named[part] = Var(name)

    def expressions(self, body: tuple[Stmt, ...]) -> Iterator[Index]:
        """Every address, extent and condition in a block, as they will be written."""
        for statement in statements(body):
            match statement:
                case For(_, extent):
                    yield extent
                case If(condition):
                    yield from (condition.a, condition.b)
                case CopyAsync(conditions=conditions):
                    yield from (self.offset(*access)[0] for access in self.accesses(list(stores((statement,)))))
                    yield from (side for test in conditions for side in (test.a, test.b))
                case TileLoad(_, _, memory, place) | TileStore(memory, place):
                    yield self.offset(memory, place)[0]
                    yield from (floordiv(LANE, 4), mod(LANE, 4)) if isinstance(statement, TileStore) else ()
                case Store(value=value):
                    yield from (self.offset(*access)[0] for access in self.accesses([statement]))
                    for choice in values(value):
                        if isinstance(choice, Choose):
                            yield from (side for test in choice.conditions for side in (test.a, test.b))
                case _:
                    pass

    def stores(self, run: list[Store]) -> None:
        """A run of stores without control flow between them."""
        if not run:
            return
        if self.thread == "":
            raise IRError(f"stage {self.stage.name}: a store to {run[0].buffer} stands outside of the threads")
        self.bases, self.kept = {}, {}
        self.name_bases(run)
        self.name_loads(run)
        for store in run:
            if store.count is not None:
                raise IRError(f"stage {self.stage.name}: a part of a vector is stored to {store.buffer}")
            if (source := self.moved(store)) is not None:
                self.move(store, source)
                continue
            self.name_choices(store.value)
            if store.buffer in self.registers:
                self.line(f"{self.register(store.buffer, store.index, store.lanes)} = {self.value(store.value)}")
                continue
            storage = self.program.buffer(store.buffer).dtype
            operation = Operation(self.kind("store", store.buffer), compute_dtype(storage), store.lanes, storage)
            place = self.place(store.buffer, store.index)
            self.line(f"{self.use(operation)}({store.buffer}, {place}, {self.value(store.value)})")

    def moved(self, store: Store) -> Load | None:
        """What is read where elements of 16 bits go from memory to memory as they are, or zeros do."""
        match store.value:
            case Load(_, _, _, None, 1) as load:
                pass
            case Choose(_, Load(_, _, _, None, 1) as load, Const(0)):
                pass
            case _:
                return None
        if load.buffer in self.registers or store.buffer in self.registers or load in self.kept:
            return None
        dtypes = {self.program.buffer(name).dtype for name in (load.buffer, store.buffer)}
        return load if dtypes in ({"bfloat16"}, {"float16"}) else None

    def move(self, store: Store, load: Load) -> None:
        lanes = load.lanes // 2
        reading = self.use(Operation(self.kind("raw_load", load.buffer), "int32", lanes))
        writing = self.use(Operation(self.kind("raw_store", store.buffer), "int32", lanes))
        value = f"{reading}({load.buffer}, {self.place(load.buffer, load.index)})"
        if isinstance(store.value, Choose):
            zero = self.value(Const(0, "int32", lanes)) if lanes else "np.uint16(0)"
            value = self.branch(store.value.conditions, value, zero)
        self.line(f"{writing}({store.buffer}, {self.place(store.buffer, store.index)}, {value})")

    def branch(self, conditions: tuple[Less, ...], a: str, b: str) -> str:
        """A name for a where the conditions hold, else b; what is not chosen is not read."""
        name = self.fresh("chosen")
        self.line(f"if {' and '.join(dict.fromkeys(map(self.condition, conditions)))}:")
        self.line(f"{INDENT}{name} = {a}")
        self.line("else:")
        self.line(f"{INDENT}{name} = {b}")
        return name

    def name_bases(self, run: list[Store]) -> None:
        """Gives a name to the variable part of addresses that are used with several displacements."""
        offsets: dict[tuple[str, Index], set[Index]] = {}
        for buffer, index in self.accesses(run):
            base, displacement = self.offset(buffer, index)
            offsets.setdefault((buffer, base), set()).add(displacement)
        for (buffer, base), displacements in offsets.items():
            if len(displacements) > 1 and not isinstance(base, Int | Var):
                self.bases[buffer, base] = name = self.fresh(f"{buffer}_at")
                self.line(f"{name} = {self.text(base)}")

    def name_loads(self, run: list[Store]) -> None:
        """Reads once what several stores of the run use."""
        stored = {store.buffer for store in run}
        found = Counter(
            value
            for store in run
            for value in values(store.value, conditional=False)
            if isinstance(value, Load) and value.buffer not in self.registers and value.buffer not in stored
        )
        for load, uses in found.items():
            if uses > 1:
                assert isinstance(load, Load)
                name = self.fresh(f"{load.buffer}_here")
                self.line(f"{name} = {self.value(load)}")
                self.kept[load] = name

    def name_choices(self, value: Value) -> None:
        """One branch for each choice."""
        for choice in dict.fromkeys(node for node in values(value) if isinstance(node, Choose)):
            if choice in self.kept:
                continue
            self.kept[choice] = self.branch(choice.conditions, self.value(choice.a), self.value(choice.b))

    # ---- values

    def value(self, value: Value) -> str:
        if value in self.kept:
            return self.kept[value]
        match value:
            case Const(number, _, lanes):
                dtype = self.dtype(value)
                scalar = f"np.{dtype}({float(number) if 'float' in dtype else int(number)!r})"
                return scalar if lanes == 1 else f"{self.use(Operation('splat', dtype, lanes))}({scalar})"
            case Load(buffer, index, lanes) if buffer in self.registers:
                return self.register(buffer, index, lanes)
            case Load(buffer, index, lanes, None, 1):
                storage = self.program.buffer(buffer).dtype
                operation = Operation(self.kind("load", buffer), compute_dtype(storage), lanes, storage)
                return f"{self.use(operation)}({buffer}, {self.place(buffer, index)})"
            case Splat(a, lanes):
                return f"{self.use(Operation('splat', self.dtype(a), lanes))}({self.value(a)})"
            case Spread(a, lanes, repeat, _, first) if repeat == lanes:
                operation = Operation("lane", self.dtype(a), lanes, pattern=(self.lanes(a), first))
                return f"{self.use(operation)}({self.value(a)})"
            case Fma(a, b, c):
                return self.call("fma", a, b, c)
            case Arith(op, a, b):
                return self.call(_ARITH[op], a, b)
            case Convert(a, dtype):
                operation = Operation("convert", dtype, self.lanes(a), self.dtype(a))
                return f"{self.use(operation)}({self.value(a)})"
            case Apply(function, a):
                return self.call(function, a)
            case Where(test, a, b):
                return self.call("where", test, a, b)
            case _:
                raise IRError(f"{type(value).__name__} cannot be lowered to CUDA")

    def call(self, kind: str, *operands: Value) -> str:
        operation = Operation(kind, self.dtype(operands[0]), self.lanes(operands[0]))
        return f"{self.use(operation)}({', '.join(map(self.value, operands))})"

    # ---- places
