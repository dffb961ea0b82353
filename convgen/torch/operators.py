"""The operators of ``torch.ops.convgen``: a convolution and its two gradients, each differentiable by the others.

All three are linear in either tensor, so that gradients of any order are made of them. ``padding`` is (lo, hi) after (lo, hi),
``accuracy`` "fast", "strict" or a number as text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from convgen.planning import autotune_block, inherited
from convgen.torch import kernels
from convgen.torch.devices import check_together
from convgen.torch.geometry import Geometry
from convgen.torch.gradients import Gradients, bias_grad, gradients
from convgen.torch.tensors import empty_image, layout_of

_GEOMETRY = (
    "SymInt[] stride, SymInt[] padding, SymInt[] dilation, bool transposed, SymInt[] output_padding, SymInt groups, "
    "str padding_mode, str accuracy"
)
_SCHEMAS = {
    "convolution": f"(Tensor input, Tensor weight, Tensor? bias, {_GEOMETRY}) -> Tensor",
    "convolution_input_grad": f"(Tensor grad_output, Tensor weight, SymInt[] input_size, {_GEOMETRY}) -> Tensor",
    "convolution_weight_grad": f"(Tensor input, Tensor grad_output, SymInt[] weight_size, {_GEOMETRY}) -> Tensor",
}
_library = torch.library.Library("convgen", "DEF")
# The dispatch key of autocasting for each kind of device.
_AUTOCAST = {"cpu": torch._C.DispatchKey.AutocastCPU, "cuda": torch._C.DispatchKey.AutocastCUDA}


def convolution(
    image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, geometry: Geometry
) -> torch.Tensor:
    """The operator, through PyTorch's dispatcher: autograd, autocast, tracing."""
    result: torch.Tensor = torch.ops.convgen.convolution(image, weight, bias, *geometry)
    return result


def _geometry(values: tuple[Any, ...]) -> Geometry:
    return Geometry._make(tuple(value) if isinstance(value, (list, tuple)) else value for value in values)


# ---- kernels


def _convolution(image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *geometry: Any) -> torch.Tensor:
    check_together(input=image, weight=weight, bias=bias)
    return kernels.convolution(image, weight, bias, _geometry(geometry))


def _input_grad(grad_output: torch.Tensor, weight: torch.Tensor, input_size: list[int], *geometry: Any) -> torch.Tensor:
    check_together(grad_output=grad_output, weight=weight)
    return kernels.input_grad(grad_output, weight, tuple(input_size), _geometry(geometry))


def _weight_grad(
    image: torch.Tensor, grad_output: torch.Tensor, weight_size: list[int], *geometry: Any
) -> torch.Tensor:
    check_together(input=image, grad_output=grad_output)
    return kernels.weight_grad(image, grad_output, tuple(weight_size), _geometry(geometry))


# ---- shapes and strides of results, for tensors without data


def _convolution_fake(
    image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *geometry: Any
) -> torch.Tensor:
    how = _geometry(geometry)
    channels = weight.shape[1] * how.groups if how.transposed else weight.shape[0]
    spatial = how.output_size(image.shape[2:], weight.shape[2:])
    return empty_image(image, (image.shape[0], channels, *spatial), layout_of(image) or "channels_first")


def _input_grad_fake(
    grad_output: torch.Tensor, weight: torch.Tensor, input_size: list[int], *geometry: Any
) -> torch.Tensor:
    return empty_image(grad_output, tuple(input_size), layout_of(grad_output) or "channels_first")


def _weight_grad_fake(
    image: torch.Tensor, grad_output: torch.Tensor, weight_size: list[int], *geometry: Any
) -> torch.Tensor:
    return image.new_empty(weight_size)


# ---- derivatives


def _save_operands(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    first, second, third, *geometry = inputs
    ctx.save_for_backward(first, second)
    ctx.has_bias = isinstance(third, torch.Tensor)
    ctx.geometry = geometry
    # A GPU's gradients are computed by a thread of autograd's own.
    ctx.block = autotune_block()


def _backward(name: str) -> Callable[..., Gradients]:
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        def run(other: str, *operands: Any) -> torch.Tensor:
            result: torch.Tensor = getattr(torch.ops.convgen, other)(*operands, *ctx.geometry)
            return result

        of_bias = bias_grad(grad) if ctx.has_bias and ctx.needs_input_grad[2] else None
        with inherited(ctx.block):
            return *gradients(name, ctx, grad, run), of_bias, *(None for _ in ctx.geometry)

    return backward


# ---- autocast


def _autocast(name: str, device: str) -> Callable[..., torch.Tensor]:
    key = torch._C.DispatchKeySet(_AUTOCAST[device])

    def run(*arguments: Any) -> torch.Tensor:
        dtype = torch.get_autocast_dtype(device)

        def cast(value: Any) -> Any:
            fits = isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != torch.float64
            return value.to(dtype) if fits else value

        with torch._C._ExcludeDispatchKeyGuard(key):
            result: torch.Tensor = getattr(torch.ops.convgen, name)(*map(cast, arguments))
        return result

    return run


def _register() -> None:
    implementations = {
        "convolution": (_convolution, _convolution_fake),
        "convolution_input_grad": (_input_grad, _input_grad_fake),
        "convolution_weight_grad": (_weight_grad, _weight_grad_fake),
    }
    tags = (torch.Tag.needs_exact_strides, torch.Tag.pt2_compliant_tag)
    for name, schema in _SCHEMAS.items():
        run, fake = implementations[name]
        _library.define(name + schema, tags=tags)
        for device, key in (("cpu", "CPU"), ("cuda", "CUDA")):
            _library.impl(name, run, key)
            _library.impl(name, _autocast(name, device), f"Autocast{key}")
        torch.library.register_fake(f"convgen::{name}", fake, lib=_library)
        torch.library.register_autograd(f"convgen::{name}", _backward(name), setup_context=_save_operands, lib=_library)


_register()
