"""Global and local memory. Every array is an allocation of its own, with nothing but faults between them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from convgen.targets.cuda.interp.batch import Batch
from convgen.targets.cuda.interp.fault import Fault
from convgen.targets.cuda.interp.lanes import Lanes
from convgen.targets.cuda.interp.program import Op
from convgen.targets.cuda.interp.shared import ATOMIC, SEVERAL, THREAD_BITS, THREAD_MASK
from convgen.targets.cuda.interp.types import Array, Value, unsigned

_BLOCK_BITS = 20
_WHO_BITS = THREAD_BITS + _BLOCK_BITS
_WHO_MASK = (1 << _WHO_BITS) - 1
# In place of a block: several, by atomic operations alone.
_ATOMIC_BLOCKS = (1 << _BLOCK_BITS) - 1
MAX_BLOCKS = _ATOMIC_BLOCKS - 1
_SEVERAL = -1


@dataclass
class Allocation:
    """Bytes at an address. Granules of writable ones know who wrote them (``tick, block, thread``) and which block reads them."""

    name: str
    base: int
    bytes: Array
    writable: bool
    granule: int
    writers: Array = field(init=False)
    readers: Array = field(init=False)
    lines: Array = field(init=False)
    written: bool = False

    def __post_init__(self) -> None:
        count = -(-len(self.bytes) // self.granule) if self.writable else 0
        self.writers = np.zeros(count, np.int64)
        self.readers = np.zeros(count, np.int32)
        self.lines = np.zeros(count, np.int32)

    @property
    def end(self) -> int:
        return self.base + len(self.bytes)

    def rows(self, size: int, element: int) -> Array:
        """Memory as rows of ``size`` bytes, of elements of ``element`` bytes; bytes after the last whole row are left out."""
        count = len(self.bytes) // size
        flat = self.bytes[: count * size].view(unsigned(8 * element))
        return flat if size == element else flat.reshape(count, size // element)

    def granules(self, place: Value, size: int) -> Array:
        """The granules of accesses, [lane] or [lane][number]."""
        count = size // self.granule
        if count == 0:
            return np.asarray(place) * size // self.granule
        return place if count == 1 else np.asarray(place)[..., None] * count + np.arange(count)


@dataclass(frozen=True, slots=True)
class Access:
    """The part of an instruction's accesses that lie in one allocation. ``chosen`` are their numbers among the lanes at work."""

    allocation: Allocation
    place: Value
    chosen: Array | None


class GlobalMemory:
    """All allocations of a launch."""

    def __init__(self, allocations: Sequence[Allocation], *, races: bool) -> None:
        self._allocations = sorted(allocations, key=lambda allocation: allocation.base)
        self._bases = [allocation.base for allocation in self._allocations]
        self._races = races

    # Places.

    def find(self, lanes: Lanes, address: Value, size: int) -> list[Access]:
        """The accesses to each allocation; ``address`` is [lane at work], or one for all of them."""
        crooked = address & np.uint64(size - 1)
        if crooked.any():
            lane = int((np.atleast_1d(crooked) != 0).argmax())
            raise Fault(
                "misaligned",
                f"global address {self._name(int(np.atleast_1d(address)[lane]))} is not a multiple of the {size} bytes "
                "accessed",
                lanes.lane_of(lane),
            )
        low = int(address.min())
        allocation = self._allocation(low)
        if allocation is not None and int(address.max()) + size <= allocation.end:
            return [
                Access(
                    allocation,
                    (address - np.uint64(allocation.base) >> np.uint64(size.bit_length() - 1)).astype(np.int64),
                    None,
                )
            ]
        address = np.atleast_1d(address)
        which = np.searchsorted(np.array(self._bases, np.uint64), address, side="right").astype(np.int64) - 1
        found = []
        for number in np.unique(which):
            chosen = np.flatnonzero(which == number)
            there = address[chosen]
            if number < 0:
                self._outside(lanes, int(there[0]), int(chosen[0]), size)
            allocation = self._allocations[number]
            beyond = there > np.uint64(max(allocation.end - size, 0))
            if beyond.any():
                first = int(beyond.argmax())
                self._outside(lanes, int(there[first]), int(chosen[first]), size)
            found.append(
                Access(
                    allocation,
                    (there - np.uint64(allocation.base) >> np.uint64(size.bit_length() - 1)).astype(np.int64),
                    chosen,
                )
            )
        return found

    def _allocation(self, address: int) -> Allocation | None:
        number = bisect_right(self._bases, address) - 1
        return self._allocations[number] if number >= 0 else None

    def _name(self, address: int) -> str:
        allocation = self._allocation(address)
        return (
            hex(address) if allocation is None else f"{hex(address)} ({allocation.name} + {address - allocation.base})"
        )

    def _outside(self, lanes: Lanes, address: int, chosen: int, size: int) -> None:
        """Raises for an address in no allocation, naming the nearest."""
        before, number = self._allocation(address), bisect_right(self._bases, address)
        after = self._allocations[number] if number < len(self._bases) else None
        place = "where there are no arrays"
        if before is not None and (after is None or address - before.end < after.base - address):
            place = f"{address + size - before.end} bytes beyond the end of {before.name} ({len(before.bytes)} bytes)"
        elif after is not None:
            place = f"{after.base - address} bytes before {after.name}"
        raise Fault(
            "out of bounds", f"{size} bytes at global address {hex(address)} are {place}", lanes.lane_of(chosen)
        )

    # Rules.

    def read(self, lanes: Lanes, access: Access, size: int, *, constant: bool = False) -> None:
        """Holds a read against the shadow: what another block writes, or another thread wrote since the last barrier.

        ``constant`` reads, whose caches do not see writes, must not meet any write of the launch.

        That a thread of the same block writes later what was read is not noticed here, as it is in shared memory.
        """
        allocation = access.allocation
        if not allocation.writable or not self._races:
            return
        granules = allocation.granules(access.place, size)
        if allocation.written:
            words = allocation.writers[granules]
            if constant and words.any():
                where = self._lanes(lanes, access)[
                    int(np.argmax(np.reshape(words, (np.size(access.place), -1)).any(axis=1)))
                ]
                raise Fault("race", f"reads {allocation.name} as constant (.nc), which the launch writes", int(where))
            self._hold(lanes, access, words, granules, "reads", atomic=False)
        numbers = self._lanes(lanes, access)
        block = (lanes.batch.grid_block[numbers] + 1).astype(np.int32)
        if np.ndim(access.place) == 0:
            granules = np.broadcast_to(granules, (len(numbers), *np.shape(granules)))
        block = block if granules.ndim == 1 else np.broadcast_to(block[:, None], granules.shape)
        before = allocation.readers[granules]
        if (before == block).all():
            return
        after = np.where((before == 0) | (before == block), block, np.int32(_SEVERAL))
        allocation.readers[granules] = after
        differs = allocation.readers[granules] != after
        if differs.any():
            allocation.readers[granules[differs]] = _SEVERAL

    def write(self, lanes: Lanes, op: Op, access: Access, size: int, *, atomic: bool = False) -> None:
        """Holds a write against the shadow and notes it."""
        allocation = access.allocation
        numbers = self._lanes(lanes, access)
        if not allocation.writable:
            raise Fault("read-only", f"writes {allocation.name}, which is read-only", int(numbers[0]))
        if not self._races:
            return
        granules = allocation.granules(access.place, size)
        words = allocation.writers[granules]
        if allocation.written:
            self._hold(lanes, access, words, granules, "writes", atomic=atomic)
        block = lanes.batch.grid_block[numbers]
        block = block if granules.ndim == 1 else np.broadcast_to(block[:, None], granules.shape)
        readers = allocation.readers[granules]
        race = (readers != 0) & (readers != block + 1)
        if race.any():
            first = np.unravel_index(int(race.argmax()), race.shape)
            who = "several blocks read" if readers[first] == _SEVERAL else f"block {int(readers[first]) - 1} reads"
            where = f"{allocation.name} + {int(granules[first]) * allocation.granule}"
            raise Fault("race", f"writes {where}, which {who} in the same launch", int(numbers[first[0]]))
        thread = lanes.batch.thread[numbers]
        thread = thread if granules.ndim == 1 else np.broadcast_to(thread[:, None], granules.shape)
        if atomic:
            before = words & THREAD_MASK
            others = (before & ATOMIC != 0) & (before != thread | ATOMIC)
            block = np.where((words != 0) & ((words & _WHO_MASK) >> THREAD_BITS != block), _ATOMIC_BLOCKS, block)
            thread = np.where(others, SEVERAL, thread | ATOMIC)
        tags = (lanes.clock.tick << _WHO_BITS) | (block << THREAD_BITS) | thread
        allocation.writers[granules] = tags
        now = allocation.writers[granules]
        clash = now != tags
        if clash.any():
            if not atomic:
                self._race(access, numbers, clash, now, granules, "writes")
            places = granules[clash]
            elsewhere = (allocation.writers[places] & _WHO_MASK) >> THREAD_BITS != block[clash]
            allocation.writers[places] |= SEVERAL
            allocation.writers[places[elsewhere]] |= _ATOMIC_BLOCKS << THREAD_BITS
        allocation.lines[granules] = op.line
        allocation.written = True

    def _lanes(self, lanes: Lanes, access: Access) -> Array:
        active = np.arange(lanes.batch.lanes) if lanes.active is None else lanes.active
        return active if access.chosen is None else active[access.chosen]

    def _hold(self, lanes: Lanes, access: Access, words: Value, granules: Array, verb: str, *, atomic: bool) -> None:
        if not words.any():
            return
        numbers = self._lanes(lanes, access)
        own = lanes.batch.thread[numbers]
        block = lanes.batch.grid_block[numbers]
        floor = np.broadcast_to(lanes.clock.floor(numbers), numbers.shape)
        warp_floor = lanes.clock.warp_floor[numbers]
        if np.ndim(access.place) == 0:
            words = np.broadcast_to(words, (len(numbers), *np.shape(words)))
            granules = np.broadcast_to(granules, words.shape)
        if words.ndim == 2:
            own, block, floor, warp_floor = own[:, None], block[:, None], floor[:, None], warp_floor[:, None]
        other, home, tick = words & THREAD_MASK, (words & _WHO_MASK) >> THREAD_BITS, words >> _WHO_BITS
        plain = other & ~ATOMIC
        ordered = (tick <= floor) | ((plain >> 5 == own >> 5) & (tick <= warp_floor))
        race = (words != 0) & ((home != block) | ((plain != own) & ~ordered))
        if atomic:
            race &= other & ATOMIC == 0
        if race.any():
            self._race(access, numbers, race, words, granules, verb)

    def _race(self, access: Access, numbers: Array, race: Array, words: Array, granules: Array, verb: str) -> None:
        first = np.unravel_index(int(race.argmax()), race.shape)
        word, granule = int(words[first]), int(granules[first])
        thread, block = word & THREAD_MASK, (word & _WHO_MASK) >> THREAD_BITS
        who = "an atomic operation" if thread & ATOMIC else f"thread {thread} of block {block}"
        allocation = access.allocation
        raise Fault(
            "race",
            f"{verb} {allocation.name} + {granule * allocation.granule}, which {who} writes "
            f"(PTX line {int(allocation.lines[granule])}) with nothing to order them",
            int(numbers[first[0]]),
        )


class LocalMemory:
    """Each thread's own memory."""

    def __init__(self, batch: Batch, size: int) -> None:
        self.size = -(-size // 16) * 16
        self.bytes = np.zeros(batch.lanes * self.size, np.uint8)
        self._base = np.arange(batch.lanes, dtype=np.int64) * self.size

    def place(self, lanes: Lanes, address: Array, size: int) -> Array:
        """Where each lane at work accesses ``size`` bytes, in units of them."""
        bad = (address > np.uint64(max(self.size - size, 0))) | (address & np.uint64(size - 1) != 0)
        if bad.any() or size > self.size:
            lane = int(bad.argmax())
            kind = "misaligned" if int(address[lane]) % size else "out of bounds"
            raise Fault(kind, f"{size} bytes at local address {int(address[lane])} of {self.size}", lanes.lane_of(lane))
        base = self._base if lanes.active is None else self._base[lanes.active]
        return (base + address.view(np.int64)) // size

    def rows(self, size: int, element: int) -> Array:
        """Memory as rows of ``size`` bytes, of elements of ``element`` bytes."""
        flat = self.bytes.view(unsigned(8 * element))
        return flat if size == element else flat.reshape(-1, size // element)
