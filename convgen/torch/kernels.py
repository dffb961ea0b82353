"""Compiled kernels on tensors: images in either memory format, as they lie in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from convgen.errors import DTypeError, ShapeError
from convgen.kept_operators import kept_operator
from convgen.operator import CompiledConv, PackedWeights
from convgen.spec import ConvSpec, Epilogue
from convgen.torch import devices
from convgen.torch.geometry import Geometry
from convgen.torch.packing import PackedCache
from convgen.torch.tensors import as_it_lies, dtype_name, empty_image, from_order, in_layout, in_order

if TYPE_CHECKING:
    from convgen.torch.gpu_operators import GpuOperator

_BIAS = Epilogue(("bias",))
_PLAIN = Epilogue()


def convolution(
    image: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: Geometry,
    *,
    epilogue: Epilogue | None = None,
    residual: torch.Tensor | None = None,
    packing: PackedCache | None = None,
) -> torch.Tensor:
    """The convolution in the image's memory format; with ``packing``, weights are packed once a version.

    All tensors are on the CPU or on one CUDA device. ``epilogue`` is by default the bias, if there is one. Raises ShapeError,
    DTypeError, SpecError, and for tensors on a device what CudaConv does.
    """
    image, layout = as_it_lies(image)
    steps = epilogue or (_PLAIN if bias is None else _BIAS)
    constant = packing is not None
    op = _operator("forward", image.shape, weight, image, geometry, layout, steps, constant_weights=constant)
    out = empty_image(image, from_order(op.spec.result_shape, layout), layout)
    others = {} if bias is None else {"bias": _operand("bias", bias, image, (op.spec.out_channels,))}
    if residual is not None:
        others["residual"] = in_layout(_checked("residual", residual, image, tuple(out.shape)), layout)
    if not isinstance(op, CompiledConv):
        op.run(image, weight, out, **others, packing=packing)
        return out
    packed = None
    if packing is not None:
        packed = packing.packed(op.weights_layout, weight, lambda dense: op.pack_at(dense.data_ptr()))
    if packed is None:
        weight = weight.contiguous()
    second: int | PackedWeights = weight.data_ptr() if packed is None else packed
    op.run_at(image.data_ptr(), second, *[other.data_ptr() for other in others.values()], out.data_ptr())
    return out


def forward_operator(
    image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, geometry: Geometry, layout: str
) -> CompiledConv:
    """The operator of a convolution on the CPU, its bias held against it; raises as ``convolution`` does."""
    op = _operator("forward", image.shape, weight, image, geometry, layout, _PLAIN if bias is None else _BIAS)
    assert isinstance(op, CompiledConv)
    if bias is not None:
        _checked("bias", bias, image, (op.spec.out_channels,))
    return op


def input_grad(
    grad_output: torch.Tensor, weight: torch.Tensor, input_size: tuple[int, ...], geometry: Geometry
) -> torch.Tensor:
    """The gradient of ``convolution`` with respect to the image of shape ``input_size``."""
    grad_output, layout = as_it_lies(grad_output)
    op = _operator("backward_data", input_size, weight, grad_output, geometry, layout, _PLAIN)
    _check_shape("grad_output", grad_output, op.spec.output_shape, layout)
    out = empty_image(grad_output, tuple(input_size), layout)
    if not isinstance(op, CompiledConv):
        op.run(grad_output, weight, out)
        return out
    weight = weight.contiguous()
    op.run_at(grad_output.data_ptr(), weight.data_ptr(), out.data_ptr())
    return out


def weight_grad(
    image: torch.Tensor, grad_output: torch.Tensor, weight_size: tuple[int, ...], geometry: Geometry
) -> torch.Tensor:
    """The gradient of ``convolution`` with respect to weights of shape ``weight_size``."""
    image, layout = as_it_lies(image)
    out = torch.empty(weight_size, dtype=image.dtype, device=image.device)
    op = _operator("backward_weights", image.shape, out, image, geometry, layout, _PLAIN)
    grad_output = in_layout(_checked("grad_output", grad_output, image), layout)
    _check_shape("grad_output", grad_output, op.spec.output_shape, layout)
    if not isinstance(op, CompiledConv):
        op.run(image, grad_output, out)
        return out
    op.run_at(image.data_ptr(), grad_output.data_ptr(), out.data_ptr())
    return out


def _operator(
    direction: str,
    input_size: tuple[int, ...],
    weight: torch.Tensor,
    image: torch.Tensor,
    geometry: Geometry,
    layout: str,
    epilogue: Epilogue,
    *,
    constant_weights: bool = False,
) -> CompiledConv | GpuOperator:
    """The kept operator of the problem, for the image's device, or for as many threads as PyTorch has."""

    def spec() -> ConvSpec:
        _checked("weight", weight, image)
        groups = max(1, geometry.groups)
        if len(input_size) != weight.dim():
            raise ShapeError(f"input has shape {tuple(input_size)}; allowed: {weight.dim()} axes, as weight has")
        made = ConvSpec(
            batch=input_size[0],
            in_channels=input_size[1],
            out_channels=weight.shape[1] * groups if geometry.transposed else weight.shape[0],
            spatial_size=tuple(input_size[2:]),
            kernel_size=tuple(weight.shape[2:]),
            direction=direction,
            layout=layout,
            dtype=dtype_name(image),
            epilogue=epilogue,
            **geometry.fields(),
        )
        if tuple(weight.shape) != made.weight_shape:
            raise ShapeError(
                f"weight has shape {tuple(weight.shape)}; allowed with {made.in_channels} input channels and "
                f"groups={groups}: {made.weight_shape}"
            )
        return made

    problem = (direction, input_size, weight.shape, image.dtype, weight.dtype, geometry, layout, epilogue)
    gpu = devices.gpu_of(image)
    if gpu is not None:
        # With the compiler of kernels for GPUs, which nobody needs who has no such tensors.
        from convgen.torch.gpu_operators import GpuOperator

        return GpuOperator(("torch", problem), spec, image, gpu)
    threads = torch.get_num_threads()
    key = ("torch", problem, threads, constant_weights)
    return kept_operator(key, spec, "auto", threads, constant_weights=constant_weights)


def _operand(name: str, value: torch.Tensor, image: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return _checked(name, value, image, shape).contiguous()


def _checked(name: str, value: torch.Tensor, image: torch.Tensor, shape: tuple[int, ...] | None = None) -> torch.Tensor:
    if value.dtype != image.dtype:
        raise DTypeError(f"{name} has dtype {value.dtype}; allowed: {image.dtype}, as the image has")
    if shape is not None and tuple(value.shape) != shape:
        raise ShapeError(f"{name} has shape {tuple(value.shape)}; allowed: {shape}")
    return value


def _check_shape(name: str, image: torch.Tensor, shape: tuple[int, ...], layout: str) -> None:
    """Holds an image (N, C, *spatial) against a shape in the order of the layout."""
    if in_order(tuple(image.shape), layout) != shape:
        raise ShapeError(f"{name} has shape {tuple(image.shape)}; allowed, in the order of {layout}: {shape}")
