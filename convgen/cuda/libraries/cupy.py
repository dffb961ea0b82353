"""CuPy's arrays as operands; imported when the first one is met."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cupy

from convgen.cuda.libraries.base import View
from convgen.cuda.libraries.interface import Interface
from convgen.dtypes import DTYPES


class CuPy(Interface):
    """Memory, for results and for scratch, is CuPy's pool's, which keeps what a stream gave back for this stream."""

    def view(self, name: str, array: Any) -> View:
        # Contents are ready for CuPy's current stream, as for every other call of the library.
        device = int(array.device.id)
        return replace(super().view(name, array), device=device, stream=self.current_stream(array, device))

    def current_stream(self, array: Any, device: int) -> int:
        return int(cupy.cuda.get_current_stream(device).ptr)

    def empty(self, shape: tuple[int, ...], dtype: str, device: int, stream: int) -> Any:
        with self._on(stream, device):
            return cupy.empty(shape, DTYPES[dtype].numpy)

    def scratch(self, nbytes: int, device: int, stream: int) -> tuple[int, object]:
        if not nbytes:
            return 0, None
        memory = self.empty((nbytes,), "uint8", device, stream)
        return int(memory.data.ptr), memory

    def dense(self, name: str, array: Any, device: int, stream: int) -> Any:
        with self._on(stream, device):
            return array.copy(order="C")

    @contextlib.contextmanager
    def _on(self, stream: int, device: int) -> Iterator[None]:
        with cupy.cuda.Device(device), cupy.cuda.ExternalStream(stream, device):
            yield


LIBRARY = CuPy()
