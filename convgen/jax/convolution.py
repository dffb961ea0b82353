"""The functions: convgen.conv and conv_transpose on JAX arrays."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from convgen.errors import DTypeError, OperandError, ShapeError
from convgen.jax.ffi import TARGET, operator_of
from convgen.spec import ConvSpec, Padding, PerAxis

DTYPES = ("float32", "float64", "float16", "bfloat16")
Array = Any


def conv(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    layout: str = "channels_first",
    accuracy: str | float = "fast",
) -> Array:
    """convgen.conv on JAX arrays: under jit, grad (of any order, reverse mode) and vmap, on CPUs.

    ``input`` is (N, C, *spatial), or (N, *spatial, C) for layout="channels_last"; ``weight`` (out, C/groups, *kernel). Raises
    SpecError, ShapeError, DTypeError, OperandError.
    """
    fields = dict(padding_mode=padding_mode)
    out = weight.shape[0] if getattr(weight, "ndim", 0) else 0
    return _call(input, weight, bias, out, (stride, padding, dilation, groups, layout, accuracy), fields)


def conv_transpose(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    layout: str = "channels_first",
    accuracy: str | float = "fast",
) -> Array:
    """convgen.conv_transpose on JAX arrays; ``weight`` is (C, out/groups, *kernel). Else as conv."""
    fields = dict(transposed=True, output_padding=output_padding)
    out = weight.shape[1] * groups if getattr(weight, "ndim", 0) > 1 else 0
    return _call(input, weight, bias, out, (stride, padding, dilation, groups, layout, accuracy), fields)


def _call(
    image: Array, weight: Array, bias: Array | None, out: int, how: tuple[Any, ...], fields: dict[str, Any]
) -> Array:
    stride, padding, dilation, groups, layout, accuracy = how
    for name, value in (("input", image), ("weight", weight), ("bias", bias)):
        if value is not None and not hasattr(value, "shape"):
            raise OperandError(f"{name} is a {type(value).__name__}; allowed: jax.Array, numpy.ndarray")
    image, weight = jnp.asarray(image), jnp.asarray(weight)
    if not 3 <= weight.ndim <= 5 or image.ndim not in (weight.ndim, weight.ndim - 1):
        raise ShapeError(f"input has shape {image.shape} and weight {weight.shape}; allowed: as many axes, 3 to 5")
    if image.ndim < weight.ndim:
        return _call(image[None], weight, bias, out, how, fields)[0]
    if image.dtype.name not in DTYPES:
        raise DTypeError(f"input has dtype {image.dtype.name}; allowed: {', '.join(DTYPES)}")
    last = layout == "channels_last"
    spec = ConvSpec(
        batch=image.shape[0],
        in_channels=image.shape[-1 if last else 1],
        out_channels=out,
        spatial_size=image.shape[1:-1] if last else image.shape[2:],
        kernel_size=weight.shape[2:],
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        layout=layout,
        accuracy=accuracy,
        dtype=image.dtype.name,
        epilogue=() if bias is None else ("bias",),
        **fields,
    )
    operands = {"weight": (weight, spec.weight_shape)}
    if bias is not None:
        bias = jnp.asarray(bias)
        operands["bias"] = bias, (spec.out_channels,)
    for name, (value, shape) in operands.items():
        if value.dtype != image.dtype:
            raise DTypeError(f"{name} has dtype {value.dtype.name}; allowed: {image.dtype.name}, as the input has")
        if value.shape != shape:
            raise ShapeError(f"{name} has shape {value.shape}; allowed: {shape}")
    if bias is None:
        return _convolution(image, weight, spec)
    return _biased(image, weight, bias, spec)


def _run(spec: ConvSpec, *operands: Array) -> Array:
    """The call of the kernel, compiled while JAX traces."""
    problem = spec.to_json()
    operator_of(problem)
    result = jax.ShapeDtypeStruct(spec.result_shape, jnp.dtype(spec.dtype))
    return jax.ffi.ffi_call(TARGET, result, vmap_method="sequential")(*operands, problem=problem)


# ---- each is linear in either operand, and their derivatives are one another


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(image: Array, weight: Array, spec: ConvSpec) -> Array:
    return _run(spec, image, weight)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _biased(image: Array, weight: Array, bias: Array, spec: ConvSpec) -> Array:
    return _run(spec, image, weight, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _input_grad(grad: Array, weight: Array, spec: ConvSpec) -> Array:
    return _run(spec.replace(direction="backward_data"), grad, weight)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _weight_grad(image: Array, grad: Array, spec: ConvSpec) -> Array:
    return _run(spec.replace(direction="backward_weights"), image, grad)


def _convolution_backward(spec: ConvSpec, saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    image, weight = saved
    return _input_grad(grad, weight, spec), _weight_grad(image, grad, spec)


def _biased_backward(spec: ConvSpec, saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array, Array]:
    channels = grad.ndim - 1 if spec.layout == "channels_last" else 1
    of_bias = grad.sum(tuple(axis for axis in range(grad.ndim) if axis != channels))
    return *_convolution_backward(spec.replace(epilogue=()), saved, grad), of_bias


def _input_grad_backward(spec: ConvSpec, saved: tuple[Array, Array], of_image: Array) -> tuple[Array, Array]:
    grad, weight = saved
    return _convolution(of_image, weight, spec), _weight_grad(of_image, grad, spec)


def _weight_grad_backward(spec: ConvSpec, saved: tuple[Array, Array], of_weight: Array) -> tuple[Array, Array]:
    image, grad = saved
    return _input_grad(grad, of_weight, spec), _convolution(image, of_weight, spec)


def _saves(function: Any) -> Any:
    """The forward pass of a function of two operands and its problem, which keeps the operands."""
    return lambda first, second, spec: (function(first, second, spec), (first, second))


_convolution.defvjp(_saves(_convolution), _convolution_backward)
_biased.defvjp(lambda x, w, b, spec: (_biased(x, w, b, spec), (x, w)), _biased_backward)
_input_grad.defvjp(_saves(_input_grad), _input_grad_backward)
_weight_grad.defvjp(_saves(_weight_grad), _weight_grad_backward)
