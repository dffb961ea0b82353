"""cuDNN through PyTorch, as the benchmark for GPUs calls it: channels_last, cudnn.benchmark, tf32 where it is admitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convgen.cuda.questions import Question
from convgen.errors import MissingDependencyError
from convgen.spec import ConvSpec

# A relative L2 error up to which a result is of the same computation.
_SAME = 1e-2


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

    def call(self, spec: ConvSpec, main: tuple[np.ndarray, ...]) -> Callable[[], Any]:
        """One call of a problem in two dimensions, channels_last, on copies of the operands on the device."""
        torch = self._torch
        torch.backends.cudnn.allow_tf32 = spec.dtype == "float32" and not isinstance(spec.accuracy, str)
        first, second = (self._tensor(array) for array in main)
        stride, dilation = list(spec.stride), list(spec.dilation)
        padding = [before for before, _ in spec.padding]
        if spec.direction == "forward":
            convolution = torch.nn.functional.conv2d

            def forward() -> Any:
                with torch.no_grad():
                    return convolution(self._image(first), second, None, stride, padding, dilation, spec.groups)

            second = second.to(memory_format=torch.channels_last)
            return forward
        is_data = spec.direction == "backward_data"
        batch, *size, channels = spec.input_shape
        empty = torch.empty((batch, channels, *size), dtype=first.dtype, device=self._device)
        image = empty.to(memory_format=torch.channels_last) if is_data else self._image(first)
        grad = self._image(first) if is_data else self._image(second)
        weight = second if is_data else torch.empty(spec.weight_shape, dtype=first.dtype, device=self._device)
        weight = weight.to(memory_format=torch.channels_last)
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

    def _image(self, tensor: Any) -> Any:
        """An image in the order of channels_last as PyTorch names its axes; the memory stays as it is."""
        return tensor.permute(0, 3, 1, 2)
