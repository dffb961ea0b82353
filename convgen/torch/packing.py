"""Packed weights that are kept as long as the weights are what they were."""

from __future__ import annotations

import functools
import weakref
import zlib
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

from convgen.torch import devices

Packed = TypeVar("Packed")

# Weights of up to so many elements are compared as a whole; of more, so many elements are.
WHOLE, SAMPLES = 1 << 14, 1 << 12
# Packed for so many kinds of kernels at most; they differ by the image's size, for one.
MAX_KINDS = 4

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class PackedCache:
    """One weight, packed for the kernels that have asked for it.

    What is kept belongs to one tensor object and its version, and to its contents: a checksum, of many elements that of a
    sample, is compared at each call, since changes through ``Tensor.data`` leave no trace in the version. On a GPU that would
    make each call wait for the device, so that such changes are not noticed there. Copies and pickles are empty.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        # The tensor, what it was, and what was made of it.
        self._kept: tuple[weakref.ref[torch.Tensor] | None, Any, dict[Hashable, Any]] = (None, None, {})

    def __reduce__(self) -> tuple[Any, ...]:
        return (PackedCache, ())

    def packed(self, kind: Hashable, weight: torch.Tensor, pack: Callable[[torch.Tensor], Packed]) -> Packed | None:
        """The weight packed for operators of a kind, now by ``pack`` if it is not kept; None where its version cannot be told."""
        state = _state(weight)
        if state is None:
            return None
        tensor, then, kinds = self._kept
        if tensor is None or tensor() is not weight or then != state:
            kinds = {}
        found: Packed | None = kinds.get(kind)
        if found is None:
            found = pack(weight.contiguous())
            others = dict(list(kinds.items())[1 - MAX_KINDS :])
            self._kept = (weakref.ref(weight), state, {**others, kind: found})
        return found

    def clear(self) -> None:
        """Drops what is kept."""
        self._kept = (None, None, {})


def _state(weight: torch.Tensor) -> tuple[Any, ...] | None:
    """What changes with a tensor's contents; None for a tensor of inference mode or one that overlaps itself."""
    if weight.is_inference():
        return None
    strides, count = weight.stride(), weight.numel()
    extent = 1 + sum((size - 1) * stride for size, stride in zip(weight.shape, strides, strict=True))
    if extent != count:
        return None
    known = (weight.data_ptr(), weight._version, weight.shape, strides, weight.dtype)
    if devices.gpu_of(weight) is not None:
        return known
    with torch.no_grad():
        bits = weight.detach().view(_INTEGERS[weight.element_size()]).as_strided((count,), (1,))
        sample = bits if count <= WHOLE else bits.take(_places(count))
    return *known, zlib.crc32(sample.numpy())


@functools.lru_cache(maxsize=256)
def _places(count: int) -> torch.Tensor:
    """Where a sample of so many elements is taken: one place of chance in each of SAMPLES parts, which meets every slice."""
    step = count // SAMPLES
    chance = torch.randint(step, (SAMPLES,), generator=torch.Generator().manual_seed(count))
    return torch.arange(SAMPLES) * step + chance
