"""cuDNN through PyTorch, as the benchmark for GPUs calls it: cudnn.benchmark, tf32 where it is admitted.

Images and weights are channels_last, and for float32, where that need not be cuDNN's best, in PyTorch's own order too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convgen.cuda.questions import Question
from convgen.errors import MissingDependencyError
from convgen.spec import ConvSpec

# A relative L2 error up to which a result is of the same computation.
_SAME = 1e-2
_LAYOUT = "channels_last"
# The orders of memory, as PyTorch names them, that float32 is tried in besides.
MORE_LAYOUTS = ("contiguous_format",)


class Cudnn:
    """Raises MissingDependencyError where PyTorch is not installed or sees no device."""

    def __init__(self, device: int) -> None:
        try:
            import torch
        except ImportError as error:
            raise MissingDependencyError("torch is not installed") from error
        if not torch.cuda.is_available():
            raise MissingDependencyError(f"torch {torch.__version__} sees no CUDA device")
        self._torch = torch
        self._device = f"cuda:{device}"
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True

    def version(self) -> str:
        """The versions of PyTorch, of the CUDA that it was built for, and of cuDNN."""
        torch = self._torch
        return f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"

    def calls(self, spec: ConvSpec, main: tuple[np.ndarray, ...]) -> dict[str, Callable[[], Any]]:
        """A call of a problem in two dimensions for each layout, on copies of the operands on the device."""
        self._torch.backends.cudnn.allow_tf32 = spec.dtype == "float32" and not isinstance(spec.accuracy, str)
        layouts = (_LAYOUT, *(MORE_LAYOUTS if spec.dtype == "float32" else ()))
        return {layout: self._call(spec, main, getattr(self._torch, layout)) for layout in layouts}

    def _call(self, spec: ConvSpec, main: tuple[np.ndarray, ...], layout: Any) -> Callable[[], Any]:
        torch = self._torch
        first, second = (self._tensor(array) for array in main)
        stride, dilation = list(spec.stride), list(spec.dilation)
        padding = [before for before, _ in spec.padding]
        if spec.direction == "forward":
            convolution = torch.nn.functional.conv2d
            image, weight = self._image(first, layout), second.contiguous(memory_format=layout)

            def forward() -> Any:
                with torch.no_grad():
                    return convolution(image, weight, None, stride, padding, dilation, spec.groups)

            return forward
        is_data = spec.direction == "backward_data"
        grad = self._image(first if is_data else second, layout)
        batch, *size, channels = spec.input_shape
        empty = torch.empty((batch, channels, *size), dtype=first.dtype, device=self._device)
        image = empty.to(memory_format=layout) if is_data else self._image(first, layout)
        weight = second if is_data else torch.empty(spec.weight_shape, dtype=first.dtype, device=self._device)
        weight = weight.contiguous(memory_format=layout)
        backward = torch.ops.aten.convolution_backward
        geometry = (None, stride, padding, dilation, False, [0, 0], spec.groups, [is_data, not is_data, False])
        position = 0 if is_data else 1
        return lambda: backward(grad, image, weight, *geometry)[position]

    def agrees(self, spec: ConvSpec, result: Any, question: Question) -> bool:
        """Whether a result is that of the same problem; fast algorithms round."""
        sums = spec.direction == "backward_weights"
        turned = result if sums else result[: len(question.expected.value)].permute(0, 2, 3, 1)
        value = question.expected.value
        error = np.linalg.norm(turned.double().cpu().numpy() - value)
        return bool(error <= _SAME * np.linalg.norm(value))

    def _tensor(self, array: np.ndarray) -> Any:
        torch = self._torch
        if array.dtype.name == "bfloat16":
            tensor = torch.from_numpy(np.ascontiguousarray(array).view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.to(self._device)

    def _image(self, tensor: Any, layout: Any) -> Any:
        """An image whose last axis is its channels, with its axes as PyTorch names them, in the memory order asked for."""
        return tensor.permute(0, 3, 1, 2).contiguous(memory_format=layout)
