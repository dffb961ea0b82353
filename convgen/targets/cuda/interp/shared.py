"""Shared memory of a batch of blocks, with a shadow that knows who wrote what when.

Each granule (the narrowest access that the kernel makes) has a word: 0 while nothing was written, -1 outside of all arrays,
``tick * 4096 + thread`` after a write, and minus that while an asynchronous copy is under way. A read of what another thread
wrote since the last barrier is a race; so is a write. A write of what another thread has read is found at the next barrier,
from a log of the reads, so that reads that no write follows cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convgen.targets.cuda.interp.batch import Batch
from convgen.targets.cuda.interp.fault import Fault
from convgen.targets.cuda.interp.lanes import Lanes
from convgen.targets.cuda.interp.layout import Layout
from convgen.targets.cuda.interp.program import Op
from convgen.targets.cuda.interp.types import Array, unsigned

THREAD_BITS = 12
THREAD_MASK = (1 << THREAD_BITS) - 1
# Flags beside the thread's number: an atomic operation, and several threads' atomic operations. They do not race with each other.
ATOMIC = 1 << 10
SEVERAL = 1 << 11 | ATOMIC
_OUTSIDE = -1
# A log of more reads than this is summed up in one word a granule.
_LONGEST_LOG = 64


@dataclass(frozen=True, slots=True)
class _Read:
    """One instruction's reads: granules and lanes, which are None for all; ``writes`` had been made before it."""

    op: Op
    granules: Array
    active: Array | None
    tick: int
    writes: int


class SharedMemory:
    """One row of bytes per block."""

    def __init__(self, batch: Batch, layout: Layout, dynamic: int, granule: int, *, races: bool) -> None:
        self._batch = batch
        self._granule = granule
        self._races = races
        self.size = layout.shared_end(dynamic)
        self.bytes = np.zeros(batch.blocks * self.size, np.uint8)
        row = np.full(self.size // granule, _OUTSIDE, np.int64)
        ranges = list(layout.shared)
        if layout.dynamic is not None:
            ranges.append((layout.dynamic, layout.dynamic + dynamic))
        for start, stop in ranges:
            row[start // granule : -(-stop // granule)] = 0
        self._words = np.tile(row, batch.blocks)
        self._lines = np.zeros(len(self._words), np.int32)
        # Where each lane's block begins, in units of 1, 2, 4, 8 and 16 bytes.
        self._bases = [batch.block * (self.size >> shift) for shift in range(5)]
        self._ops: dict[int, Op] = {}
        self._log: list[_Read] = []
        self._writes = 0
        self._readers: Array | None = None

    # Places.

    def place(self, lanes: Lanes, address: Array, size: int) -> Array:
        """Where each lane at work accesses ``size`` bytes, in units of them. Faults outside of memory and where misaligned."""
        # Two reductions tell that all is well; only faults look at single lanes.
        if len(address) and int(address.max()) > self.size - size:
            lane = int((address > np.uint64(self.size - size)).argmax())
            raise Fault(
                "out of bounds",
                f"shared address {int(address[lane])} of {size} bytes is beyond the {self.size} bytes of the block",
                lanes.lane_of(lane),
            )
        if int(np.bitwise_or.reduce(address)) & (size - 1):
            lane = int((address & np.uint64(size - 1) != 0).argmax())
            raise Fault(
                "misaligned",
                f"shared address {int(address[lane])} is not a multiple of the {size} bytes accessed",
                lanes.lane_of(lane),
            )
        shift = size.bit_length() - 1
        base = self._bases[shift] if lanes.active is None else self._bases[shift][lanes.active]
        place: Array = base + (address >> np.uint64(shift)).view(np.int64)
        return place

    def rows(self, size: int, element: int) -> Array:
        """Memory as rows of ``size`` bytes, of elements of ``element`` bytes."""
        flat = self.bytes.view(unsigned(8 * element))
        return flat if size == element else flat.reshape(-1, size // element)

    def granules(self, place: Array, size: int) -> Array:
        """The granules of accesses, [lane] or [lane][number]."""
        count = size // self._granule
        return place if count == 1 else place[:, None] * count + np.arange(count)

    # Rules.

    def read(self, lanes: Lanes, op: Op, granules: Array, thread: int | None = None) -> None:
        """Holds a read by the lanes at work against the shadow, and notes it. ``thread`` stands for the lanes' own."""
        words = self._words.take(granules)
        if not words.size:
            return
        if words.min() <= 0:
            self._refuse(lanes, words, granules, "reads", uninitialised=True)
        if not self._races:
            return
        race = self._unordered(lanes, words, lanes.active, thread)
        if race is not None:
            self._race(lanes, race, words, granules, "reads", "wrote")
        self._log.append(_Read(op, granules, lanes.active, lanes.clock.tick, self._writes))
        if len(self._log) > _LONGEST_LOG:
            self._sum_up(lanes)

    def write(self, lanes: Lanes, op: Op, granules: Array, *, atomic: bool = False, begun: bool = False) -> Array:
        """Holds a write against the shadow and notes it; ``begun`` starts an asynchronous one. Returns the words before."""
        words = self._words[granules]
        if not words.size:
            return words
        if words.min() < 0:
            self._refuse(lanes, words, granules, "writes", uninitialised=False)
        tags = self._tags(lanes, granules, lanes.active)
        if self._races:
            race = self._unordered(lanes, words, lanes.active, None)
            if atomic:
                others = np.zeros(words.shape, np.bool_) if race is None else race & (words & ATOMIC != 0)
                race = None if race is None else race & ~others
                tags = np.where(others, tags | SEVERAL, tags | ATOMIC)
            if race is not None and race.any():
                self._race(lanes, race, words, granules, "writes", "wrote")
        self._words[granules] = -tags if begun else tags
        if self._races:
            now = np.abs(self._words[granules])
            clash = now != tags
            if clash.any():
                if not atomic:
                    self._race(lanes, clash, now, granules, "writes", "writes at the same time")
                self._words[granules[clash]] |= SEVERAL
        self._lines[granules] = op.line
        self._ops[op.line] = op
        self._writes += 1
        return words

    def arrive(self, lanes: Lanes, granules: Array, active: Array | None) -> None:
        """An asynchronous copy of the lanes ``active`` is there, for them alone until the next barrier."""
        self._words[granules] = self._tags(lanes, granules, active)
        self._writes += 1

    def _tags(self, lanes: Lanes, granules: Array, active: Array | None) -> Array:
        thread = self._batch.thread if active is None else self._batch.thread[active]
        tags = thread + (lanes.clock.tick << THREAD_BITS)
        return tags if granules.ndim == 1 else np.broadcast_to(tags[:, None], granules.shape)

    def _unordered(
        self, lanes: Lanes, words: Array, active: Array | None, thread: int | None, before: int | None = None
    ) -> Array | None:
        """Where an access by another thread is not ordered with one by the lanes, None where all are.

        ``before`` is given for reads that were made at that tick, and that are held against writes made since.
        """
        floor = lanes.clock.floor(active)
        ceiling = ((floor + 1) << THREAD_BITS) - 1
        if words.max() <= ceiling.min():
            return None
        own = self._batch.thread if active is None else self._batch.thread[active]
        warp_floor = lanes.clock.warp_floor if active is None else lanes.clock.warp_floor[active]
        me = own if thread is None else np.full_like(own, thread)
        if words.ndim == 2:
            own, me, warp_floor = own[:, None], me[:, None], warp_floor[:, None]
            ceiling = ceiling[:, None] if ceiling.ndim else ceiling
        other = words & THREAD_MASK
        race = (words > ceiling) & (other & ~ATOMIC != me)
        if race.any():
            same_warp = (other & ~ATOMIC) >> 5 == own >> 5
            tick = words >> THREAD_BITS
            race &= ~(same_warp & (tick <= warp_floor if before is None else tick != before))
        return race if race.any() else None

    # Reads that a write follows.

    def settle(self, lanes: Lanes, blocks: Array | None) -> None:
        """Before a barrier of some blocks (None: all), or their end: holds the reads since the last one against the writes."""
        kept: list[_Read] = []
        for read in self._log:
            if read.writes < self._writes:
                self._recheck(lanes, read)
            if blocks is not None:
                readers = np.arange(self._batch.lanes) if read.active is None else read.active
                stays = ~blocks[self._batch.block[readers]]
                if stays.any():
                    kept.append(_Read(read.op, read.granules[stays], readers[stays], read.tick, read.writes))
        self._log = kept
        if self._readers is not None:
            self._recheck_sum(lanes, blocks)

    def _recheck(self, lanes: Lanes, read: _Read) -> None:
        words = np.abs(self._words[read.granules])
        race = self._unordered(lanes, words, read.active, None, read.tick)
        if race is not None:
            first = np.unravel_index(int(race.argmax()), race.shape)
            granule = read.granules[first]
            lane = int(first[0] if read.active is None else read.active[first[0]])
            raise Fault("race", self._story("reads", int(words[first]), int(granule), "writes"), lane, read.op)

    def _sum_up(self, lanes: Lanes) -> None:
        """Replaces the log by the warp that read each granule, -1 for more than one."""
        self.settle_writes(lanes)
        if self._readers is None:
            self._readers = np.zeros(len(self._words), np.int32)
        for read in self._log:
            thread = self._batch.thread if read.active is None else self._batch.thread[read.active]
            warp = (thread >> 5).astype(np.int32) + np.int32(1)
            if read.granules.ndim == 2:
                warp = np.broadcast_to(warp[:, None], read.granules.shape)
            before = self._readers[read.granules]
            after = np.where((before == 0) | (before == warp), warp, np.int32(-1))
            self._readers[read.granules] = after
            differs = self._readers[read.granules] != after
            self._readers[read.granules[differs]] = -1
        self._log = []

    def settle_writes(self, lanes: Lanes) -> None:
        """Holds the logged reads against the writes so far."""
        for read in self._log:
            if read.writes < self._writes:
                self._recheck(lanes, read)

    def _recheck_sum(self, lanes: Lanes, blocks: Array | None) -> None:
        assert self._readers is not None
        granules = np.flatnonzero(self._readers)
        if len(granules):
            words = np.abs(self._words[granules])
            block = granules * self._granule // self.size
            fresh = (words >> THREAD_BITS) > lanes.clock.block_floors[block]
            warp = ((words & THREAD_MASK & ~ATOMIC) >> 5) + 1
            race = fresh & (self._readers[granules] != warp)
            if race.any():
                first = int(race.argmax())
                lane = (
                    int(block[first]) * self._batch.threads
                    + (int(words[first]) & THREAD_MASK) % ATOMIC % self._batch.threads
                )
                reason = self._story("writes", int(words[first]), int(granules[first]), "writes")
                blamed = self._ops.get(int(self._lines[granules[first]]))
                raise Fault("race", f"{reason}, and other warps read it before", lane, blamed)
        if blocks is None:
            self._readers = None
        else:
            self._readers.reshape(self._batch.blocks, -1)[blocks] = 0

    # Words for faults.

    def _story(self, verb: str, word: int, granule: int, other_verb: str) -> str:
        offset = granule * self._granule % self.size
        thread = word & THREAD_MASK
        who = "an atomic operation" if thread & ATOMIC else f"thread {thread} of the block"
        line = int(self._lines[granule])
        return f"{verb} shared address {offset}, which {who} {other_verb} (PTX line {line}) with no barrier between"

    def _race(self, lanes: Lanes, race: Array, words: Array, granules: Array, verb: str, other_verb: str) -> None:
        first = np.unravel_index(int(race.argmax()), race.shape)
        reason = self._story(verb, int(words[first]), int(granules[first]), other_verb)
        raise Fault("race", reason, lanes.lane_of(int(first[0])))

    def _refuse(self, lanes: Lanes, words: Array, granules: Array, verb: str, *, uninitialised: bool) -> None:
        """Raises for what is outside of all arrays, under way or, if asked, never written."""
        bad = words <= 0 if uninitialised else words < 0
        first = np.unravel_index(int(bad.argmax()), bad.shape)
        word, granule = int(words[first]), int(granules[first])
        offset = granule * self._granule % self.size
        lane = lanes.lane_of(int(first[0]))
        if word == _OUTSIDE:
            raise Fault("out of bounds", f"{verb} shared address {offset}, which belongs to no array", lane)
        if word == 0:
            raise Fault("uninitialised", f"{verb} shared address {offset}, which nobody has written", lane)
        line = int(self._lines[granule])
        raise Fault(
            "in flight",
            f"{verb} shared address {offset}, to which thread {-word & THREAD_MASK} copies since PTX line {line} without "
            "having waited for it",
            lane,
        )
