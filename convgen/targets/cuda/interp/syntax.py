"""The text of a PTX module as frozen dataclasses. Names are unique within a function: scopes are resolved by the parser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Reg:
    """A register, ``%r1``; ``!%p1`` where it is negated."""

    name: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Imm:
    """A constant: an integer, or the bits of a floating-point number of ``width`` bits."""

    value: int
    width: int = 0


@dataclass(frozen=True, slots=True)
class Sym:
    """The address of a variable plus ``offset`` bytes, a label, or the name of a function."""

    name: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Special:
    """A special register, such as ``%tid.x``."""

    name: str


@dataclass(frozen=True, slots=True)
class Sink:
    """``_``: a result that nobody wants."""


@dataclass(frozen=True, slots=True)
class Mem:
    """``[base + offset]``."""

    base: Reg | Sym | Imm
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Vec:
    """``{a, b}``, or the list of names in a call."""

    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """``a|b``: two results."""

    first: Operand
    second: Operand


Operand: TypeAlias = Reg | Imm | Sym | Special | Sink | Mem | Vec | Pair


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. ``opcode`` is split at its dots; ``line`` counts from 1 and ``text`` is what stands there."""

    opcode: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Reg | None
    line: int
    text: str

    @property
    def name(self) -> str:
        return ".".join(self.opcode)


@dataclass(frozen=True, slots=True)
class Label:
    """A place to branch to."""

    name: str


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable in one of the spaces ``param``, ``shared``, ``global``, ``const`` and ``local``. ``size`` is in bytes.

    ``data`` holds its first bytes, None where it is not initialised; ``addresses`` are the 8-byte words of it that are
    addresses of other variables, by their offset. An extern variable's size is only known at launch.
    """

    name: str
    space: str
    type: str
    align: int
    size: int
    data: bytes | None = None
    addresses: tuple[tuple[int, Sym], ...] = ()
    extern: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """A kernel (``entry``) or a function. ``registers`` maps unique names to their types; a declaration has no body."""

    name: str
    entry: bool
    returns: tuple[Variable, ...]
    parameters: tuple[Variable, ...]
    registers: dict[str, str]
    variables: tuple[Variable, ...]
    body: tuple[Instruction | Label, ...] | None
    tables: dict[str, tuple[str, ...]]
    max_threads: int | None = None


@dataclass(frozen=True, slots=True)
class Module:
    """Everything that one PTX text declares."""

    functions: dict[str, Function]
    variables: dict[str, Variable]

    @property
    def kernels(self) -> tuple[str, ...]:
        return tuple(name for name, function in self.functions.items() if function.entry and function.body is not None)
