"""Aligned buffers, and pools of them for the workspaces of kernels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from convgen.errors import OptionError, ShapeError

ALIGNMENT = 64
# How memory of a shape and type is made.
Allocate = Callable[[tuple[int, ...], npt.DTypeLike], npt.NDArray[np.generic]]


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
    """Returns an uninitialised C-contiguous array of ``shape`` and ``dtype`` that starts at a multiple of 64 bytes.

    Raises ShapeError for a negative extent.
    """
    if any(extent < 0 for extent in shape):
        raise ShapeError(f"shape={shape!r} has a negative extent; allowed: 0 and more")
    element = np.dtype(dtype)
    raw = np.empty(math.prod(shape) * element.itemsize + ALIGNMENT, np.uint8)
    address: int = raw.__array_interface__["data"][0]
    return np.ndarray(shape, element, buffer=raw, offset=-address % ALIGNMENT)


class WorkspacePool:
    """Hands out 64-byte aligned buffers of ``nbytes`` bytes, as addresses; calls from many threads get different ones.

    A buffer is made when none is free and lives as long as the pool. A pool of 0 bytes hands out the address 0.
    """

    def __init__(self, nbytes: int, allocate: Allocate = aligned_empty) -> None:
        """``allocate`` makes memory that is aligned so. Raises OptionError when ``nbytes`` is negative."""
        if nbytes < 0:
            raise OptionError(f"nbytes={nbytes!r} is negative; allowed: 0 and more")
        self.nbytes = nbytes
        self._allocate = allocate
        # list.append and list.pop are atomic, so the free list needs no lock.
        self._free: list[int] = []
        self._buffers: list[npt.NDArray[np.generic]] = []

    @property
    def allocated_bytes(self) -> int:
        """Bytes of all buffers made so far."""
        return self.nbytes * len(self._buffers)

    def acquire(self) -> int:
        """Returns the address of a buffer that is the caller's until ``release``."""
        if not self.nbytes:
            return 0
        try:
            return self._free.pop()
        except IndexError:
            buffer = self._allocate((self.nbytes,), np.uint8)
        self._buffers.append(buffer)
        address: int = buffer.__array_interface__["data"][0]
        return address

    def release(self, address: int) -> None:
        """Gives back what ``acquire`` returned."""
        if address:
            self._free.append(address)
