"""A kernel ready to be compiled: calls written out in place, names turned into numbered slots, code cut into segments.

A segment is straight-line code that ends in a terminator. Barriers end segments, and segments begin before the first
operation that the lanes of a warp do together, so that lanes can wait there for each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from convgen.targets.cuda.interp.layout import Layout
from convgen.targets.cuda.interp.syntax import Imm, Mem, Sink


@dataclass(frozen=True, slots=True)
class Slot:
    """A register of the flat program, of a PTX type; ``negated`` where a predicate is used as ``!%p``."""

    index: int
    type: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Argument:
    """Bytes of the kernel's parameters, from ``offset`` on."""

    offset: int


@dataclass(frozen=True, slots=True)
class SlotMem:
    """``[base + offset]`` with a register for base."""

    base: Slot
    offset: int


Source: TypeAlias = Slot | Imm | Mem | SlotMem | Sink | Argument | tuple["Source", ...]

_WITHOUT_RESULT = frozenset(
    (
        *("st", "red", "bar", "barrier", "cp", "prefetch", "prefetchu", "fence", "membar", "bra", "brx", "ret", "exit"),
        *("trap", "nanosleep", "stmatrix", "discard", "applypriority", "brkpt", "griddepcontrol", "pmevent"),
    )
)
_TOGETHER = frozenset(("shfl", "vote", "match", "redux", "mma", "ldmatrix", "activemask", "elect"))
_ENDS = frozenset(("bra", "brx", "ret", "exit", "trap"))


def slots_in(source: Source) -> tuple[Slot, ...]:
    """The slots that an operand mentions."""
    match source:
        case Slot():
            return (source,)
        case SlotMem(base):
            return (base,)
        case tuple():
            return tuple(slot for item in source for slot in slots_in(item))
        case _:
            return ()


@dataclass(frozen=True, slots=True)
class Op:
    """An instruction with its operands as slots; ``carry_in`` and ``carry_out`` are the carry flag's slot where it takes part."""

    opcode: tuple[str, ...]
    results: tuple[Source, ...]
    sources: tuple[Source, ...]
    guard: Slot | None
    line: int
    text: str
    carry_in: Slot | None = None
    carry_out: Slot | None = None

    @property
    def name(self) -> str:
        return ".".join(self.opcode)

    @property
    def where(self) -> str:
        """The instruction and its line, as errors name them."""
        return f"PTX line {self.line} `{self.text}`"

    @property
    def reads(self) -> tuple[Slot, ...]:
        guard = () if self.guard is None else (self.guard,)
        carry = () if self.carry_in is None else (self.carry_in,)
        addresses = tuple(item for item in self.results if isinstance(item, SlotMem))
        return (*slots_in(self.sources), *slots_in(addresses), *guard, *carry)

    @property
    def writes(self) -> tuple[Slot, ...]:
        carry = () if self.carry_out is None else (self.carry_out,)
        return (*(slot for item in self.results if not isinstance(item, SlotMem) for slot in slots_in(item)), *carry)

    @property
    def is_barrier(self) -> bool:
        return self.opcode[0] in ("bar", "barrier") and "warp" not in self.opcode and "cluster" not in self.opcode

    @property
    def is_together(self) -> bool:
        """Whether the lanes of a warp do it together."""
        return self.opcode[0] in _TOGETHER or self.opcode[:2] == ("bar", "warp")


@dataclass(frozen=True, slots=True)
class Jump:
    """To one segment."""

    target: int


@dataclass(frozen=True, slots=True)
class Branch:
    """To ``taken`` where ``guard`` holds."""

    guard: Slot
    taken: int
    otherwise: int


@dataclass(frozen=True, slots=True)
class Switch:
    """To one of ``targets``, by an index."""

    index: Source
    targets: tuple[int, ...]
    op: Op


@dataclass(frozen=True, slots=True)
class Wait:
    """At a barrier, then to ``target``."""

    op: Op
    target: int


@dataclass(frozen=True, slots=True)
class Exit:
    """The thread ends; by a trap where ``trap`` is one."""

    trap: Op | None = None


Terminator: TypeAlias = Jump | Branch | Switch | Wait | Exit


@dataclass(frozen=True, slots=True)
class Segment:
    """Straight-line code. ``together`` says that it begins with an operation of whole warps."""

    ops: tuple[Op, ...]
    end: Terminator
    together: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """A kernel. ``slots`` are the types of its registers; ``specials`` the slots that hold special registers.

    ``temporary`` slots live within one segment. ``doubtful`` ones may be read before they were written.
    """

    name: str
    segments: tuple[Segment, ...]
    slots: tuple[str, ...]
    specials: dict[str, int]
    temporary: frozenset[int]
    doubtful: frozenset[int]
    layout: Layout
    local_bytes: int
    max_threads: int | None


@dataclass(frozen=True)
class Cutter:
    """Cuts a flat list of ops and labels into segments."""

    items: list[Op | str]
    tables: dict[str, tuple[str, ...]]

    def segments(self) -> tuple[Segment, ...]:
        """Segments in the order of the text; the first is the entry."""
        starts = self._leaders()
        numbers = {start: number for number, start in enumerate(starts)}
        labels = {item: numbers[at] for at, item in enumerate(self.items) if isinstance(item, str)}
        made: list[Segment] = []
        extra: list[Segment] = []
        for number, start in enumerate(starts):
            stop = starts[number + 1] if number + 1 < len(starts) else len(self.items)
            ops = [item for item in self.items[start:stop] if isinstance(item, Op)]
            end = self._end(ops, number + 1, labels)
            if isinstance(end, Jump) and ops and self._ends(ops[-1]):
                ops.pop()
            elif not isinstance(end, Jump):
                guarded = ops.pop().guard
                if guarded is not None and not isinstance(end, Branch):
                    extra.append(Segment((), end))
                    end = Branch(guarded, len(starts) + len(extra), number + 1)
            made.append(Segment(tuple(ops), end, bool(ops) and ops[0].is_together))
        return (*made, Segment((), Exit()), *extra)

    def _ends(self, op: Op) -> bool:
        return op.opcode[0] in _ENDS or op.is_barrier

    def _leaders(self) -> list[int]:
        leaders = {0}
        together = False
        for at, item in enumerate(self.items):
            if isinstance(item, str):
                leaders.add(at)
                together = False
            elif self._ends(item):
                leaders.add(at + 1)
                together = False
            elif item.is_together and not together:
                leaders.add(at)
                together = True
        return sorted(leader for leader in leaders if leader < len(self.items))

    def _end(self, ops: list[Op], following: int, labels: dict[str, int]) -> Terminator:
        if not ops or not self._ends(ops[-1]):
            return Jump(following)
        op = ops[-1]
        match op.opcode[0]:
            case "bra":
                target = labels[_label(op)]
                return Jump(target) if op.guard is None else Branch(op.guard, target, following)
            case "brx":
                table = self.tables[_label(replace(op, sources=op.sources[1:]))]
                return Switch(op.sources[0], tuple(labels[name] for name in table), op)
            case "trap":
                return Exit(op)
            case "ret" | "exit":
                return Exit()
            case _:
                return Wait(op, following)


def _label(op: Op) -> str:
    target = op.sources[0]
    assert isinstance(target, Mem)
    base = target.base
    assert not isinstance(base, Imm)
    return base.name


def split_results(
    opcode: tuple[str, ...], operands: tuple[Source, ...]
) -> tuple[tuple[Source, ...], tuple[Source, ...]]:
    """The results and the sources of an instruction."""
    if opcode[0] in _WITHOUT_RESULT or not operands:
        return (), operands
    return operands[:1], operands[1:]
