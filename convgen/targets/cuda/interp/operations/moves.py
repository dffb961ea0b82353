"""Moves, packing and unpacking of vectors, and conversions of addresses between spaces."""

from __future__ import annotations

import numpy as np

from convgen.targets.cuda.interp.layout import LOCAL_WINDOW, SHARED_WINDOW, WINDOW_SIZE
from convgen.targets.cuda.interp.program import Op, SlotMem, Source
from convgen.targets.cuda.interp.steps import Pure, unknown
from convgen.targets.cuda.interp.types import Value, types_in, unsigned, width_of

_WINDOWS = {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW, "global": 0, "const": 0, "param": None}


def _pack(op: Op, parts: int, kind: str) -> Pure:
    bits = width_of(kind)
    if bits % parts:
        raise unknown(op)
    step = bits // parts

    def function(*values: Value) -> Value:
        made = values[0].astype(unsigned(bits))
        for number, value in enumerate(values[1:], 1):
            made = made | (value.astype(unsigned(bits)) << unsigned(bits).type(number * step))
        return made

    return Pure(function, (f"b{step}",) * parts, (f"b{bits}",))


def _unpack(op: Op, parts: int, kind: str) -> Pure:
    bits = width_of(kind)
    if bits % parts:
        raise unknown(op)
    step = bits // parts

    def function(value: Value) -> Value:
        return tuple((value >> value.dtype.type(number * step)).astype(unsigned(step)) for number in range(parts))

    return Pure(function, (f"b{bits}",), (f"b{step}",) * parts)


def _move(op: Op) -> Pure:
    kind = types_in(op.opcode)[0]
    result: Source = op.results[0]
    source = op.sources[0]
    match result, source:
        case tuple(), _:
            return _unpack(op, len(result), kind)
        case _, tuple():
            return _pack(op, len(source), kind)
        case _, SlotMem():
            raise unknown(op)
        case _:
            return Pure(lambda value: value, (kind,), (kind,))


def _space_of(op: Op) -> str:
    for part in op.opcode[1:]:
        space = part.partition("::")[0]
        if space in _WINDOWS:
            return space
    raise unknown(op)


def _convert_address(op: Op) -> Pure:
    kind = types_in(op.opcode)[0]
    window = _WINDOWS[_space_of(op)]
    if window is None or kind != "u64":
        raise unknown(op)
    amount = np.uint64(window)
    if "to" in op.opcode:
        return Pure(lambda address: address - amount, (kind,), (kind,))
    return Pure(lambda address: address + amount, (kind,), (kind,))


def _is_in_space(op: Op) -> Pure:
    space = _space_of(op)
    first, size = np.uint64(_WINDOWS[space] or 0), np.uint64(WINDOW_SIZE)

    def function(address: Value) -> Value:
        if space == "global":
            outside = address - np.uint64(SHARED_WINDOW) >= size
            return outside & (address - np.uint64(LOCAL_WINDOW) >= size)
        return address - first < size

    if space not in ("global", "shared", "local"):
        raise unknown(op)
    return Pure(function, ("u64",), ("pred",))


def build(op: Op) -> Pure | None:
    """The operation, or None where it moves nothing."""
    match op.opcode[0]:
        case "mov":
            return _move(op)
        case "cvta":
            return _convert_address(op)
        case "isspacep":
            return _is_in_space(op)
        case _:
            return None
