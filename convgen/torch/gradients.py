"""The convolution and its gradients for autograd; each is differentiable by the others, so that any order of gradients is.

These are for calls that nothing but autograd watches; ``operators`` registers the same derivatives with the dispatcher.
"""

from __future__ import annotations

from typing import Any

import torch

from convgen.torch import kernels
from convgen.torch.geometry import Geometry

Gradients = tuple[torch.Tensor | None, ...]


def differentiable(
    image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, geometry: Geometry
) -> torch.Tensor:
    """The convolution, known to autograd."""
    result: torch.Tensor = _Convolution.apply(image, weight, bias, geometry)
    return result


def bias_grad(grad: torch.Tensor) -> torch.Tensor:
    """The gradient of a bias: the sum over batch and pixels."""
    return grad.sum((0, *range(2, grad.dim())))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, weight: torch.Tensor, bias: Any, geometry: Geometry) -> torch.Tensor:
        ctx.save_for_backward(image, weight)
        ctx.geometry = geometry
        return kernels.convolution(image, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        image, weight = ctx.saved_tensors
        first, second, third, _ = ctx.needs_input_grad
        return (
            _InputGrad.apply(grad, weight, image.shape, ctx.geometry) if first else None,
            _WeightGrad.apply(image, grad, weight.shape, ctx.geometry) if second else None,
            bias_grad(grad) if third else None,
            None,
        )


class _InputGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: torch.Tensor, weight: torch.Tensor, size: torch.Size, how: Geometry) -> torch.Tensor:
        ctx.save_for_backward(grad, weight)
        ctx.geometry = how
        return kernels.input_grad(grad, weight, size, how)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        grad_output, weight = ctx.saved_tensors
        first, second, *_ = ctx.needs_input_grad
        return (
            _Convolution.apply(grad, weight, None, ctx.geometry) if first else None,
            _WeightGrad.apply(grad, grad_output, weight.shape, ctx.geometry) if second else None,
            None,
            None,
        )


class _WeightGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, grad: torch.Tensor, size: torch.Size, how: Geometry) -> torch.Tensor:
        ctx.save_for_backward(image, grad)
        ctx.geometry = how
        return kernels.weight_grad(image, grad, size, how)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        image, grad_output = ctx.saved_tensors
        first, second, *_ = ctx.needs_input_grad
        return (
            _InputGrad.apply(grad_output, grad, image.shape, ctx.geometry) if first else None,
            _Convolution.apply(image, grad, None, ctx.geometry) if second else None,
            None,
            None,
        )
