"""Packed weights that are kept as long as the weights are what they were."""

from __future__ import annotations

import functools
import weakref
import zlib
from typing import Any

import torch

from convgen.operator import CompiledConv, PackedWeights

# Weights of up to so many elements are compared as a whole; of more, so many elements are.
WHOLE, SAMPLES = 1 << 14, 1 << 12
# Packed for so many kinds of kernels at most; they differ by the image's size, for one.
MAX_KINDS = 4

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class PackedCache:
    """One weight, packed for the kernels that have asked for it.

    What is kept belongs to one tensor object and its version, and to its contents: a checksum, of many elements that of a
    sample, is compared at each call, since changes through ``Tensor.data`` leave no trace in the version. Copies and pickles
    are empty.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: tuple[Any, dict[str, PackedWeights]] = (None, {})

    def __reduce__(self) -> tuple[Any, ...]:
        return (PackedCache, ())

    def packed(self, op: CompiledConv, weight: torch.Tensor) -> PackedWeights | None:
        """The weight packed for an operator; None where its version cannot be told."""
        state = _state(weight)
        if state is None:
            return None
        then, kinds = self._kept
        if then != state:
            kinds = {}
        found = kinds.get(op.weights_layout)
        if found is None:
            contiguous = weight.contiguous()
            found = op.pack_at(contiguous.data_ptr())
            others = dict(list(kinds.items())[1 - MAX_KINDS :])
            self._kept = (state, {**others, op.weights_layout: found})
        return found

    def clear(self) -> None:
        """Drops what is kept."""
        self._kept = (None, {})


def _state(weight: torch.Tensor) -> tuple[Any, ...] | None:
    """What tells a tensor and its contents from others; None for a tensor of inference mode or one that overlaps itself."""
    if weight.is_inference():
        return None
    strides, count = weight.stride(), weight.numel()
    extent = 1 + sum((size - 1) * stride for size, stride in zip(weight.shape, strides, strict=True))
    if extent != count:
        return None
    with torch.no_grad():
        bits = weight.detach().view(_INTEGERS[weight.element_size()]).as_strided((count,), (1,))
        sample = bits if count <= WHOLE else bits.take(_places(count))
    checksum = zlib.crc32(sample.numpy())
    return weakref.ref(weight), weight.data_ptr(), weight._version, weight.shape, strides, weight.dtype, checksum


@functools.lru_cache(maxsize=256)
def _places(count: int) -> torch.Tensor:
    """Where a sample of so many elements is taken: one place of chance in each of SAMPLES parts, which meets every slice."""
    step = count // SAMPLES
    chance = torch.randint(step, (SAMPLES,), generator=torch.Generator().manual_seed(count))
    return torch.arange(SAMPLES) * step + chance
