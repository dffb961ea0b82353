"""From a module's functions to one flat program: calls in place, registers numbered, symbols resolved."""

from __future__ import annotations

from dataclasses import dataclass, field

from convgen.errors import PtxError
from convgen.targets.cuda.interp.flow import doubtful_slots, temporary_slots
from convgen.targets.cuda.interp.layout import Layout, lay_out
from convgen.targets.cuda.interp.program import Argument, Cutter, Op, Program, Slot, SlotMem, Source, split_results
from convgen.targets.cuda.interp.syntax import (
    Function,
    Imm,
    Instruction,
    Label,
    Mem,
    Module,
    Operand,
    Pair,
    Reg,
    Sink,
    Special,
    Sym,
    Variable,
    Vec,
)
from convgen.targets.cuda.interp.types import types_in, width_of

_CARRY = frozenset(("add", "addc", "sub", "subc", "mad", "madc"))


def parameter_offsets(parameters: tuple[Variable, ...]) -> tuple[tuple[int, ...], int]:
    """The offset of each parameter, and the bytes of all."""
    offsets, end = [], 0
    for parameter in parameters:
        offset = -(-end // parameter.align) * parameter.align
        offsets.append(offset)
        end = offset + parameter.size
    return tuple(offsets), end


def flatten(module: Module, name: str) -> Program:
    """The flat program of a kernel. Raises PtxError for recursion and for what cannot be resolved."""
    kernel = module.functions[name]
    return _Flattener(module, kernel).program()


@dataclass
class _Instance:
    """A function written out at one place: how its names are told from those of other places."""

    function: Function
    prefix: str
    parameters: dict[str, str]
    depots: dict[str, int]
    active: tuple[str, ...]


@dataclass
class _Flattener:
    """The flat program being written. ``names`` are the slots by their unique names, ``items`` the ops and labels so far."""

    module: Module
    kernel: Function
    slots: list[str] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    specials: dict[str, int] = field(default_factory=dict)
    items: list[Op | str] = field(default_factory=list)
    tables: dict[str, tuple[str, ...]] = field(default_factory=dict)
    local_bytes: int = 0
    instances: int = 0
    layout: Layout = field(init=False)
    kernel_parameters: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        own = [variable for function in self.module.functions.values() for variable in function.variables]
        self.layout = lay_out((*self.module.variables.values(), *own))
        offsets, _ = parameter_offsets(self.kernel.parameters)
        names = (parameter.name for parameter in self.kernel.parameters)
        self.kernel_parameters = dict(zip(names, offsets, strict=True))

    def program(self) -> Program:
        self._write(self._instance(self.kernel, {}, ()))
        segments = Cutter(self.items, self.tables).segments()
        return Program(
            self.kernel.name,
            segments,
            tuple(self.slots),
            self.specials,
            temporary_slots(segments),
            doubtful_slots(segments, frozenset(self.specials.values())),
            self.layout,
            self.local_bytes,
            self.kernel.max_threads,
        )

    def _instance(self, function: Function, parameters: dict[str, str], active: tuple[str, ...]) -> _Instance:
        self.instances += 1
        depots = {}
        for variable in function.variables:
            if variable.space == "local":
                start = -(-self.local_bytes // max(variable.align, 16)) * max(variable.align, 16)
                depots[variable.name] = start
                self.local_bytes = start + variable.size
        return _Instance(function, f"{self.instances}:", parameters, depots, (*active, function.name))

    def _slot(self, name: str, kind: str) -> Slot:
        if name not in self.names:
            self.names[name] = len(self.slots)
            self.slots.append(kind)
        return Slot(self.names[name], self.slots[self.names[name]])

    def _write(self, instance: _Instance) -> None:
        """Appends a function's body. What it returns to is the label that stands after it."""
        body = instance.function.body
        assert body is not None
        for name, targets in instance.function.tables.items():
            self.tables[instance.prefix + name] = tuple(instance.prefix + target for target in targets)
        for item in body:
            match item:
                case Label(name):
                    self.items.append(instance.prefix + name)
                case Instruction():
                    self._instruction(item, instance)

    def _instruction(self, item: Instruction, instance: _Instance) -> None:
        guard = None if item.guard is None else self._register(item.guard, instance)
        match item.opcode[0]:
            case "call":
                self._call(item, instance)
                return
            case "ret" if instance.function is not self.kernel:
                target = Mem(Sym(f"{instance.prefix}return"))
                self.items.append(Op(("bra",), (), (target,), guard, item.line, item.text))
                return
            case "ld" | "st" if "param" in item.opcode:
                self._parameter_access(item, guard, instance)
                return
        jumps = item.opcode[0] in ("bra", "brx")
        operands = tuple(self._operand(operand, item, instance, jumps=jumps) for operand in item.operands)
        results, sources = split_results(item.opcode, operands)
        flag = self._slot(f"{instance.prefix}carry", "u32") if item.opcode[0] in _CARRY else None
        carry_in = flag if item.opcode[0] in ("addc", "subc", "madc") else None
        carry_out = flag if "cc" in item.opcode else None
        self.items.append(Op(item.opcode, results, sources, guard, item.line, item.text, carry_in, carry_out))

    def _register(self, register: Reg, instance: _Instance) -> Slot:
        kind = instance.function.registers[register.name]
        slot = self._slot(instance.prefix + register.name, kind)
        return Slot(slot.index, slot.type, register.negated)

    def _operand(self, operand: Operand, item: Instruction, instance: _Instance, *, jumps: bool = False) -> Source:
        match operand:
            case Reg():
                return self._register(operand, instance)
            case Imm() | Sink():
                return operand
            case Special(name):
                slot = self._slot(name, "u64" if name in ("%clock64", "%globaltimer") else "u32")
                self.specials[name] = slot.index
                return slot
            case Sym(name, offset):
                if jumps:
                    return Mem(Sym(instance.prefix + name))
                return Imm(self._address(name, item, instance) + offset)
            case Mem(Reg() as base, offset):
                return SlotMem(self._register(base, instance), offset)
            case Mem(Sym(name), offset):
                return Mem(Imm(self._address(name, item, instance) + offset))
            case Mem(Imm(value), offset):
                return Mem(Imm(value + offset))
            case Vec(items):
                return tuple(self._operand(part, item, instance) for part in items)
            case Pair(first, second):
                return tuple(self._operand(part, item, instance) for part in (first, second))
        raise AssertionError(operand)

    def _address(self, name: str, item: Instruction, instance: _Instance) -> int:
        if name in instance.depots:
            return instance.depots[name]
        if name in self.layout.addresses:
            return self.layout.addresses[name]
        raise PtxError(f"PTX line {item.line} `{item.text}`: the address of {name} is not known")

    # Calls.

    def _call(self, item: Instruction, instance: _Instance) -> None:
        returns, target, arguments = item.operands
        assert isinstance(returns, Vec)
        assert isinstance(target, Sym)
        assert isinstance(arguments, Vec)
        function = self.module.functions.get(target.name)
        if function is None or function.body is None:
            raise PtxError(
                f"PTX line {item.line} `{item.text}`: {target.name} is called and has no body in this module"
            )
        if target.name in instance.active:
            raise PtxError(f"PTX line {item.line} `{item.text}`: recursion is not supported")
        if item.guard is not None:
            raise PtxError(f"PTX line {item.line} `{item.text}`: a guarded call is not supported")
        formal = (*function.returns, *function.parameters)
        actual = (*returns.items, *arguments.items)
        if len(formal) != len(actual):
            raise PtxError(f"PTX line {item.line} `{item.text}`: {target.name} takes {len(formal)} operands")
        parameters = {}
        for variable, operand in zip(formal, actual, strict=True):
            if not isinstance(operand, Sym):
                raise PtxError(
                    f"PTX line {item.line} `{item.text}`: operands of calls are variables of the space .param"
                )
            parameters[variable.name] = self._parameter(operand.name, instance)
        made = self._instance(function, parameters, instance.active)
        self._write(made)
        self.items.append(f"{made.prefix}return")

    def _parameter(self, name: str, instance: _Instance) -> str:
        """The name, unique in the program, of a variable of the space .param."""
        return instance.parameters.get(name, instance.prefix + name)

    def _parameter_access(self, item: Instruction, guard: Slot | None, instance: _Instance) -> None:
        """A load or store of the space .param: bytes of the kernel's arguments, or a slot for each part of a call's operand."""
        kind = types_in(item.opcode)[-1]
        store = item.opcode[0] == "st"
        memory, values = (item.operands[0], item.operands[1]) if store else (item.operands[1], item.operands[0])
        if not isinstance(memory, Mem) or not isinstance(memory.base, Sym):
            raise PtxError(f"PTX line {item.line} `{item.text}`: parameters are only supported by their names")
        parts = values.items if isinstance(values, Vec) else (values,)
        for number, part in enumerate(parts):
            offset = memory.offset + number * width_of(kind) // 8
            name = memory.base.name
            place: Source
            if instance.function is self.kernel and name in self.kernel_parameters:
                place = Argument(self.kernel_parameters[name] + offset)
            else:
                unique = f"{self._parameter(name, instance)}+{offset}.{width_of(kind)}"
                place = self._slot(unique, f"b{width_of(kind)}")
            value = self._operand(part, item, instance)
            results, sources = ((place,), (value,)) if store else ((value,), (place,))
            opcode = ("mov", kind)
            self.items.append(Op(opcode, results, sources, guard, item.line, item.text))
