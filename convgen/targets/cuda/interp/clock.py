"""Time, as barriers see it: what happened before a block's last barrier is ordered before all that its threads do now."""

from __future__ import annotations

import numpy as np

from convgen.targets.cuda.interp.batch import Batch
from convgen.targets.cuda.interp.types import Array, Value


class Clock:
    """Counts barriers and warp barriers of a launch. An access at a tick up to ``floor`` is ordered before the present."""

    def __init__(self) -> None:
        self.tick = 1

    def start(self, batch: Batch) -> None:
        """A new batch of blocks: nothing of it has happened."""
        self._block = batch.block
        self._block_floor = np.full(batch.blocks, self.tick, np.int64)
        self._uniform: int | None = self.tick
        self.warp_floor = np.full(batch.lanes, self.tick, np.int64)
        self.tick += 1

    def barrier(self, blocks: Array | None) -> None:
        """All threads of some blocks (a mask, None for all) have met."""
        if blocks is None:
            self._uniform = self.tick
            self._block_floor[:] = self.tick
        else:
            self._uniform = None
            self._block_floor[blocks] = self.tick
        self.tick += 1

    def warp_barrier(self, lanes: Array) -> None:
        """The lanes of a mask have met the others of their warps."""
        self.warp_floor[lanes] = self.tick
        self.tick += 1

    def floor(self, active: Array | None) -> Value:
        """The floor of each lane at work, one number where all have the same."""
        if self._uniform is not None:
            return np.int64(self._uniform)
        return self._block_floor[self._block if active is None else self._block[active]]

    @property
    def block_floors(self) -> Array:
        return self._block_floor
