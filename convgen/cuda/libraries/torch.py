"""PyTorch's tensors as operands; imported when the first one is met."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from convgen.cuda.libraries.base import View, no_kernel_reads, not_on_device

_NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.int8: "int8",
    torch.uint8: "uint8",
    torch.int32: "int32",
}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}


class Torch:
    """Memory, for results and for scratch, is the caching allocator's, which knows of streams and of graphs."""

    def view(self, name: str, array: Any) -> View:
        if not array.is_cuda:
            raise not_on_device(name, array.device)
        dtype = _NAMES.get(array.dtype)
        if dtype is None:
            raise no_kernel_reads(name, array.dtype)
        dense = array.is_contiguous() and not array.is_neg()
        device = array.device.index
        # Contents are ready for PyTorch's current stream, as for every other call of the library.
        stream = self.current_stream(array, device)
        return View(array.data_ptr(), tuple(array.shape), dtype, dense, array, device, stream=stream)

    def current_stream(self, array: Any, device: int) -> int:
        return int(torch.cuda.current_stream(device).cuda_stream)

    def empty(self, shape: tuple[int, ...], dtype: str, device: int, stream: int) -> Any:
        with self._on(stream, device):
            return torch.empty(shape, dtype=_TYPES[dtype], device=f"cuda:{device}")

    def scratch(self, nbytes: int, device: int, stream: int) -> tuple[int, object]:
        if not nbytes:
            return 0, None
        memory = self.empty((nbytes,), "uint8", device, stream)
        return memory.data_ptr(), memory

    def dense(self, name: str, array: Any, device: int, stream: int) -> Any:
        with self._on(stream, device):
            return array.detach().resolve_neg().clone(memory_format=torch.contiguous_format)

    def _on(self, stream: int, device: int) -> Any:
        """The allocator makes what is allocated inside ready for the stream."""
        if stream == self.current_stream(None, device):
            return contextlib.nullcontext()
        return torch.cuda.stream(torch.cuda.ExternalStream(stream, device=device))


LIBRARY = Torch()
