"""Where the elements that a stage accesses lie: names for parts of addresses that are used again or do not change in a loop."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from convgen.ir.addresses import costly_parts, element_offset, split_offset, with_names
from convgen.ir.affine import affine
from convgen.ir.build import add, mul, sub
from convgen.ir.nodes import Buffer, Index, IndexOp, Int, Less, Load, Program, Stage, Stmt, Store, Var
from convgen.ir.printer import format_condition, format_index
from convgen.ir.rewrite import loops, map_condition, reads, statements, variables
from convgen.ir.types import compute_dtype
from convgen.machine import Machine
from convgen.targets.cpu.mentions import outer_loops, store_expressions
from convgen.targets.cpu.operations import PARTIAL_STORES, Operation

INDENT = "    "
WIDTH = 120
# What costly parts of index expressions are called: in a flattened image they are rows and columns.
_PART_NAMES = {"min": "start", "max": "limit", "//": "row", "%": "col"}
# Of so many elements at constant distances LLVM may keep a pointer to each, and run out of registers.
HELD = 8


@dataclass
class Places:
    """Lines written so far, at what depth, the operations used, and what parts of addresses have a name."""

    program: Program
    stage: Stage
    machine: Machine
    depth: int = 0
    lines: list[str] = field(default_factory=list)
    operations: set[Operation] = field(default_factory=set)
    registers: dict[str, Buffer] = field(default_factory=dict)
    bases: dict[tuple[str, Index], str] = field(default_factory=dict)
    places: dict[tuple[str, Index], str] = field(default_factory=dict)
    named: dict[Index, Index] = field(default_factory=dict)
    fixed: dict[tuple[str, tuple[Index, ...]], tuple[Index, Index]] = field(default_factory=dict)

    def line(self, text: str) -> None:
        self.lines.append(INDENT * self.depth + text)

    def use(self, operation: Operation) -> str:
        if operation.storage == "float16" and operation.dtype == "float32" and not self.machine.has("f16c"):
            operation = replace(operation, by_bits=True)
        if operation.kind in PARTIAL_STORES and self.machine.isa != "avx512":
            operation = replace(operation, branches=True)
        self.operations.add(operation)
        return operation.name

    def accesses(self, run: list[Store]) -> Iterator[tuple[str, tuple[Index, ...]]]:
        for store in run:
            for read in reads((store,)):
                if self.program.has_buffer(read.buffer):
                    yield read.buffer, read.index
            if self.program.has_buffer(store.buffer):
                yield store.buffer, store.index

    def name_bases(self, run: list[Store]) -> None:
        """Gives a name to the variable part of addresses that are used with several displacements."""
        stored = {store.buffer for store in run}
        scalars = {read.buffer for read in reads(tuple(run)) if isinstance(read, Load) and read.lanes == 1} - stored
        offsets: dict[tuple[str, Index], set[Index]] = {}
        for buffer, index in self.accesses(run):
            if (buffer, index) in self.fixed:
                continue
            base, displacement = self.offset(buffer, index)
            offsets.setdefault((buffer, base), set()).add(displacement)
        for (buffer, base), displacements in offsets.items():
            if len(displacements) > 1 and not isinstance(base, Int | Var):
                if len(displacements) >= HELD and buffer in scalars:
                    self.name_place(buffer, base)
                else:
                    self.name_base(buffer, base, f"{buffer}_at")

        moves = Counter(
            (buffer, self.fixed[buffer, index][1])
            for buffer, index in dict.fromkeys(self.accesses(run))
            if (buffer, index) in self.fixed
        )
        for (buffer, moving), uses in moves.items():
            if uses > 1 and not isinstance(moving, Int | Var):
                self.name_base(buffer, moving, f"{buffer}_by")

    def name_base(self, buffer: str, base: Index, prefix: str) -> None:
        taken = sum(1 for name in self.bases.values() if name.startswith(prefix)) + self.hoisted(buffer, prefix)
        self.bases[buffer, base] = name = f"{prefix}{taken or ''}"
        self.line(f"{name} = {self.text(base)}")

    def hoisted(self, buffer: str, prefix: str) -> int:
        """How many names that begin so the loops around have given to places in the buffer."""
        names = {name for (found, _), (name, _) in self.fixed.items() if found == buffer}
        return sum(isinstance(name, Var) and name.name.startswith(prefix) for name in names)

    def name_place(self, buffer: str, base: Index) -> None:
        """Names the address from which several elements are at constant distances."""
        taken = len(self.places)
        self.places[buffer, base] = name = f"{buffer}_row{taken or ''}"
        storage = self.program.buffer(buffer).dtype
        operation = self.use(Operation("place", compute_dtype(storage), 1, storage))
        self.line(f"{name} = {operation}({buffer}, {self.text(base)})")

    def offset(self, buffer: str, index: tuple[Index, ...]) -> tuple[Index, Index]:
        return element_offset(index, self.program.seen(self.stage, buffer).shape)

    def place(self, buffer: str, index: tuple[Index, ...]) -> str:
        if (buffer, index) in self.fixed:
            name, moving = self.fixed[buffer, index]
            return self.text(add(name, Var(self.bases[buffer, moving]) if (buffer, moving) in self.bases else moving))
        base, displacement = self.offset(buffer, index)
        named = self.bases.get((buffer, base))
        return self.text(_sum(base if named is None else Var(named), displacement))

    def text(self, expression: Index) -> str:
        return format_index(with_names(expression, self.named))

    def condition(self, condition: Less) -> str:
        return format_condition(map_condition(condition, lambda i: with_names(i, self.named)))

    # ---- what does not change inside a loop is computed before it

    def hoist(self, body: tuple[Stmt, ...]) -> None:
        """Names the costly parts of what the block will use, and the addresses that its inner loops move away from."""
        inner = frozenset(loop.var for loop in loops(body))
        self.hoist_costly(body, inner)
        self.hoist_addresses(body, inner)

    def hoist_costly(self, body: tuple[Stmt, ...], inner: frozenset[str]) -> None:
        found: dict[Index, None] = {}
        for expression in store_expressions(body):
            for part in costly_parts(expression):
                if part not in self.named and not variables(part) & inner:
                    found[part] = None
        while found:
            ready = [part for part in found if not any(p in found for p in costly_parts(part) if p != part)]
            for op, word in _PART_NAMES.items():
                self.name_parts(word, [part for part in ready if isinstance(part, IndexOp) and part.op == op])
            for part in ready:
                del found[part]

    def name_parts(self, word: str, parts: list[Index]) -> None:
        while word in self.taken:
            word += "_part"
        first = sum(1 for name in self.named.values() if isinstance(name, Var) and name.name.startswith(word))
        names = [word if len(parts) == 1 and not first else f"{word}{first + i}" for i in range(len(parts))]
        self.assign_all(names, [self.text(self.remainder(part)) for part in parts])
        self.named.update(zip(parts, map(Var, names), strict=True))

    @functools.cached_property
    def taken(self) -> frozenset[str]:
        """The names that the stage has given to loops, sizes and buffers."""
        sizes = (*self.program.sizes, *(name for name, _ in self.stage.bindings))
        buffers = (buffer.name for buffer in self.program.buffers)
        return frozenset((*(loop.var for loop in loops(self.stage.body)), *sizes, *buffers))

    def remainder(self, part: Index) -> Index:
        """x % w as x - q * w where the quotient q has a name."""
        match part:
            case IndexOp("%", x, w) if (quotient := IndexOp("//", x, w)) in self.named:
                return sub(x, mul(self.named[quotient], w))
            case _:
                return part

    def hoist_addresses(self, body: tuple[Stmt, ...], inner: frozenset[str]) -> None:
        """For a tile of elements that are not evenly spaced, where each of them begins."""
        deeper = [s for loop in outer_loops(body) for s in statements((loop,)) if isinstance(s, Store)]
        places: dict[str, dict[tuple[Index, ...], None]] = {}
        for buffer, index in self.accesses(deeper):
            if (buffer, index) not in self.fixed:
                places.setdefault(buffer, {})[index] = None
        for buffer, indices in places.items():
            bases = {self.offset(buffer, index)[0] for index in indices}
            if len(bases) < 2:
                continue
            split = {
                index: split_offset(index, self.program.seen(self.stage, buffer).shape, inner) for index in indices
            }
            # What differs by constants shares a base, see name_bases.
            split = {index: parts for index, parts in split.items() if not isinstance(parts[0], Int)}
            starts = list(dict.fromkeys(fixed for fixed, _ in split.values()))
            if len(starts) < len({self.offset(buffer, index)[0] for index in split}):
                continue
            first = self.hoisted(buffer, f"{buffer}_at")
            names = [f"{buffer}_at{first + i}" for i in range(len(starts))]
            self.assign_all(names, [self.text(start) for start in starts])
            for index, (fixed, moving) in split.items():
                self.fixed[buffer, index] = (Var(names[starts.index(fixed)]), moving)

    def assign_all(self, names: list[str], values: list[str]) -> None:
        """Several assignments, as many on a line as fit it."""
        while names:
            count = len(names)
            pad = self.depth * len(INDENT)
            while count > 1 and pad + len(", ".join(names[:count]) + ", ".join(values[:count])) + 3 > WIDTH:
                count -= 1
            self.line(f"{', '.join(names[:count])} = {', '.join(values[:count])}")
            names, values = names[count:], values[count:]


def _sum(base: Index, displacement: Index) -> Index:
    """base + displacement, with a minus sign where every term of the displacement is negative."""
    form = affine(displacement)
    negative = form.constant <= 0 and all(factor < 0 for _, factor in form.terms)
    if negative and displacement != Int(0):
        return sub(base, affine(sub(0, displacement)).index())
    return add(base, displacement)
