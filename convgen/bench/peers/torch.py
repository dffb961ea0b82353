"""PyTorch: both memory formats, and weights that oneDNN has packed where it offers that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from convgen.bench.contender import Array, Contender, Job, begins, refuse
from convgen.dtypes import DTYPES
from convgen.spec import ConvSpec

_DTYPES = ("float32", "float64", "float16", "bfloat16")
# oneDNN packs weights of these.
_PACKED_DTYPES = ("float32", "float16", "bfloat16")
_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
_CONVOLUTIONS = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
_TRANSPOSED = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}


class _Torch:
    name = "torch"

    def version(self) -> str:
        return str(torch.__version__)

    def contenders(self, job: Job) -> list[Contender]:
        """Tensors are made in inference mode, so that no call records anything for gradients."""
        refuse(job.spec, _DTYPES, asymmetric=False)
        torch.set_num_threads(job.threads)
        with torch.inference_mode():
            return [contender for layout in job.layouts for contender in _in_layout(job, layout)]


PEER = _Torch()


class _Geometry:
    """The arguments of a convolution; along one axis in channels_last it is one of images of height 1, for which alone
    PyTorch has that format."""

    def __init__(self, spec: ConvSpec, layout: str) -> None:
        self.is_lifted = spec.ndim == 1 and layout == "channels_last"
        self.ndim = 2 if self.is_lifted else spec.ndim
        self.stride = self._lift(list(spec.stride), 1)
        self.padding = self._lift(begins(spec), 0)
        self.dilation = self._lift(list(spec.dilation), 1)
        self.output_padding = self._lift(list(spec.output_padding), 0)
        self.format = _FORMATS[self.ndim] if layout == "channels_last" else torch.contiguous_format

    def _lift(self, values: list[int], height: int) -> list[int]:
        return [height, *values] if self.is_lifted else values

    def tensor(self, array: Array) -> Any:
        tensor = from_numpy(array)
        return (tensor.unsqueeze(2) if self.is_lifted else tensor).to(memory_format=self.format, copy=True)

    def array(self, tensor: Any) -> Array:
        return to_numpy(tensor.squeeze(2) if self.is_lifted else tensor)


def _in_layout(job: Job, layout: str) -> Iterator[Contender]:
    spec = job.spec
    geometry = _Geometry(spec, layout)
    first, second = geometry.tensor(job.first), geometry.tensor(job.second)
    if spec.direction != "forward":
        yield _contender(layout, geometry, _gradient(spec, geometry, first, second))
        return
    yield _contender(layout, geometry, _forward(spec, geometry, first, second))
    if spec.dtype in _PACKED_DTYPES:
        # What oneDNN refuses (other processors, other builds of PyTorch) is no contender.
        with contextlib.suppress(RuntimeError, AttributeError):
            call = _packed(spec, geometry, first, second)
            call()
            yield _contender(f"{layout}, packed", geometry, call)


def _contender(variant: str, geometry: _Geometry, call: Callable[[], Any]) -> Contender:
    return Contender("torch", variant, call, lambda: geometry.array(call()))


def _forward(spec: ConvSpec, to: _Geometry, x: Any, weight: Any) -> Callable[[], Any]:
    if spec.transposed:
        transposed = _TRANSPOSED[to.ndim]
        return lambda: transposed(x, weight, None, to.stride, to.padding, to.output_padding, spec.groups, to.dilation)
    convolution = _CONVOLUTIONS[to.ndim]
    return lambda: convolution(x, weight, None, to.stride, to.padding, to.dilation, spec.groups)


def _packed(spec: ConvSpec, to: _Geometry, x: Any, weight: Any) -> Callable[[], Any]:
    """The operator that PyTorch's compiler uses for constant weights."""
    plain = (to.padding, to.stride, to.dilation, spec.groups)
    size = list(x.shape)
    if spec.transposed:
        full = (to.padding, to.output_padding, to.stride, to.dilation, spec.groups)
        packed = torch.ops.mkldnn._reorder_convolution_transpose_weight(weight.to_mkldnn(), *full, size)
        run = torch.ops.mkldnn._convolution_transpose_pointwise
        return lambda: run(x, packed, None, *full, "none", [], "")
    if to.ndim == 1:
        raise RuntimeError("weights along one axis cannot be packed")
    reorder = torch._C._nn.mkldnn_reorder_conv2d_weight if to.ndim == 2 else torch._C._nn.mkldnn_reorder_conv3d_weight
    packed = reorder(weight.to_mkldnn(), *plain, size)
    pointwise = torch.ops.mkldnn._convolution_pointwise
    return lambda: pointwise(x, packed, None, *plain, "none", [], "")


def _gradient(spec: ConvSpec, to: _Geometry, first: Any, second: Any) -> Callable[[], Any]:
    """One gradient of the three that the operator can compute; the operand it does not read is only looked at."""
    is_data = spec.direction == "backward_data"
    shape = spec.input_shape if is_data else spec.weight_shape
    if is_data and spec.layout == "channels_last":
        shape = (shape[0], shape[-1], *shape[1:-1])
    unread = to.tensor(np.zeros(shape, DTYPES[spec.dtype].numpy))
    image, weight, grad = (unread, second, first) if is_data else (first, unread, second)
    arguments = (None, to.stride, to.padding, to.dilation, spec.transposed, to.output_padding, spec.groups)
    backward, position = torch.ops.aten.convolution_backward, 0 if is_data else 1
    mask = [is_data, not is_data, False]
    return lambda: backward(grad, image, weight, *arguments, mask)[position]


def from_numpy(array: Array) -> Any:
    """The array as a tensor; NumPy's bfloat16 is not PyTorch's."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(np.ascontiguousarray(array).view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array))


def to_numpy(tensor: Any) -> Array:
    """The tensor as an array, bfloat16 as float32."""
    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array
