"""The functional forms: torch.nn.functional's names and arguments."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.autograd import forward_ad

from convgen.errors import OperandError, ShapeError
from convgen.spec import Epilogue
from convgen.torch import kernels, operators
from convgen.torch.geometry import Geometry, PerAxis
from convgen.torch.packing import PackedCache

_PLAIN_TYPES = frozenset({torch.Tensor, torch.nn.Parameter, type(None)})
_known_geometry = functools.lru_cache(maxsize=4096)(Geometry.of)


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
    how: dict[str, Any] = dict(padding_mode=padding_mode, accuracy=accuracy)
    return _conv(1, input, weight, bias, (stride, padding, dilation, groups), how)


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
    how: dict[str, Any] = dict(padding_mode=padding_mode, accuracy=accuracy)
    return _conv(2, input, weight, bias, (stride, padding, dilation, groups), how)


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
    how: dict[str, Any] = dict(padding_mode=padding_mode, accuracy=accuracy)
    return _conv(3, input, weight, bias, (stride, padding, dilation, groups), how)


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
    how: dict[str, Any] = dict(output_padding=output_padding, transposed=True, accuracy=accuracy)
    return _conv(1, input, weight, bias, (stride, padding, dilation, groups), how)


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
    how: dict[str, Any] = dict(output_padding=output_padding, transposed=True, accuracy=accuracy)
    return _conv(2, input, weight, bias, (stride, padding, dilation, groups), how)


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
    how: dict[str, Any] = dict(output_padding=output_padding, transposed=True, accuracy=accuracy)
    return _conv(3, input, weight, bias, (stride, padding, dilation, groups), how)


def convolve(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: Geometry,
    packing: PackedCache | None = None,
) -> torch.Tensor:
    """The convolution of an image (N, C, *spatial): by the kernel itself where nothing watches the call, else by the operator."""
    if is_watched(input, weight, bias):
        return operators.convolution(input, weight, bias, geometry)
    return kernels.convolution(input, weight, bias, geometry, packing=packing)


def convolve_with(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: Geometry,
    epilogue: Epilogue,
    residual: torch.Tensor | None,
    packing: PackedCache | None,
) -> torch.Tensor:
    """The same with an epilogue, for calls that are not watched."""
    return kernels.convolution(input, weight, bias, geometry, epilogue=epilogue, residual=residual, packing=packing)


def is_watched(*tensors: torch.Tensor | None) -> bool:
    """Whether a call must go through the dispatcher: for gradients, autocast, tracing, another device, modes, subclasses."""
    if torch.compiler.is_compiling():
        return True
    needs_grad = torch.is_grad_enabled()
    for tensor in tensors:
        if type(tensor) not in _PLAIN_TYPES:
            return True
        if tensor is not None and ((needs_grad and tensor.requires_grad) or not tensor.is_cpu):
            return True
    return bool(
        torch.is_autocast_enabled("cpu")
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )


def geometry_of(kernel_size: tuple[int, ...], arguments: tuple[PerAxis | str, ...], how: dict[str, Any]) -> Geometry:
    """The geometry from the arguments of a function; lists will do for tuples."""
    if torch.compiler.is_compiling():
        return Geometry.of(kernel_size, *arguments, **how)  # type: ignore[arg-type]
    try:
        return _known_geometry(kernel_size, *arguments, **how)  # type: ignore[arg-type]
    except TypeError:  # not hashable
        return Geometry.of(kernel_size, *arguments, **how)  # type: ignore[arg-type]


def _conv(
    ndim: int,
    image: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    arguments: tuple[PerAxis | str, ...],
    how: dict[str, Any],
) -> torch.Tensor:
    if not isinstance(image, torch.Tensor) or not isinstance(weight, torch.Tensor):
        wrong = "weight" if isinstance(image, torch.Tensor) else "input"
        raise OperandError(
            f"{wrong} is a {type(weight if wrong == 'weight' else image).__name__}; allowed: torch.Tensor"
        )
    if weight.dim() != ndim + 2:
        raise ShapeError(f"weight has shape {tuple(weight.shape)}; allowed: {ndim + 2} axes")
    geometry = geometry_of(weight.shape[2:], arguments, how)
    axes = image.dim()
    if axes == ndim + 2:
        return convolve(image, weight, bias, geometry)
    if axes == ndim + 1:
        return convolve(image.unsqueeze(0), weight, bias, geometry).squeeze(0)
    raise ShapeError(f"input has shape {tuple(image.shape)}; allowed: {ndim + 2} axes, or {ndim + 1} without a batch")
