"""Loads, stores, atomic operations and asynchronous copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from convgen.errors import PtxError
from convgen.targets.cuda.interp.fault import Fault
from convgen.targets.cuda.interp.frame import Frame
from convgen.targets.cuda.interp.layout import LOCAL_WINDOW, SHARED_WINDOW, WINDOW_SIZE
from convgen.targets.cuda.interp.operations.floating import extreme
from convgen.targets.cuda.interp.program import Op, SlotMem, Source
from convgen.targets.cuda.interp.steps import Context, Reader, Step, reader, unknown, writer
from convgen.targets.cuda.interp.syntax import Imm, Mem
from convgen.targets.cuda.interp.types import Array, Value, numpy_type, types_in, unsigned, width_of

_SPACES = ("global", "shared", "local", "const")
# How long data stay in caches, and who else may look: none of it changes what is read. Others are refused.
_HINTS = frozenset(
    (
        *("weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "cta", "gpu", "sys", "nc"),
        *("ca", "cg", "cs", "lu", "cv", "wb", "wt", "v2", "v4", "noftz"),
    )
)


@dataclass(frozen=True, slots=True)
class _Form:
    """What an access's opcode says."""

    space: str
    kind: str
    count: int
    strong: bool

    @property
    def element(self) -> int:
        return width_of(self.kind) // 8

    @property
    def size(self) -> int:
        return self.element * self.count


def _form(op: Op, also: frozenset[str] = frozenset()) -> _Form:
    space, count = "generic", 1
    kinds = types_in(op.opcode)
    for part in op.opcode[1:]:
        name, _, level = part.partition("::")
        if name in _SPACES and level in ("", "cta"):
            space = name
        elif name in ("L1", "L2") or part in _HINTS or part in kinds or part in also:
            count = int(part[1]) if part in ("v2", "v4") else count
        else:
            raise unknown(op)
    if len(kinds) != 1:
        raise unknown(op)
    strong = bool({"volatile", "relaxed", "acquire", "release"} & set(op.opcode))
    return _Form(space, kinds[0], count, strong)


def granule(op: Op) -> tuple[int, bool, bool] | None:
    """The bytes that an instruction accesses at once, and whether in shared and in global memory; None for no access."""
    match op.opcode[0]:
        case "ld" | "ldu" | "st" | "atom" | "red":
            form = _form(op, _ATOMIC_WORDS)
            size = form.size if op.opcode[0] in ("ld", "ldu", "st") else form.element
            return size, form.space in ("shared", "generic"), form.space in ("global", "generic")
        case "cp" if op.opcode[1:2] == ("async",) and len(op.sources) >= 3:
            return _copy_size(op), True, True
        case _:
            return None


def address_of(memory: Source, op: Op) -> Reader:
    """Reads an operand's address as uint64, one for each lane or one for all."""
    match memory:
        case SlotMem(base, offset):
            read = reader(base, f"u{width_of(base.type)}", op)
            if offset == 0:
                return lambda frame: read(frame).astype(np.uint64, copy=False)
            amount = np.uint64(offset % (1 << 64))
            return lambda frame: read(frame).astype(np.uint64, copy=False) + amount
        case Mem(Imm(value)):
            constant = np.uint64(value)
            return lambda frame: constant
        case _:
            raise PtxError(f"{op.where}: the address of {op.name} is not understood")


def _per_space(form: _Form, address: Reader, run: Callable[[Frame, str, Value], None]) -> Step:
    """Runs an access in its space; a generic address says by its value which one it is, lane by lane."""
    if form.space != "generic":
        space = "global" if form.space == "const" else form.space
        return lambda frame: run(frame, space, address(frame))

    def generic(frame: Frame) -> None:
        value = address(frame)
        in_shared = value - np.uint64(SHARED_WINDOW) < np.uint64(WINDOW_SIZE)
        in_local = value - np.uint64(LOCAL_WINDOW) < np.uint64(WINDOW_SIZE)
        groups = (("shared", in_shared, SHARED_WINDOW), ("local", in_local, LOCAL_WINDOW))
        for space, inside, window in (*groups, ("global", ~(in_shared | in_local), 0)):
            working = inside if frame.mask is None else frame.mask & inside
            if not working.any():
                continue
            if inside.all():
                run(frame, space, value - np.uint64(window))
                return
            with frame.narrowed(working):
                run(frame, space, value - np.uint64(window))

    return generic


def _loaded(frame: Frame, op: Op, form: _Form, space: str, address: Value) -> Value:
    """What the lanes at work read: [lane] or [lane][number], or [] or [number] where all read the same."""
    size, constant = form.size, "nc" in op.opcode
    if space == "global":
        chosen = address if not address.ndim or frame.active is None else address[frame.active]
        accesses = frame.memory.find(frame, chosen, size)
        for access in accesses:
            if not form.strong:
                frame.memory.read(frame, access, size, constant=constant)
        if accesses[0].chosen is None:
            return accesses[0].allocation.rows(size, form.element).take(accesses[0].place, axis=0)
        made = np.empty((len(chosen), form.count), unsigned(8 * form.element))
        for access in accesses:
            rows = access.allocation.rows(size, form.element)[access.place]
            made[access.chosen] = rows if form.count > 1 else rows[:, None]
        return made if form.count > 1 else made[:, 0]
    chosen = frame.chosen(address)
    if space == "local":
        return frame.local.rows(size, form.element)[frame.local.place(frame, chosen, size)]
    place = frame.shared.place(frame, chosen, size)
    if not form.strong:
        frame.shared.read(frame, op, frame.shared.granules(place, size))
    return frame.shared.rows(size, form.element).take(place, axis=0)


def _load(op: Op, context: Context) -> Step:
    form = _form(op)
    target = op.results[0]
    results = target if isinstance(target, tuple) else (target,)
    if len(results) != form.count:
        raise unknown(op, f"loads {form.count} values")
    # A generic load may write its lanes space by space, so that none of its results belongs to all lanes at once.
    kept = Context(frozenset(), context.doubtful) if form.space == "generic" else context
    writers = [writer(result, form.kind, op, kept) for result in results]
    dtype = numpy_type(form.kind)

    def run(frame: Frame, space: str, address: Value) -> None:
        data = _loaded(frame, op, form, space, address)
        columns = (data,) if form.count == 1 else np.ascontiguousarray(data.T)
        for write, column in zip(writers, columns, strict=True):
            value = column if not column.ndim else frame.full(column)
            write(frame, value.view(dtype))

    return _per_space(form, address_of(op.sources[0], op), run)


def _put(frame: Frame, op: Op, form: _Form, space: str, address: Value, data: Array) -> None:
    """Writes [lane] or [lane][number]."""
    chosen = frame.chosen(address)
    size = form.size
    if space == "local":
        frame.local.rows(size, form.element)[frame.local.place(frame, chosen, size)] = data
    elif space == "shared":
        place = frame.shared.place(frame, chosen, size)
        frame.shared.write(frame, op, frame.shared.granules(place, size), atomic=form.strong)
        frame.shared.rows(size, form.element)[place] = data
    else:
        for access in frame.memory.find(frame, chosen, size):
            frame.memory.write(frame, op, access, size, atomic=form.strong)
            part = data if access.chosen is None else data[access.chosen]
            access.allocation.rows(size, form.element)[access.place] = part


def _store(op: Op, context: Context) -> Step:
    form = _form(op)
    if form.space == "const" or len(op.sources) != 2:
        raise unknown(op)
    given = op.sources[1]
    values = given if isinstance(given, tuple) else (given,)
    if len(values) != form.count:
        raise unknown(op, f"stores {form.count} values")
    readers = [reader(value, form.kind, op) for value in values]
    bits = unsigned(8 * form.element)

    def run(frame: Frame, space: str, address: Value) -> None:
        columns = [frame.chosen(read(frame)).view(bits) for read in readers]
        _put(frame, op, form, space, address, columns[0] if form.count == 1 else np.stack(columns, axis=1))

    return _per_space(form, address_of(op.sources[0], op), run)


# Atomic operations.

_ATOMIC: dict[str, Callable[[Value, Value], Value]] = {
    "add": np.add,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "exch": lambda old, new: new,
    "inc": lambda old, top: np.where(old >= top, old.dtype.type(0), old + old.dtype.type(1)),
    "dec": lambda old, top: np.where((old == 0) | (old > top), top, old - old.dtype.type(1)),
}
_ATOMIC_WORDS = frozenset((*_ATOMIC, "min", "max", "cas"))


def _atomic_function(op: Op, form: _Form) -> Callable[..., Value]:
    name = next((part for part in op.opcode[1:] if part in _ATOMIC_WORDS), None)
    if name is None or form.count != 1 or form.kind.endswith("16") or form.kind.endswith("x2"):
        raise unknown(op)
    if name == "cas":
        return lambda old, expected, new: np.where(old == expected, new, old)
    if name in ("min", "max"):
        if form.kind[0] == "f":
            return extreme(op)
        return np.minimum if name == "min" else np.maximum
    return _ATOMIC[name]


def _turns(place: Array) -> Array:
    """The turn of each lane among those that access the same place."""
    order = np.argsort(place, kind="stable")
    sorted_places = place[order]
    starts = np.concatenate(([True], sorted_places[1:] != sorted_places[:-1]))
    first = np.maximum.accumulate(np.where(starts, np.arange(len(place)), 0))
    turns = np.empty(len(place), np.int64)
    turns[order] = np.arange(len(place)) - first
    return turns


def _update(rows: Array, place: Array, function: Callable[..., Value], operands: list[Array]) -> Array:
    """Updates places one after the other where lanes share them, in the order of lanes; returns what was there."""
    before = np.empty(len(place), rows.dtype)
    turns = _turns(place)
    for turn in range(int(turns.max()) + 1):
        now = np.flatnonzero(turns == turn)
        old = rows[place[now]]
        before[now] = old
        rows[place[now]] = function(old, *(operand[now] for operand in operands))
    return before


def _atomic(op: Op, context: Context) -> Step:
    form = _form(op, _ATOMIC_WORDS)
    function = _atomic_function(op, form)
    dtype = numpy_type(form.kind)
    readers = [reader(source, form.kind, op) for source in op.sources[1:]]
    kept = Context(frozenset(), context.doubtful) if form.space == "generic" else context
    write = writer(op.results[0], form.kind, op, kept) if op.opcode[0] == "atom" else None

    def run(frame: Frame, space: str, address: Value) -> None:
        chosen = frame.chosen(address)
        operands = [frame.chosen(read(frame)) for read in readers]
        if space == "local":
            raise Fault("out of bounds", "an atomic operation on a thread's own memory", frame.lane_of(0))
        before = np.empty(len(chosen), dtype)
        if space == "shared":
            place = frame.shared.place(frame, chosen, form.size)
            granules = frame.shared.granules(place, form.size)
            words = frame.shared.write(frame, op, granules, atomic=True)
            if not words.all():
                raise Fault(
                    "uninitialised", "an atomic operation on shared memory nobody has written", frame.lane_of(0)
                )
            before[:] = _update(frame.shared.rows(form.size, form.size).view(dtype), place, function, operands)
        else:
            for access in frame.memory.find(frame, chosen, form.size):
                frame.memory.write(frame, op, access, form.size, atomic=True)
                mine = slice(None) if access.chosen is None else access.chosen
                rows = access.allocation.rows(form.size, form.size).view(dtype)
                before[mine] = _update(rows, access.place, function, [operand[mine] for operand in operands])
        if write is not None:
            write(frame, frame.full(before))

    return _per_space(form, address_of(op.sources[0], op), run)


# Asynchronous copies.


def _copy_size(op: Op) -> int:
    size = op.sources[2]
    if not isinstance(size, Imm) or size.value not in (4, 8, 16):
        raise unknown(op, "copies 4, 8 or 16 bytes")
    return size.value


def _copied(frame: Frame, address: Array, counts: Array, size: int) -> Array:
    """The bytes of copies, as words [lane][number]: ``counts`` of them are read, the others are zero."""
    data = np.zeros((len(address), size), np.uint8)
    everyone = np.arange(len(address)) if frame.active is None else frame.active
    for count in (size,) if (counts == size).all() else np.unique(counts[counts > 0]):
        chosen = np.flatnonzero(counts == count)
        crooked = address[chosen] & np.uint64(size - 1) != 0
        if crooked.any():
            lane = int(everyone[chosen[crooked.argmax()]])
            raise Fault("misaligned", f"copies {size} bytes from an address that is not a multiple of them", lane)
        mask = np.zeros(frame.batch.lanes, np.bool_)
        mask[everyone[chosen]] = True
        # A part of the whole size is read byte by byte.
        step = size if count == size else 1
        with frame.narrowed(mask):
            for start in range(0, int(count), step):
                for access in frame.memory.find(frame, address[chosen] + np.uint64(start), step):
                    frame.memory.read(frame, access, step)
                    lanes = chosen if access.chosen is None else chosen[access.chosen]
                    whole = access.allocation.bytes[: len(access.allocation.bytes) // step * step]
                    data[lanes, start : start + step] = whole.reshape(-1, step)[access.place]
    return data.view(np.uint32)


def _copy(op: Op) -> Step:
    size = _copy_size(op)
    for part in op.opcode[2:]:
        if part.partition("::")[0] not in ("ca", "cg", "shared", "global", "L2") or part == "shared::cluster":
            raise unknown(op)
    if "cg" in op.opcode and size != 16:
        raise unknown(op, "copies 16 bytes")
    to, source = address_of(op.sources[0], op), address_of(op.sources[1], op)
    count = ignored = None
    for extra in op.sources[3:]:
        if getattr(extra, "type", "") == "pred":
            ignored = reader(extra, "pred", op)
        elif count is None:
            count = reader(extra, "u32", op)

    def run(frame: Frame) -> None:
        chosen = frame.chosen(to(frame))
        place = frame.shared.place(frame, chosen, size)
        granules = frame.shared.granules(place, size)
        counts = np.full(len(chosen), size, np.int64)
        if count is not None:
            counts = frame.chosen(count(frame)).astype(np.int64)
            if (counts > size).any():
                lane = frame.lane_of(int((counts > size).argmax()))
                raise Fault("out of bounds", f"copies {int(counts.max())} bytes into a place of {size}", lane)
        if ignored is not None:
            counts = np.where(frame.chosen(ignored(frame)), 0, counts)
        data = _copied(frame, frame.chosen(source(frame)), counts, size)
        frame.shared.write(frame, op, granules, begun=True)
        frame.copies.begin(frame, place, granules, data, size)

    return run


def _asynchronous(op: Op) -> Step:
    match op.opcode[1:]:
        case ("async", "commit_group"):
            return lambda frame: frame.copies.commit(frame)
        case ("async", "wait_group"):
            (pending,) = op.sources
            assert isinstance(pending, Imm)
            number = pending.value
            return lambda frame: frame.copies.wait(frame, number)
        case ("async", "wait_all"):

            def wait_all(frame: Frame) -> None:
                frame.copies.commit(frame)
                frame.copies.wait(frame, 0)

            return wait_all
        case ("async", *_) if len(op.sources) >= 3 and "bulk" not in op.opcode:
            return _copy(op)
        case _:
            raise unknown(op)


def _nothing(frame: Frame) -> None:
    """For instructions without a meaning here: hints, and fences, whose order the interpreter keeps anyway."""


def build(op: Op, context: Context) -> Step | None:
    """The step, or None where the instruction does not access memory."""
    match op.opcode[0]:
        case "ld" | "ldu":
            return _load(op, context)
        case "st":
            return _store(op, context)
        case "atom" | "red" if "async" not in op.opcode:
            return _atomic(op, context)
        case "cp":
            return _asynchronous(op)
        case "prefetch" | "prefetchu" | "membar" | "nanosleep" | "pmevent" | "discard" | "applypriority":
            return _nothing
        case "fence" if "proxy" not in op.opcode:
            return _nothing
        case _:
            return None
