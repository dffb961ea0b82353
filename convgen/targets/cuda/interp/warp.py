"""What the lanes of a warp do together: shuffles, votes, reductions, warp barriers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convgen.targets.cuda.interp.fault import Fault
from convgen.targets.cuda.interp.frame import Frame
from convgen.targets.cuda.interp.program import Op
from convgen.targets.cuda.interp.steps import Context, Reader, Step, flat, reader, unknown, writer
from convgen.targets.cuda.interp.types import Array, Value, numpy_type, types_in

_EVERYONE = np.uint32(0xFFFFFFFF)


def warp_bits(frame: Frame, flags: Array) -> Array:
    """For each lane, the flags of its warp's lanes as 32 bits."""
    batch = frame.batch
    padded = np.zeros((batch.blocks, batch.warps * 32), np.bool_)
    padded[:, : batch.threads] = flags.reshape(batch.blocks, batch.threads)
    bits = np.packbits(padded, axis=1, bitorder="little").view("<u4")
    return np.repeat(bits, 32, axis=1)[:, : batch.threads].reshape(-1)


def _hold_members(frame: Frame, members: Value) -> None:
    """Faults unless every lane at work names itself and all that it names are here, those that have ended aside."""
    whole = frame.mask is None and frame.batch.threads % 32 == 0
    if whole and not members.ndim and members == _EVERYONE:
        return
    working = frame.working
    members = frame.spread(members)
    own = np.uint32(1) << (frame.batch.thread & 31).astype(np.uint32)
    alone = working & (members & own == 0)
    if alone.any():
        raise Fault("warp", "a lane takes part that its member mask does not name", int(alone.argmax()))
    missing = working & (members & warp_bits(frame, frame.live) & ~warp_bits(frame, working) != 0)
    if missing.any():
        lane = int(missing.argmax())
        absent = int((members & warp_bits(frame, frame.live) & ~warp_bits(frame, working))[lane])
        raise Fault("warp", f"lanes {absent:#010x} (bits) of the member mask do not take part", lane)


def _sources_lanes(mode: str, lane: Array, b: Value, c: Value) -> tuple[Array, Array]:
    """The lane each lane reads, and whether it lies in its segment (PTX ISA, shfl.sync)."""
    b = (b & np.uint32(31)).astype(np.int64)
    clamp, segment = (c & np.uint32(31)).astype(np.int64), ((c >> np.uint32(8)) & np.uint32(31)).astype(np.int64)
    most = (lane & segment) | (clamp & ~segment)
    least = lane & segment
    match mode:
        case "up":
            read = lane - b
            return read, read >= most
        case "down":
            read = lane + b
        case "bfly":
            read = lane ^ b
        case _:
            read = least | (b & ~segment)
    return read, read <= most


def _shuffle(op: Op, context: Context) -> Step:
    if len(op.opcode) != 4 or op.opcode[1] != "sync" or op.opcode[2] not in ("up", "down", "bfly", "idx"):
        raise unknown(op)
    mode = op.opcode[2]
    results = flat(op.results)
    write = writer(results[0], "b32", op, context)
    write_inside = writer(results[1], "pred", op, context) if len(results) > 1 else None
    value, lanes, clamp, members = (
        reader(source, kind, op) for source, kind in zip(op.sources, ("b32", "u32", "u32", "u32"), strict=True)
    )

    def run(frame: Frame) -> None:
        _hold_members(frame, members(frame))
        lane = frame.batch.thread & 31
        read, inside = _sources_lanes(mode, lane, lanes(frame), clamp(frame))
        offset = np.where(inside, read, lane) - lane
        thread = frame.batch.thread + offset
        origin = np.clip(np.arange(frame.batch.lanes) + offset, 0, frame.batch.lanes - 1)
        absent = frame.working & ((thread >= frame.batch.threads) | ~frame.working[origin])
        if absent.any():
            first = int(absent.argmax())
            raise Fault("warp", f"reads from lane {int(lane[first] + offset[first])}, which does not take part", first)
        write(frame, frame.spread(value(frame))[origin])
        if write_inside is not None:
            write_inside(frame, inside)

    return run


def _vote(op: Op, context: Context) -> Step:
    mode = op.opcode[2]
    if op.opcode[1] != "sync" or mode not in ("all", "any", "uni", "ballot"):
        raise unknown(op)
    holds, members = reader(op.sources[0], "pred", op), reader(op.sources[1], "u32", op)
    write = writer(op.results[0], "b32" if mode == "ballot" else "pred", op, context)

    def run(frame: Frame) -> None:
        named = members(frame)
        _hold_members(frame, named)
        ballot = warp_bits(frame, frame.spread(holds(frame)) & frame.working) & named
        voters = warp_bits(frame, frame.working) & named
        match mode:
            case "ballot":
                write(frame, ballot)
            case "any":
                write(frame, ballot != 0)
            case "all":
                write(frame, ballot == voters)
            case _:
                write(frame, (ballot == voters) | (ballot == 0))

    return run


_REDUCE: dict[str, tuple[Callable[..., Array], Callable[[np.iinfo], int]]] = {
    "add": (np.add.reduce, lambda info: 0),
    "min": (np.minimum.reduce, lambda info: int(info.max)),
    "max": (np.maximum.reduce, lambda info: int(info.min)),
    "and": (np.bitwise_and.reduce, lambda info: -1 if info.min else int(info.max)),
    "or": (np.bitwise_or.reduce, lambda info: 0),
    "xor": (np.bitwise_xor.reduce, lambda info: 0),
}


def _reduce(op: Op, context: Context) -> Step:
    kinds = types_in(op.opcode)
    if len(op.opcode) != 4 or op.opcode[2] not in _REDUCE or kinds[0] not in ("u32", "s32", "b32"):
        raise unknown(op)
    function, neutral = _REDUCE[op.opcode[2]]
    dtype = numpy_type(kinds[0])
    value, members = reader(op.sources[0], kinds[0], op), reader(op.sources[1], "u32", op)
    write = writer(op.results[0], kinds[0], op, context)

    def run(frame: Frame) -> None:
        named = members(frame)
        _hold_members(frame, named)
        batch = frame.batch
        groups = warp_bits(frame, frame.working) & named
        if frame.mask is not None or batch.threads % 32 or named.ndim:
            # Only one group of lanes a warp can be summed at a time.
            different = frame.working & (groups != warp_bits(frame, frame.working))
            if different.any():
                raise Fault(
                    "warp", "reductions over part of a warp's working lanes are not supported", int(different.argmax())
                )
        padded = np.full((batch.blocks, batch.warps * 32), neutral(np.iinfo(dtype)), dtype)
        here = np.where(frame.working, frame.spread(value(frame)), dtype.type(neutral(np.iinfo(dtype))))
        padded[:, : batch.threads] = here.reshape(batch.blocks, batch.threads)
        totals = function(padded.reshape(batch.blocks, batch.warps, 32), axis=2).astype(dtype)
        write(frame, np.repeat(totals, 32, axis=1)[:, : batch.threads].reshape(-1))

    return run


def _active_mask(op: Op, context: Context) -> Step:
    write = writer(op.results[0], "b32", op, context)
    return lambda frame: write(frame, warp_bits(frame, frame.working))


def _barrier(op: Op) -> Step:
    members: Reader = reader(op.sources[0], "u32", op)

    def run(frame: Frame) -> None:
        _hold_members(frame, members(frame))
        frame.clock.warp_barrier(frame.working)

    return run


def build(op: Op, context: Context) -> Step | None:
    """The step, or None where the instruction is not one of a warp."""
    match op.opcode[0]:
        case "shfl":
            return _shuffle(op, context)
        case "vote":
            return _vote(op, context)
        case "redux":
            return _reduce(op, context)
        case "activemask":
            return _active_mask(op, context)
        case "bar" if op.opcode[:3] == ("bar", "warp", "sync"):
            return _barrier(op)
        case _:
            return None
