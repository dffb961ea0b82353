"""Memory that notices who leaves it: arrays against pages without access, filled with poison beforehand.

A read or write beyond the fenced end of an array ends the process with a signal, so this is for processes that may end. On the
other side, and where there are no fences, poison lies around an array: what is read there spoils the numbers, and what is
written there is found afterwards.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from typing import Literal

import numpy as np
import numpy.typing as npt

from convgen.errors import ShapeError
from convgen.runtime.workspace import ALIGNMENT

Side = Literal["begin", "end"]
PAGE = mmap.PAGESIZE
# Bytes that are not numbers in every floating-point type (and -1), and large numbers in every type.
NOT_A_NUMBER, LARGE = 0xFF, 0x7F

_PROT_NONE = 0


class FencedMemory:
    """Hands out arrays whose ``side`` lies against a fence, filled with the byte ``poison``.

    With ``fenced`` the fence is a page that cannot be touched, else a page of poison.
    """

    def __init__(self, side: Side, poison: int, *, fenced: bool = True) -> None:
        self._side = side
        self._poison = poison
        self._fenced = fenced
        # Of each array its whole block, and where in it the array begins and ends.
        self._blocks: list[tuple[npt.NDArray[np.uint8], int, int]] = []

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike, alignment: int = 0) -> npt.NDArray[np.generic]:
        """A poisoned C-contiguous array at a multiple of ``alignment`` bytes (0: of an element's size).

        Between its end and the fence there may be less than the alignment. Raises ShapeError for a negative extent and OSError.
        """
        if any(extent < 0 for extent in shape):
            raise ShapeError(f"shape={shape!r} has a negative extent; allowed: 0 and more")
        element = np.dtype(dtype)
        nbytes = math.prod(shape) * element.itemsize
        pages = max(1, -(-nbytes // PAGE))
        block = np.frombuffer(mmap.mmap(-1, (pages + 2) * PAGE), np.uint8)
        block[:] = self._poison
        begin = PAGE
        if self._side == "end":
            begin = (pages + 1) * PAGE - nbytes
            begin -= begin % (alignment or max(1, element.itemsize))
        if self._fenced:
            for fence in (0, (pages + 1) * PAGE):
                _forbid(int(block.ctypes.data) + fence)
        self._blocks.append((block, begin, begin + nbytes))
        return np.ndarray(shape, element, buffer=block, offset=begin)

    def scratch(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
        """The same, as aligned as scratch memory is: in the place of ``aligned_empty``."""
        return self.empty(shape, dtype, ALIGNMENT)

    def copied(self, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """A copy of an array."""
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy

    def is_intact(self) -> bool:
        """Whether all poison around all arrays is still there."""
        return all(
            bool(np.all(margin == self._poison))
            for block, begin, end in self._blocks
            for margin in (block[self._first :][: begin - self._first], block[end : block.size - self._first])
        )

    @property
    def _first(self) -> int:
        """How much of a block's ends nobody may look at."""
        return PAGE if self._fenced else 0


def _forbid(address: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    protect = library.mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if protect(address, PAGE, _PROT_NONE):
        error = ctypes.get_errno()
        raise OSError(error, f"mprotect refuses a page: errno {error}")
