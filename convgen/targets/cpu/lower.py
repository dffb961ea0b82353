"""From a stage of the IR to the lines of a Python function, and the vector operations that it uses.

Loops stay loops; the parallel loops become the task range ``begin..end``. Registers become local variables. Within a run of
stores, what several of them read is read once into a variable, and addresses that differ by constants share a base.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from convgen.errors import IRError
from convgen.ir.affine import Affine, affine
from convgen.ir.build import add, floordiv, mod, mul, sub
from convgen.ir.nodes import (
    Alloc,
    Apply,
    Arith,
    Buffer,
    Choose,
    Const,
    Fma,
    For,
    If,
    Index,
    Int,
    Load,
    Program,
    Splat,
    Stage,
    Stmt,
    Store,
    Value,
    Var,
    Where,
)
from convgen.ir.printer import format_condition, format_index
from convgen.ir.rewrite import reads, statements, stores, values, variables
from convgen.ir.types import compute_dtype, value_type
from convgen.targets.cpu.operations import Operation

INDENT = "    "
WIDTH = 120
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


def lower_stage(program: Program, stage: Stage) -> LoweredStage:
    """The text of a stage; raises IRError where a register is not addressed by constants."""
    writer = _Writer(program)
    nest, body = _parallel_nest(stage.body)
    writer.depth = 1
    tasks = writer.task_loop(nest)
    writer.block(body)
    used = _names(program, stage)
    known = (*program.sizes, *(name for name, _ in stage.bindings))
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


def _names(program: Program, stage: Stage) -> frozenset[str]:
    """Every name that an index, extent or condition of the stage mentions, and the strides of the buffers it accesses."""
    found: set[str] = set()

    def note(*expressions: Index | None) -> None:
        for expression in expressions:
            if expression is not None:
                found.update(variables(expression))

    for statement in statements(stage.body):
        match statement:
            case For():
                note(statement.extent)
            case If(condition):
                note(condition.a, condition.b)
            case Alloc():
                pass
            case Store():
                note(*statement.index, statement.count)
                for value in values(statement.value):
                    match value:
                        case Load():
                            note(*value.index, value.count)
                        case Choose(conditions):
                            note(*(side for c in conditions for side in (c.a, c.b)))
                        case _:
                            pass
    for access in (*reads(stage.body), *stores(stage.body)):
        if program.has_buffer(access.buffer):
            note(*program.buffer(access.buffer).shape[1:])
    return frozenset(found)


def _unpacking(program: Program, stage: Stage, sizes: tuple[str, ...]) -> Iterator[str]:
    """The lines that name the buffers and sizes."""
    accessed = {access.buffer for access in (*reads(stage.body), *stores(stage.body))}
    places = [(buffer.name, i) for i, buffer in enumerate(program.buffers) if buffer.name in accessed]
    yield from _assignment([name for name, _ in places], [f"buffers[{i}]" for _, i in places])
    if sizes:
        yield from _assignment(list(sizes), [f"sizes[{i}]" for i in range(len(sizes))])


def _assignment(names: list[str], sources: list[str]) -> Iterator[str]:
    line = f"{INDENT}{', '.join(names)} = {', '.join(sources)}"
    if len(line) <= WIDTH:
        yield line
        return
    half = len(names) // 2
    yield from _assignment(names[:half], sources[:half])
    yield from _assignment(names[half:], sources[half:])


def _sum(base: Index, displacement: Index) -> Index:
    """base + displacement, with a minus sign where every term of the displacement is negative."""
    form = affine(displacement)
    negative = form.constant <= 0 and all(factor < 0 for _, factor in form.terms)
    if negative and displacement != Int(0):
        return sub(base, affine(sub(0, displacement)).index())
    return add(base, displacement)


@dataclass
class _Writer:
    """Lines written so far, at what depth, and the operations used."""

    program: Program
    depth: int = 0
    lines: list[str] = field(default_factory=list)
    operations: set[Operation] = field(default_factory=set)
    registers: dict[str, Buffer] = field(default_factory=dict)
    bases: dict[tuple[str, Index], str] = field(default_factory=dict)
    kept: dict[Value, str] = field(default_factory=dict)
    limits: dict[Index, str] = field(default_factory=dict)

    def line(self, text: str) -> None:
        self.lines.append(INDENT * self.depth + text)

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
        assignments: list[str] = []
        for loop in reversed(nest):
            outermost = loop is nest[0]
            value = rest if outermost else mod(rest, loop.extent)
            assignments.append(f"{loop.var} = {format_index(value)}")
            rest = floordiv(Var("task"), tasks := mul(tasks, loop.extent))
        for text in reversed(assignments):
            self.line(text)
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

    def compound(self, statement: For | If | Alloc) -> None:
        match statement:
            case For(var, extent, body):
                self.line(f"for {var} in range({format_index(extent)}):")
                self.indented(body)
            case If(condition, body):
                self.line(f"if {format_condition(condition)}:")
                self.indented(body)
            case Alloc(buffer, body):
                self.registers[buffer.name] = buffer
                self.block(body)

    def indented(self, body: tuple[Stmt, ...]) -> None:
        self.depth += 1
        self.block(body)
        self.depth -= 1

    def stores(self, run: list[Store]) -> None:
        """A run of stores without control flow between them."""
        self.bases, self.kept, self.limits = {}, {}, {}
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
        value = self.value(store.value)
        kind, tail = ("store", "") if store.count is None else ("store_some", f", {self.limit(store.count)}")
        name = self.use(Operation(kind, compute_dtype(buffer.dtype), store.lanes, buffer.dtype))
        self.line(f"{name}({buffer.name}, {place}, {value}{tail})")

    # ---- addresses

    def accesses(self, run: list[Store]) -> Iterator[tuple[str, tuple[Index, ...]]]:
        for store in run:
            for read in reads((store,)):
                if read.buffer not in self.registers:
                    yield read.buffer, read.index
            if store.buffer not in self.registers:
                yield store.buffer, store.index

    def name_bases(self, run: list[Store]) -> None:
        """Gives a name to the variable part of addresses that are used with several displacements."""
        offsets: dict[tuple[str, Index], set[Index]] = {}
        for buffer, index in self.accesses(run):
            base, displacement = self.offset(buffer, index)
            offsets.setdefault((buffer, base), set()).add(displacement)
        for (buffer, base), displacements in offsets.items():
            if len(displacements) > 1 and not isinstance(base, Int | Var):
                taken = sum(1 for name, _ in self.bases if name == buffer)
                name = f"{buffer}_at{taken or ''}"
                self.bases[buffer, base] = name
                self.line(f"{name} = {format_index(base)}")

    def offset(self, buffer: str, index: tuple[Index, ...]) -> tuple[Index, Index]:
        """An element's offset as a variable part and the displacement that the indices' constants make."""
        shape = self.program.buffer(buffer).shape
        base: Index = Int(0)
        displacement: Index = Int(0)
        stride: Index = Int(1)
        forms = [affine(expression) for expression in index]
        for form, extent in zip(forms, shape, strict=True):
            base = add(mul(base, extent), Affine(form.terms, 0).index())
        for form, extent in zip(reversed(forms), reversed(shape), strict=True):
            displacement = add(displacement, mul(form.constant, stride))
            stride = mul(extent, stride)
        return base, affine(displacement).index()

    def place(self, buffer: str, index: tuple[Index, ...]) -> str:
        base, displacement = self.offset(buffer, index)
        named = self.bases.get((buffer, base))
        return format_index(_sum(base if named is None else Var(named), displacement))

    # ---- values

    def name_values(self, run: list[Store]) -> None:
        """Computes once what several stores of the run use: loads, constant vectors and counts of lanes."""
        stored = {store.buffer for store in run}
        uses = Counter(value for store in run for value in values(store.value) if self.is_shared(value, stored))
        for value, count in uses.items():
            if count > 1:
                prefix = f"{value.buffer}_here" if isinstance(value, Load) else "constant"
                taken = sum(1 for name in self.kept.values() if name.startswith(prefix))
                name = f"{prefix}{taken or ''}"
                self.line(f"{name} = {self.value(value)}")
                self.kept[value] = name
        for store in run:
            for value in values(store.value):
                if isinstance(value, Choose) and value not in self.kept:
                    self.name_choice(value)
        limits = Counter(store.count for store in run if store.count is not None)
        for limit, repeats in limits.items():
            if repeats > 1 and limit is not None:
                name = f"valid{len(self.limits) or ''}"
                self.line(f"{name} = {format_index(limit)}")
                self.limits[limit] = name

    def name_choice(self, choice: Choose) -> None:
        name = f"chosen{sum(1 for kept in self.kept if isinstance(kept, Choose)) or ''}"
        self.line(f"if {' and '.join(map(format_condition, choice.conditions))}:")
        self.line(f"{INDENT}{name} = {self.value(choice.a)}")
        self.line("else:")
        self.line(f"{INDENT}{name} = {self.value(choice.b)}")
        self.kept[choice] = name

    def is_shared(self, value: Value, stored: set[str]) -> bool:
        match value:
            case Load(buffer):
                return buffer not in self.registers and buffer not in stored
            case Const(_, _, lanes):
                return lanes > 1
            case _:
                return False

    def limit(self, count: Index) -> str:
        return self.limits.get(count) or format_index(count)

    def value(self, value: Value) -> str:
        if value in self.kept:
            return self.kept[value]
        match value:
            case Const(number, dtype, lanes):
                text = repr(float(number) if "float" in dtype else int(number))
                maker = f"np.{dtype}" if lanes == 1 else self.use(Operation("splat", dtype, lanes))
                return f"{maker}({text})"
            case Load(buffer, index, lanes) if buffer in self.registers:
                return self.register(buffer, index, lanes)
            case Load():
                return self.load(value)
            case Splat(a, lanes):
                return self.call("splat", self.dtype(a), lanes, a)
            case Fma(a, b, c):
                return self.call("fma", self.dtype(a), self.lanes(a), a, b, c)
            case Arith(op, a, b):
                return self.call(_ARITH[op], self.dtype(a), self.lanes(a), a, b)
            case Apply(function, a):
                return self.call(function, self.dtype(a), self.lanes(a), a)
            case Where(test, a, b):
                return self.call("where", self.dtype(a), self.lanes(a), test, a, b)
            case _:
                raise IRError(f"{type(value).__name__} cannot be lowered; expand_padding comes first")

    def load(self, load: Load) -> str:
        storage = self.program.buffer(load.buffer).dtype
        place = self.place(load.buffer, load.index)
        kind, tail = ("load", "") if load.count is None else ("load_some", f", {format_index(load.count)}")
        name = self.use(Operation(kind, compute_dtype(storage), load.lanes, storage))
        return f"{name}({load.buffer}, {place}{tail})"

    def call(self, kind: str, dtype: str, lanes: int, *operands: Value) -> str:
        return f"{self.use(Operation(kind, dtype, lanes))}({', '.join(map(self.value, operands))})"

    def use(self, operation: Operation) -> str:
        self.operations.add(operation)
        return operation.name

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
        return value_type(value, self.buffers())[0]

    def lanes(self, value: Value) -> int:
        return value_type(value, self.buffers())[1]

    def buffers(self) -> dict[str, Buffer]:
        return {**{buffer.name: buffer for buffer in self.program.buffers}, **self.registers}
