"""Matrix products of a warp: mma.sync and ldmatrix, with fragments where the PTX ISA puts them.

With g = lane / 4 and t = lane % 4, register (c, r) of the left operand holds row ``8 r + g`` and the columns ``(c 4 + t) n``
to ``(c 4 + t) n + n - 1``, where n numbers share a register; register c of the right operand holds column g and those rows;
number (r, q) of a sum holds row ``8 r + g`` and column ``2 t + q``. Products are exact, added in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convgen.targets.cuda.interp.access import address_of
from convgen.targets.cuda.interp.fault import Fault
from convgen.targets.cuda.interp.frame import Frame
from convgen.targets.cuda.interp.program import Op, Slot, Source
from convgen.targets.cuda.interp.rounding import bf16_number
from convgen.targets.cuda.interp.steps import Context, Reader, Step, flat, reader, unknown, writer
from convgen.targets.cuda.interp.types import Array, Value


@dataclass(frozen=True, slots=True)
class _Shape:
    """Rows / 8, registers along k, and how many numbers share a register."""

    rows: int
    steps: int
    packed: int

    @property
    def depth(self) -> int:
        return self.steps * 4 * self.packed


_SHAPES = {
    ("m16n8k8", "f16"): _Shape(2, 1, 2),
    ("m16n8k16", "f16"): _Shape(2, 2, 2),
    ("m16n8k8", "bf16"): _Shape(2, 1, 2),
    ("m16n8k16", "bf16"): _Shape(2, 2, 2),
    ("m16n8k4", "tf32"): _Shape(2, 1, 1),
    ("m16n8k8", "tf32"): _Shape(2, 2, 1),
    ("m8n8k4", "f64"): _Shape(1, 1, 1),
}


def whole_warps(frame: Frame) -> Array | None:
    """The numbers of the warps at work, None for all. Faults where a part of a warp is missing."""
    if frame.batch.threads % 32:
        raise Fault("warp", f"the last warp of a block of {frame.batch.threads} threads is not whole", frame.lane_of(0))
    if frame.mask is None:
        return None
    warps = frame.mask.reshape(-1, 32)
    some = warps.any(axis=1)
    ragged = some & ~warps.all(axis=1)
    if ragged.any():
        warp = int(ragged.argmax())
        lane = 32 * warp + int(warps[warp].argmax())
        raise Fault("warp", f"{32 - int(warps[warp].sum())} lanes of the warp do not take part", lane)
    return np.flatnonzero(some)


def _by_warp(frame: Frame, value: Value, warps: Array | None) -> Array:
    """A register as [warp][g][t]."""
    shaped = frame.spread(value).reshape(-1, 8, 4)
    return shaped if warps is None else shaped[warps]


def _back(frame: Frame, value: Array, warps: Array | None) -> Array:
    """[warp][...] with 32 numbers a warp as a register."""
    flat_value = value.reshape(-1)
    if warps is None:
        return flat_value
    made = np.zeros((frame.batch.lanes // 32, 32), value.dtype)
    made[warps] = flat_value.reshape(-1, 32)
    return made.reshape(-1)


def _numbers(registers: Array, kind: str) -> Array:
    """Registers [...] as float64 [...][number]."""
    numbers: Array
    match kind:
        case "f64":
            return registers[..., None]
        case "tf32":
            numbers = (registers & np.uint32(0xFFFFE000)).view(np.float32)[..., None]
        case "f16":
            numbers = registers[..., None].view(np.float16)
        case _:
            numbers = bf16_number(registers[..., None].view(np.uint16))
    return numbers.astype(np.float64)


def _origins(frame: Frame, sources: tuple[Source, ...]) -> tuple[object, ...]:
    """What operands refer to: the registers' values themselves, whatever type they are read as."""
    return tuple(frame.registers[source.index] if isinstance(source, Slot) else source for source in sources)


def _mma(op: Op, context: Context) -> Step:
    match op.opcode:
        case ("mma", "sync", "aligned", shape, "row", "col", d, a, b, c) if a == b and c == d:
            pass
        case _:
            raise unknown(op)
    layout = _SHAPES.get((shape, a))
    if layout is None or c != ("f64" if a == "f64" else "f32"):
        raise unknown(op)
    rows, steps = layout.rows, layout.steps
    held = "f64" if a == "f64" else "b32"
    results = flat(op.results)
    left, right, sums = (flat((source,)) for source in op.sources)
    if (len(left), len(right), len(sums), len(results)) != (rows * steps, steps, 2 * rows, 2 * rows):
        raise unknown(op, "has another number of registers")
    read_left = [reader(source, held, op) for source in left]
    read_right = [reader(source, held, op) for source in right]
    read_sums = [reader(source, c, op) for source in sums]
    writers = [writer(result, c, op, context) for result in results]
    kinds = (shape, a)

    def left_matrix(frame: Frame, registers: tuple[Value, ...], warps: Array | None) -> Array:
        stacked = np.stack([_by_warp(frame, register, warps) for register in registers])
        numbers = _numbers(np.ascontiguousarray(stacked), a).reshape(steps, rows, -1, 8, 4, layout.packed)
        return numbers.transpose(2, 1, 3, 0, 4, 5).reshape(-1, 8 * rows, layout.depth)

    def right_matrix(frame: Frame, registers: tuple[Value, ...], warps: Array | None) -> Array:
        stacked = np.stack([_by_warp(frame, register, warps) for register in registers])
        numbers = _numbers(np.ascontiguousarray(stacked), a)
        return numbers.transpose(1, 0, 3, 4, 2).reshape(-1, layout.depth, 8)

    def sum_matrix(frame: Frame, registers: tuple[Value, ...], warps: Array | None) -> Array:
        stacked = np.stack([_by_warp(frame, register, warps) for register in registers])
        return stacked.reshape(rows, 2, -1, 8, 4).transpose(2, 0, 3, 4, 1).reshape(-1, 8 * rows, 8)

    parts = (
        ("a", left, read_left, left_matrix),
        ("b", right, read_right, right_matrix),
        ("c", sums, read_sums, sum_matrix),
    )

    def run(frame: Frame) -> None:
        warps = whole_warps(frame)
        matrices = []
        for role, sources, readers, make in parts:
            origins = _origins(frame, sources)
            key = (role, kinds, *map(id, origins))
            matrix = frame.fragments.find(key) if warps is None else None
            if matrix is None:
                matrix = make(frame, tuple(read(frame) for read in readers), warps)
                if warps is None and role != "c":
                    frame.fragments.keep(key, origins, matrix)
            matrices.append(matrix)
        product = np.matmul(matrices[0], matrices[1])
        product += matrices[2]
        total = product.astype(np.float32) if c == "f32" else product
        shaped = total.reshape(-1, rows, 8, 4, 2)
        for number, write in enumerate(writers):
            write(frame, _back(frame, np.ascontiguousarray(shaped[:, number // 2, :, :, number % 2]), warps))
        if warps is None and not frame.merge:
            origins = _origins(frame, results)
            frame.fragments.keep(("c", kinds, *map(id, origins)), origins, total)

    return run


def _load_matrix(op: Op, context: Context) -> Step:
    transposed = "trans" in op.opcode
    rest = set(op.opcode) - {"trans"}
    count = next((number for number in (1, 2, 4) if f"x{number}" in op.opcode), 0)
    if not count or rest - {"ldmatrix", "sync", "aligned", "m8n8", f"x{count}", "shared", "shared::cta", "b16"}:
        raise unknown(op)
    results = flat(op.results)
    if len(results) != count:
        raise unknown(op, f"loads {count} registers")
    writers = [writer(result, "b32", op, context) for result in results]
    address: Reader = address_of(op.sources[0], op)

    def read_rows(frame: Frame, given: Array) -> Array:
        """[warp][matrix][row][word], from the addresses of the lanes at work."""
        place = frame.shared.place(frame, frame.chosen(given), 16)
        frame.shared.read(frame, op, frame.shared.granules(place, 16), thread=-1)
        return frame.shared.rows(16, 4).take(place, axis=0).reshape(-1, count, 8, 4)

    def run(frame: Frame) -> None:
        warps = whole_warps(frame)
        given = frame.spread(address(frame))
        # Only the first lanes' addresses count. The access is made in their name.
        if count < 4:
            with frame.narrowed(frame.working & (frame.batch.thread % 32 < 8 * count)):
                data = read_rows(frame, given)
        else:
            data = read_rows(frame, given)
        for number, write in enumerate(writers):
            matrix = np.ascontiguousarray(data[:, number])
            if transposed:
                halves = matrix.view(np.uint16).transpose(0, 2, 1)
                matrix = np.ascontiguousarray(halves).view(np.uint32)
            write(frame, _back(frame, matrix, warps))

    return run


def build(op: Op, context: Context) -> Step | None:
    """The step, or None where the instruction is no matrix product."""
    match op.opcode[0]:
        case "mma":
            return _mma(op, context)
        case "ldmatrix":
            return _load_matrix(op, context)
        case _:
            return None
