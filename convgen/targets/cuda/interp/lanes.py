"""Which of a batch's threads are at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from convgen.targets.cuda.interp.batch import Batch
from convgen.targets.cuda.interp.clock import Clock
from convgen.targets.cuda.interp.types import Array, Value


class Lanes:
    """The threads of a batch. ``mask`` is None where all are at work; ``merge`` says whether the others keep their registers."""

    def __init__(self, batch: Batch, clock: Clock) -> None:
        self.batch = batch
        self.clock = clock
        self.live = np.ones(batch.lanes, np.bool_)
        self.mask: Array | None = None
        self.merge = False
        self._active: Array | None = None

    def enter(self, mask: Array | None, *, merge: bool) -> None:
        """Sets the lanes at work."""
        self.mask = mask
        self.merge = merge
        self._active = None

    @property
    def active(self) -> Array | None:
        """The numbers of the lanes at work, None for all."""
        if self.mask is not None and self._active is None:
            self._active = np.flatnonzero(self.mask)
        return self._active

    @property
    def working(self) -> Array:
        """The mask, as an array in any case."""
        return np.ones(self.batch.lanes, np.bool_) if self.mask is None else self.mask

    @contextmanager
    def narrowed(self, mask: Array) -> Iterator[None]:
        """For a guarded instruction: only some of the lanes work."""
        kept = (self.mask, self.merge, self._active)
        self.enter(mask, merge=True)
        try:
            yield
        finally:
            self.mask, self.merge, self._active = kept

    def spread(self, value: Value) -> Array:
        """A value as one number per lane."""
        return value if value.ndim else np.broadcast_to(value, (self.batch.lanes,))

    def chosen(self, value: Value) -> Array:
        """The values of the lanes at work."""
        spread = self.spread(value)
        return spread if self.mask is None else spread[self.active]

    def full(self, chosen: Array) -> Array:
        """One number per lane from those of the lanes at work; others get 0."""
        if self.mask is None:
            return chosen
        made = np.zeros(self.batch.lanes, chosen.dtype)
        made[self.active] = chosen
        return made

    def lane_of(self, chosen: int) -> int:
        """The number of the lane that is the n-th of those at work."""
        return chosen if self.active is None else int(self.active[chosen])
