"""Where the elements that a stage accesses lie, and what its variables are called."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from convgen.errors import IRError
from convgen.ir.addresses import element_offset, with_names
from convgen.ir.build import add
from convgen.ir.nodes import Buffer, Index, IndexOp, Int, Less, Program, Stage, Store, Value, Var
from convgen.ir.printer import format_index
from convgen.ir.rewrite import loops, reads
from convgen.ir.types import value_type
from convgen.targets.cuda.operations import Operation

INDENT = "    "
_PRECEDENCE = {"+": 1, "-": 1, "*": 2}


@dataclass
class Places:
    """Lines written so far, at what depth, the operations used, and what parts of addresses have a name."""

    program: Program
    stage: Stage
    shared: Mapping[str, int]
    depth: int = 0
    lines: list[str] = field(default_factory=list)
    operations: set[Operation] = field(default_factory=set)
    registers: dict[str, Buffer] = field(default_factory=dict)
    named: dict[Index, Index] = field(default_factory=dict)
    bases: dict[tuple[str, Index], str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    thread: str = ""

    def line(self, text: str) -> None:
        self.lines.append(INDENT * self.depth + text)

    def use(self, operation: Operation) -> str:
        self.operations.add(operation)
        return operation.name

    def fresh(self, prefix: str) -> str:
        """A name that the kernel has not used."""
        while True:
            taken = self.counts[prefix]
            self.counts[prefix] += 1
            name = f"{prefix}{taken or ''}"
            if name not in self.taken:
                return name

    @functools.cached_property
    def taken(self) -> frozenset[str]:
        """The names that the stage has given to loops, sizes and buffers."""
        sizes = (*self.program.sizes, *(name for name, _ in self.stage.bindings))
        buffers = (buffer.name for buffer in self.program.buffers)
        return frozenset((*(loop.var for loop in loops(self.stage.body)), *sizes, *buffers))

    def kind(self, kind: str, buffer: str) -> str:
        return f"shared_{kind}" if buffer in self.shared else kind

    def register(self, buffer: str, index: tuple[Index, ...], lanes: int) -> str:
        """The local variable that an element, or a whole vector, of a thread's registers is kept in."""
        shape = self.registers[buffer].shape
        if index[:1] == (Var(self.thread),):
            index, shape = index[1:], shape[1:]
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

    def offset(self, buffer: str, index: tuple[Index, ...]) -> tuple[Index, Index]:
        return element_offset(index, self.program.seen(self.stage, buffer).shape)

    def place(self, buffer: str, index: tuple[Index, ...]) -> str:
        base, displacement = self.offset(buffer, index)
        named = self.bases.get((buffer, base))
        return self.text(add(base if named is None else Var(named), displacement))

    def condition(self, condition: Less) -> str:
        match condition:
            case Less(Int(value), b):
                return f"{value + 1} <= {self.text(b)}"
            case Less(a, b):
                return f"{self.text(a)} < {self.text(b)}"

    def text(self, expression: Index) -> str:
        return self._text(with_names(expression, self.named), 0)

    def _text(self, expression: Index, outer: int) -> str:
        match expression:
            case IndexOp("//" | "%" as op, a, b):
                name = self.use(Operation("quotient" if op == "//" else "rest", "int64"))
                return f"{name}({self._text(a, 0)}, {self._text(b, 0)})"
            case IndexOp("min" | "max" as op, a, b):
                return f"{op}({self._text(a, 0)}, {self._text(b, 0)})"
            case IndexOp(op, a, b):
                level = _PRECEDENCE[op]
                text = f"{self._text(a, level)} {op} {self._text(b, level + 1)}"
                return f"({text})" if level < outer else text
            case _:
                return format_index(expression)

    def accesses(self, run: list[Store]) -> Iterator[tuple[str, tuple[Index, ...]]]:
        for store in run:
            for read in reads((store,)):
                if self.program.has_buffer(read.buffer):
                    yield read.buffer, read.index
            if self.program.has_buffer(store.buffer):
                yield store.buffer, store.index
