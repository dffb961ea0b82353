"""The functional forms: torch.nn.functional's names and arguments."""

from __future__ import annotations

import functools
from typing import Any

import torch

from convgen.errors import OperandError, ShapeError
from convgen.torch import devices, kernels, operators, repeated
from convgen.torch.geometry import Geometry, PerAxis
from convgen.torch.gradients import differentiable, is_transformed
from convgen.torch.packing import PackedCache

_PLAIN_TYPES = frozenset({torch.Tensor, torch.nn.Parameter, type(None)})
_autocasts = torch.is_autocast_enabled
_dispatch_modes, _function_modes = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_trace = torch._C._get_tracing_state
_known_geometry = functools.lru_cache(maxsize=4096, typed=True)(Geometry.of)


def conv1d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: PerAxis = 1,
    padding: PerAxis | str = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    accuracy: str | float = "fast",
) -> torch.Tensor:
    """torch.nn.functional.conv1d: ``input`` is (N, C, L) or (C, L), ``weight`` (out, C/groups, kernel).

    ``padding_mode`` and ``accuracy`` are ConvSpec's. float32, float64, float16 and bfloat16, differentiable any number of times.
    The result has the memory format of the input. Raises SpecError, ShapeError, DTypeError, OperandError.
    """
    how = (stride, padding, dilation, groups, False, 0, padding_mode, accuracy)
    return _conv(1, input, weight, bias, how)


def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: PerAxis = 1,
    padding: PerAxis | str = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    accuracy: str | float = "fast",
) -> torch.Tensor:
    """torch.nn.functional.conv2d: ``input`` is (N, C, H, W) or (C, H, W); else as conv1d."""
    how = (stride, padding, dilation, groups, False, 0, padding_mode, accuracy)
    return _conv(2, input, weight, bias, how)


def conv3d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: PerAxis = 1,
    padding: PerAxis | str = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    accuracy: str | float = "fast",
) -> torch.Tensor:
    """torch.nn.functional.conv3d: ``input`` is (N, C, D, H, W) or (C, D, H, W); else as conv1d."""
    how = (stride, padding, dilation, groups, False, 0, padding_mode, accuracy)
    return _conv(3, input, weight, bias, how)


def conv_transpose1d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    accuracy: str | float = "fast",
) -> torch.Tensor:
    """torch.nn.functional.conv_transpose1d: ``weight`` is (C, out/groups, kernel); else as conv1d."""
    how = (stride, padding, dilation, groups, True, output_padding, "zeros", accuracy)
    return _conv(1, input, weight, bias, how)


def conv_transpose2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    accuracy: str | float = "fast",
) -> torch.Tensor:
    """torch.nn.functional.conv_transpose2d; see conv_transpose1d."""
    how = (stride, padding, dilation, groups, True, output_padding, "zeros", accuracy)
    return _conv(2, input, weight, bias, how)


def conv_transpose3d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    accuracy: str | float = "fast",
) -> torch.Tensor:
    """torch.nn.functional.conv_transpose3d; see conv_transpose1d."""
    how = (stride, padding, dilation, groups, True, output_padding, "zeros", accuracy)
    return _conv(3, input, weight, bias, how)


def convolve(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: Geometry,
    packing: PackedCache | None = None,
) -> torch.Tensor:
    """The convolution of an image (N, C, *spatial): by the kernel where nothing but derivatives are asked for, else by the
    operator."""
    if is_watched(input, weight, bias):
        return operators.convolution(input, weight, bias, geometry)
    if needs_grad(input, weight, bias):
        return differentiable(input, weight, bias, geometry)
    return kernels.convolution(input, weight, bias, geometry, packing=packing)


def is_watched(*tensors: torch.Tensor | None) -> bool:
    """Whether a call must go through the dispatcher: for autocast, tracing, devices that are neither all the CPU nor all CUDA's,
    modes, subclasses, negative views."""
    if torch.compiler.is_compiling():
        return True
    on_cpu = on_gpu = False
    for tensor in tensors:
        if type(tensor) not in _PLAIN_TYPES:
            return True
        if tensor is None:
            continue
        if tensor.is_neg():
            return True
        if tensor.is_cpu:
            on_cpu = True
        else:
            on_gpu = True
            if not tensor.is_cuda:
                return True
    if on_cpu and on_gpu:
        return True
    kind = "cuda" if on_gpu else "cpu"
    return bool(_autocasts(kind) or _dispatch_modes() or _function_modes() or _trace() is not None)


def needs_grad(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd, or a transform of torch.func, must know of the call."""
    if is_transformed():
        return True
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def geometry_of(kernel_size: tuple[int, ...], how: tuple[Any, ...]) -> Geometry:
    """The geometry from the arguments of a function, in the order of ``Geometry.of``; lists will do for tuples."""
    if torch.compiler.is_compiling():
        return Geometry.of(kernel_size, *how)
    try:
        return _known_geometry(kernel_size, *how)
    except TypeError:  # not hashable
        return Geometry.of(kernel_size, *how)


def _conv(
    ndim: int, image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, how: tuple[Any, ...]
) -> torch.Tensor:
    if not isinstance(image, torch.Tensor) or not isinstance(weight, torch.Tensor):
        name, value = ("weight", weight) if isinstance(image, torch.Tensor) else ("input", image)
        raise OperandError(f"{name} is a {type(value).__name__}; allowed: torch.Tensor")
    watched = is_watched(image, weight, bias)
    plain = not (watched or needs_grad(image, weight, bias)) and devices.gpu_of(image) is None
    if plain and (result := repeated.call(ndim, image, weight, bias, how)) is not None:
        return result
    if weight.dim() != ndim + 2:
        raise ShapeError(f"weight has shape {tuple(weight.shape)}; allowed: {ndim + 2} axes")
    geometry = geometry_of(tuple(weight.shape[2:]), how)
    axes = image.dim()
    if axes == ndim + 1:
        return convolve(image.unsqueeze(0), weight, bias, geometry).squeeze(0)
    if axes != ndim + 2:
        shape = tuple(image.shape)
        raise ShapeError(f"input has shape {shape}; allowed: {ndim + 2} axes, or {ndim + 1} without a batch")
    if plain:
        repeated.remember(ndim, image, weight, bias, how, geometry)
    return convolve(image, weight, bias, geometry)
