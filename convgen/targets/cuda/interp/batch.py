"""Blocks that run together."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.targets.cuda.interp.types import Array


@dataclass(frozen=True, slots=True)
class Batch:
    """Blocks that run in step. Lane ``b * threads + t`` is thread ``t`` of the batch's block ``b``.

    ``thread``, ``block`` (in the batch) and ``grid_block`` (in the grid) are per lane, as int64.
    """

    first: int
    blocks: int
    threads: int
    thread: Array
    block: Array
    grid_block: Array

    @property
    def lanes(self) -> int:
        return self.blocks * self.threads

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return -(-self.threads // 32)
