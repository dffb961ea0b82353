"""Runs a kernel: batches of blocks, all their threads in step, which part and meet again as the kernel branches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from convgen.errors import KernelFault, OperandError
from convgen.targets.cuda.interp.batch import Batch
from convgen.targets.cuda.interp.build import Compiled, compile_kernel
from convgen.targets.cuda.interp.clock import Clock
from convgen.targets.cuda.interp.fault import Fault
from convgen.targets.cuda.interp.frame import Frame
from convgen.targets.cuda.interp.layout import ARGUMENT_BASE
from convgen.targets.cuda.interp.memory import MAX_BLOCKS, Allocation, GlobalMemory, LocalMemory
from convgen.targets.cuda.interp.program import Op
from convgen.targets.cuda.interp.schedule import Scheduler
from convgen.targets.cuda.interp.shared import SharedMemory
from convgen.targets.cuda.interp.special import special_values
from convgen.targets.cuda.interp.syntax import Module, Variable
from convgen.targets.cuda.interp.types import Array, storage_type, width_of

Triple: TypeAlias = tuple[int, int, int]
# Few enough that registers stay in the second-level cache, many enough that the cost of a NumPy call is small.
_LANES = 16384
_ARGUMENT_GAP = 1 << 30


@dataclass(frozen=True, slots=True)
class Pointer:
    """An argument that is an address inside an array: ``offset`` bytes from its start."""

    array: Array
    offset: int = 0


Argument: TypeAlias = Array | Pointer | int | float | np.generic


def run(
    module: Module | Compiled,
    name: str | None = None,
    *,
    grid: Triple | tuple[int, ...],
    block: Triple | tuple[int, ...],
    arguments: Sequence[Argument],
    dynamic_shared: int = 0,
    seed: int | None = None,
    races: bool = True,
    step_limit: int = 10_000_000,
) -> None:
    """Launches a kernel over NumPy memory, and returns when all its threads have ended.

    ``grid`` and ``block`` are (x, y, z) counts of blocks and of threads. ``arguments`` stand for the kernel's parameters in
    order: a C-contiguous array, or a ``Pointer`` into one, is passed as its address, and read and written in place (an array
    that is not writeable must only be read); anything else is a number, converted to the parameter's type. Each array is an
    allocation of its own, aligned to 256 bytes. ``dynamic_shared`` is in bytes. Shared memory starts uninitialised.

    With a ``seed``, the warps of a block do not run in step: a random half of them runs up to the next barrier before the
    others do. ``races=False`` does without the detection of races. ``step_limit`` bounds the pieces of straight-line code
    that a batch of blocks runs.

    Raises KernelFault for what the kernel does wrong, PtxError for PTX the interpreter does not know, and OperandError for
    arguments and sizes that do not fit the kernel.
    """
    compiled = module if isinstance(module, Compiled) else compile_kernel(module, name)
    blocks, threads = _triple("grid", grid), _triple("block", block)
    per_block = threads[0] * threads[1] * threads[2]
    total = blocks[0] * blocks[1] * blocks[2]
    limit = min(compiled.program.max_threads or 1024, 1024)
    if per_block > limit:
        raise OperandError(f"block = {threads} has more than the kernel's {limit} threads")
    if total > MAX_BLOCKS:
        raise OperandError(f"grid = {blocks} has more than {MAX_BLOCKS} blocks")
    allocations, values = _arguments(compiled, arguments)
    allocations.extend(_module_variables(compiled))
    launch = _Launch(compiled, blocks, threads, dynamic_shared, values, races, seed, step_limit)
    memory = GlobalMemory(allocations, races=races)
    at_once = max(1, _LANES // per_block)
    clock = Clock()
    with np.errstate(all="ignore"):
        for first in range(0, total, at_once):
            launch.batch(memory, clock, first, min(at_once, total - first))


def _triple(name: str, sizes: tuple[int, ...]) -> Triple:
    filled = (*sizes, 1, 1, 1)[:3]
    if not 1 <= len(sizes) <= 3 or min(filled) < 1:
        raise OperandError(f"{name} = {sizes} is not one to three positive counts")
    return (int(filled[0]), int(filled[1]), int(filled[2]))


@dataclass(frozen=True)
class _Launch:
    """What does not change from batch to batch."""

    compiled: Compiled
    grid: Triple
    block: Triple
    dynamic: int
    arguments: bytes
    races: bool
    seed: int | None
    step_limit: int

    def batch(self, memory: GlobalMemory, clock: Clock, first: int, blocks: int) -> None:
        """Runs some blocks, numbered from ``first``, to their end."""
        compiled = self.compiled
        program = compiled.program
        threads = self.block[0] * self.block[1] * self.block[2]
        block = np.repeat(np.arange(blocks, dtype=np.int64), threads)
        batch = Batch(first, blocks, threads, np.tile(np.arange(threads, dtype=np.int64), blocks), block, block + first)
        clock.start(batch)
        shared = SharedMemory(batch, program.layout, self.dynamic, compiled.shared_granule, races=self.races)
        registers: list[Any] = [storage_type(kind).type(0) for kind in program.slots]
        specials = special_values(batch, self.grid, self.block, self.dynamic, shared.size)
        for special, index in program.specials.items():
            registers[index] = specials(special).astype(storage_type(program.slots[index]))
        defined = {index: np.zeros(batch.lanes, np.bool_) for index in program.doubtful}
        for index in program.specials.values():
            if index in defined:
                defined[index][:] = True
        local = LocalMemory(batch, program.local_bytes)
        frame = Frame(batch, clock, self.arguments, registers, defined, memory, shared, local)
        order = None if self.seed is None else np.random.default_rng((self.seed, first))
        scheduler = Scheduler(compiled.codes, frame, order, self.step_limit)
        try:
            scheduler.run()
        except Fault as fault:
            op = fault.op or scheduler.op
            raise self._located(fault, op, batch) from None

    def _located(self, fault: Fault, op: Op | None, batch: Batch) -> KernelFault:
        thread, block = int(batch.thread[fault.lane]), int(batch.grid_block[fault.lane])
        return KernelFault(
            fault.kind,
            fault.reason,
            kernel=self.compiled.program.name,
            line=0 if op is None else op.line,
            text="" if op is None else op.text,
            block=_indices(block, self.grid),
            thread=_indices(thread, self.block),
        )


def _indices(number: int, sizes: Triple) -> Triple:
    return (number % sizes[0], number // sizes[0] % sizes[1], number // (sizes[0] * sizes[1]))


# Arguments.


def _arguments(compiled: Compiled, arguments: Sequence[Argument]) -> tuple[list[Allocation], bytes]:
    """The allocations behind the arguments, and the bytes of the kernel's parameters."""
    if len(arguments) != len(compiled.parameters):
        raise OperandError(f"the kernel takes {len(compiled.parameters)} arguments, not {len(arguments)}")
    data = bytearray(compiled.argument_bytes)
    allocations: list[Allocation] = []
    by_memory: dict[tuple[int, int], Allocation] = {}
    base = itertools.count(ARGUMENT_BASE, _ARGUMENT_GAP)
    for number, (parameter, offset, argument) in enumerate(
        zip(compiled.parameters, compiled.offsets, arguments, strict=True)
    ):
        if isinstance(argument, np.ndarray):
            argument = Pointer(argument)
        if not isinstance(argument, Pointer):
            data[offset : offset + parameter.size] = _scalar(parameter, number, argument)
            continue
        array = argument.array
        if not array.flags.c_contiguous or parameter.size != 8:
            raise OperandError(f"argument {number} must be a C-contiguous array for a parameter of 8 bytes")
        place = (array.__array_interface__["data"][0], array.nbytes)
        if place not in by_memory:
            start = next(base)
            while allocations and allocations[-1].end + _ARGUMENT_GAP // 2 > start:
                start = next(base)
            flat = array.reshape(-1).view(np.uint8)
            writable = bool(array.flags.writeable)
            made = Allocation(f"argument {number}", start, flat, writable, compiled.global_granule)
            by_memory[place] = made
            allocations.append(made)
        elif by_memory[place].writable != bool(array.flags.writeable):
            raise OperandError(f"argument {number} is the memory of another one, and only one of them is writeable")
        address = by_memory[place].base + argument.offset
        data[offset : offset + 8] = address.to_bytes(8, "little")
    _hold_apart(by_memory)
    return allocations, bytes(data)


def _hold_apart(by_memory: dict[tuple[int, int], Allocation]) -> None:
    end, before = 0, ""
    for (start, size), allocation in sorted(by_memory.items(), key=lambda item: item[0]):
        if size and start < end:
            raise OperandError(f"{before} and {allocation.name} overlap in part")
        if size:
            end, before = start + size, allocation.name


def _scalar(parameter: Variable, number: int, argument: int | float | np.generic) -> bytes:
    kind = parameter.type
    if parameter.size != width_of(kind) // 8:
        raise OperandError(f"argument {number} is a structure, which is not supported")
    if kind[0] == "f" or isinstance(argument, (float, np.floating)):
        return np.array(argument, f"f{parameter.size}").tobytes()
    return (int(argument) % (1 << (8 * parameter.size))).to_bytes(parameter.size, "little")


def _module_variables(compiled: Compiled) -> list[Allocation]:
    """The module's own variables, as they are before the launch. Those that are initialised constants are read-only."""
    layout = compiled.program.layout
    made = []
    for variable in layout.module_variables:
        data = np.zeros(variable.size, np.uint8)
        if variable.data is not None:
            data[: len(variable.data)] = np.frombuffer(variable.data, np.uint8)
        for offset, symbol in variable.addresses:
            address = layout.addresses[symbol.name] + symbol.offset
            data[offset : offset + 8] = np.frombuffer(address.to_bytes(8, "little"), np.uint8)
        constant = variable.space == "const"
        made.append(
            Allocation(variable.name, layout.addresses[variable.name], data, not constant, compiled.global_granule)
        )
    return made
