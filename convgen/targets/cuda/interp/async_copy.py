"""cp.async: copies that have been asked for and arrive, at the latest moment allowed, when their thread waits for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convgen.targets.cuda.interp.batch import Batch
from convgen.targets.cuda.interp.lanes import Lanes
from convgen.targets.cuda.interp.shared import SharedMemory
from convgen.targets.cuda.interp.types import Array, Value


@dataclass(frozen=True, slots=True)
class _Copy:
    """One instruction's copies: lanes, places and granules in shared memory, bytes [lane][number], group of each lane."""

    lanes: Array
    place: Array
    granules: Array
    data: Array
    size: int
    group: Value


class AsyncCopies:
    """The copies under way of a batch of blocks; each thread counts groups of its own."""

    def __init__(self, batch: Batch, shared: SharedMemory) -> None:
        self._batch = batch
        self._shared = shared
        self._everyone = np.arange(batch.lanes)
        self._committed: Value = np.int64(0)
        self._copies: list[_Copy] = []

    def _of(self, numbers: Array) -> Value:
        return self._committed if not self._committed.ndim else self._committed[numbers]

    def begin(self, lanes: Lanes, place: Array, granules: Array, data: Array, size: int) -> None:
        """Copies by the lanes at work, which join the group that each has open."""
        own = self._everyone if lanes.active is None else lanes.active
        self._copies.append(_Copy(own, place, granules, data, size, self._of(own)))

    def commit(self, lanes: Lanes) -> None:
        """The lanes at work close their groups."""
        if lanes.mask is None:
            self._committed = self._committed + 1
        else:
            self._committed = np.broadcast_to(self._committed, (self._batch.lanes,)) + lanes.mask

    def wait(self, lanes: Lanes, pending: int) -> None:
        """The lanes at work wait until at most ``pending`` of their closed groups are under way."""
        kept: list[_Copy] = []
        for copy in self._copies:
            done = copy.group < self._of(copy.lanes) - pending
            if lanes.mask is None and not done.ndim:
                if done:
                    self._arrive(lanes, copy, None)
                else:
                    kept.append(copy)
                continue
            done = np.broadcast_to(done, copy.lanes.shape)
            if lanes.mask is not None:
                done = done & lanes.mask[copy.lanes]
            if done.any():
                self._arrive(lanes, copy, done)
            if not done.all():
                kept.append(_part(copy, ~done))
        self._copies = kept

    def _arrive(self, lanes: Lanes, copy: _Copy, done: Array | None) -> None:
        part = copy if done is None else _part(copy, done)
        self._shared.rows(part.size, 4)[part.place] = part.data if part.size > 4 else part.data[:, 0]
        self._shared.arrive(lanes, part.granules, part.lanes)


def _part(copy: _Copy, chosen: Array) -> _Copy:
    group = copy.group if not copy.group.ndim else copy.group[chosen]
    return _Copy(copy.lanes[chosen], copy.place[chosen], copy.granules[chosen], copy.data[chosen], copy.size, group)
