"""The convolution and its gradients for autograd and torch.func; each is differentiable by the others, in any order and mode.

All three are linear in either operand, so that a tangent is the sum of two products. These are for calls on tensors that hold
data; ``operators`` registers the same gradients (``_RULES``) with the dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from convgen.planning import autotune_block, inherited
from convgen.torch import kernels
from convgen.torch.geometry import Geometry

_transforms = torch._C._functorch.peek_interpreter_stack

Gradients = tuple[torch.Tensor | None, ...]


def differentiable(
    image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, geometry: Geometry
) -> torch.Tensor:
    """The convolution, known to autograd and torch.func."""
    return _call(_Convolution, image, weight, bias, geometry)


def is_transformed() -> bool:
    """Whether a transform of torch.func, or a level of forward derivatives, is at work."""
    return _transforms() is not None or forward_ad._current_level >= 0


# Of an operator's operands and the gradient of its result: the operators, and what they are given, whose results are the
# gradients of the first operand and of the second.
_RULES: dict[str, Callable[[Any, Any, Any], tuple[tuple[Any, ...], tuple[Any, ...]]]] = {
    "convolution": lambda image, weight, grad: (
        ("convolution_input_grad", grad, weight, image.shape),
        ("convolution_weight_grad", image, grad, weight.shape),
    ),
    "convolution_input_grad": lambda grad_output, weight, grad: (
        ("convolution", grad, weight, None),
        ("convolution_weight_grad", grad, grad_output, weight.shape),
    ),
    "convolution_weight_grad": lambda image, grad_output, grad: (
        ("convolution_input_grad", grad_output, grad, image.shape),
        ("convolution", image, grad, None),
    ),
}


def gradients(name: str, ctx: Any, grad: torch.Tensor, run: Callable[..., torch.Tensor]) -> Gradients:
    """The gradients of both operands of an operator that saved them, where they are needed; ``run`` calls an operator by name."""
    first, second = ctx.saved_tensors
    calls = _RULES[name](first, second, grad)
    return tuple(run(*call) if needed else None for call, needed in zip(calls, ctx.needs_input_grad, strict=False))


def bias_grad(grad: torch.Tensor) -> torch.Tensor:
    """The gradient of a bias: the sum over batch and pixels."""
    return grad.sum((0, *range(2, grad.dim())))


class _Product(torch.autograd.Function):
    """What the three share; ``inputs`` are two tensors and what is not differentiated."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])
        ctx.geometry = inputs[-1]
        # A GPU's gradients are computed by a thread of autograd's own.
        ctx.block = autotune_block()
        # A size, where a bias is not the third.
        ctx.size = inputs[2] if isinstance(inputs[2], tuple) else None

    @classmethod
    def mapped(cls, info: Any, dims: tuple[Any, ...], *inputs: Any) -> tuple[torch.Tensor, int]:
        """The rule of torch.vmap: one call for each item that is mapped over."""

        def item(number: int) -> list[Any]:
            pairs = zip(inputs, dims, strict=True)
            return [value.select(dim, number) if isinstance(dim, int) else value for value, dim in pairs]

        return torch.stack([cls.apply(*item(number)) for number in range(info.batch_size)]), 0


class _Convolution(_Product):
    @staticmethod
    def forward(image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, how: Geometry) -> torch.Tensor:
        return kernels.convolution(image, weight, bias, how)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        return _backward("convolution", ctx, grad)

    @staticmethod
    def jvp(ctx: Any, of_image: Any, of_weight: Any, of_bias: Any, _: None) -> torch.Tensor:
        image, weight = ctx.saved_tensors
        total = torch.zeros(()) if of_bias is None else of_bias.reshape(-1, *(1,) * (weight.dim() - 2))
        if of_image is not None:
            total = total + _Convolution.apply(of_image, weight, None, ctx.geometry)
        if of_weight is not None:
            total = total + _Convolution.apply(image, of_weight, None, ctx.geometry)
        return total

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], image: Any, weight: Any, bias: Any, how: Geometry) -> Any:
        if dims[1] is not None or dims[2] is not None:
            return _Convolution.mapped(info, dims, image, weight, bias, how)
        # Images alone: they are a larger batch.
        images = image.movedim(dims[0], 0)
        result = _Convolution.apply(images.flatten(0, 1), weight, bias, how)
        return result.unflatten(0, images.shape[:2]), 0


class _InputGrad(_Product):
    @staticmethod
    def forward(grad: torch.Tensor, weight: torch.Tensor, size: torch.Size, how: Geometry) -> torch.Tensor:
        return kernels.input_grad(grad, weight, size, how)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        return _backward("convolution_input_grad", ctx, grad)

    @staticmethod
    def jvp(ctx: Any, of_grad: Any, of_weight: Any, *_: None) -> torch.Tensor:
        return _tangent(_InputGrad, ctx, of_grad, of_weight)

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *inputs: Any) -> Any:
        return _InputGrad.mapped(info, dims, *inputs)


class _WeightGrad(_Product):
    @staticmethod
    def forward(image: torch.Tensor, grad: torch.Tensor, size: torch.Size, how: Geometry) -> torch.Tensor:
        return kernels.weight_grad(image, grad, size, how)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        return _backward("convolution_weight_grad", ctx, grad)

    @staticmethod
    def jvp(ctx: Any, of_image: Any, of_grad: Any, *_: None) -> torch.Tensor:
        return _tangent(_WeightGrad, ctx, of_image, of_grad)

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *inputs: Any) -> Any:
        return _WeightGrad.mapped(info, dims, *inputs)


def _backward(name: str, ctx: Any, grad: torch.Tensor) -> Gradients:
    def run(other: str, *inputs: Any) -> torch.Tensor:
        return _call(_PRODUCTS[other], *inputs, ctx.geometry)

    with inherited(ctx.block):
        return *gradients(name, ctx, grad, run), bias_grad(grad) if ctx.needs_input_grad[2] else None, None


def _tangent(product: type[_Product], ctx: Any, of_first: Any, of_second: Any) -> torch.Tensor:
    first, second = ctx.saved_tensors
    total = torch.zeros(())
    if of_first is not None:
        total = total + product.apply(of_first, second, ctx.size, ctx.geometry)
    if of_second is not None:
        total = total + product.apply(first, of_second, ctx.size, ctx.geometry)
    return total


def _quick(product: type[_Product]) -> type[_Product]:
    """The same for autograd alone, which calls ``forward`` with the context in half the time."""

    def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
        product.setup_context(ctx, inputs, None)
        return product.forward(*inputs)

    methods = {"forward": staticmethod(forward), "setup_context": torch.autograd.Function.setup_context}
    return type(f"{product.__name__}Quick", (product,), methods)


_PRODUCTS: dict[str, type[_Product]] = {
    "convolution": _Convolution,
    "convolution_input_grad": _InputGrad,
    "convolution_weight_grad": _WeightGrad,
}
_QUICK = {product: _quick(product) for product in _PRODUCTS.values()}


def _call(product: type[_Product], *inputs: Any) -> torch.Tensor:
    result: torch.Tensor = (product if is_transformed() else _QUICK[product]).apply(*inputs)
    return result
