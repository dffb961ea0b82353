"""CudaConv on tensors of a CUDA device, in either memory format, as they lie in memory; imported when the first one is met."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from convgen.cuda.device import device_numbered
from convgen.cuda.kept_operators import kept_cuda_operator
from convgen.cuda.kernels import CudaConv
from convgen.cuda.libraries.torch import LIBRARY
from convgen.spec import ConvSpec
from convgen.torch.packing import PackedCache


class GpuOperator:
    """A kept CudaConv for tensors of one device, on PyTorch's current stream there."""

    def __init__(self, key: tuple[Any, ...], spec: Callable[[], ConvSpec], like: torch.Tensor, ordinal: int) -> None:
        self._device = device_numbered(ordinal)
        self._stream = LIBRARY.current_stream(like, ordinal)
        self._op: CudaConv = kept_cuda_operator(key, spec, ordinal, self._stream)

    @property
    def spec(self) -> ConvSpec:
        """The problem."""
        return self._op.spec

    def run(
        self,
        first: torch.Tensor,
        second: torch.Tensor,
        out: torch.Tensor,
        *,
        bias: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
        packing: PackedCache | None = None,
    ) -> None:
        """Starts the kernels of a call; images are (N, C, *spatial) in the problem's layout, as ``out`` is.

        With ``packing``, weights are packed once a version and stream. Raises what CudaConv does.
        """
        makes_weights = self.spec.direction == "backward_weights"
        packed = None if packing is None else self._packed(second, packing)
        if packed is None:
            packed = self._as_read(second) if makes_weights else second
        self._op(
            self._as_read(first),
            packed,
            bias,
            residual=None if residual is None else self._as_read(residual),
            out=out if makes_weights else self._as_read(out),
            stream=self._stream,
        )

    def _packed(self, weight: torch.Tensor, packing: PackedCache) -> Any:
        """The weight packed for this stream, whose order its memory goes by; None while calls are captured: a graph that is
        replayed reads weights as they are then, and must not hold what may be dropped meanwhile."""
        if self._device.is_capturing(self._stream):
            return None
        kind = (self._op.weights_layout, self._device.ordinal, self._stream)
        return packing.packed(kind, weight, lambda dense: self._op.pack(dense, stream=self._stream))

    def _as_read(self, image: torch.Tensor) -> torch.Tensor:
        """The image with its axes in the order of the layout, which is C order."""
        return image.movedim(1, -1) if self.spec.layout == "channels_last" else image
