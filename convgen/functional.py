"""The NumPy functions: convolutions and their gradients with PyTorch's argument names and meanings.

The number of dimensions comes from the arrays. Operators are compiled once per problem and kept; inside ``autotune`` a problem
met for the first time is tuned, elsewhere nothing is ever measured.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from convgen.dtypes import dtype_named
from convgen.errors import OperandError, ShapeError, SpecError
from convgen.kept_operators import kept_operator
from convgen.operator import Array, CompiledConv
from convgen.spec import ConvSpec, Padding, PerAxis

_names: dict[np.dtype[Any], str] = {}


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
    strategy: str = "auto",
    accuracy: str | float = "fast",
    threads: int | None = None,
) -> Array:
    """Convolution (cross-correlation) of 1, 2 or 3 spatial dimensions, as torch.nn.functional.conv{1,2,3}d.

    ``input`` is (N, C, *spatial), or (N, *spatial, C) for layout="channels_last"; without N the result has none either.
    ``weight`` is (out, C/groups, *kernel) and ``bias`` (out,). ``padding`` also takes (lo, hi) pairs per axis, "same" and
    "valid". float32, float64, float16, bfloat16 (ml_dtypes) and int8 (result int32). Raises SpecError, ShapeError, DTypeError,
    OperandError.
    """
    image, batched = _image("input", input, weight)
    channels = int(weight.shape[1]) * _groups(groups), int(weight.shape[0])
    fields = _common(stride, padding, dilation, groups, padding_mode, accuracy)
    op = _forward(image, weight, bias, channels, layout, strategy, threads, fields)
    result = op(image, weight, bias)
    return result if batched else result[0]


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
    strategy: str = "auto",
    accuracy: str | float = "fast",
    threads: int | None = None,
) -> Array:
    """Transposed convolution, as torch.nn.functional.conv_transpose{1,2,3}d.

    ``weight`` is (C, out/groups, *kernel); ``padding`` is taken off the result and may be (lo, hi) pairs. Else as ``conv``.
    """
    image, batched = _image("input", input, weight)
    channels = int(weight.shape[0]), int(weight.shape[1]) * _groups(groups)
    fields = _common(stride, padding, dilation, groups, "zeros", accuracy)
    fields |= {"output_padding": _frozen(output_padding), "transposed": True}
    op = _forward(image, weight, bias, channels, layout, strategy, threads, fields)
    result = op(image, weight, bias)
    return result if batched else result[0]


def conv_backward_data(
    grad_output: Array,
    weight: Array,
    input_size: Sequence[int],
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    layout: str = "channels_first",
    strategy: str = "auto",
    accuracy: str | float = "fast",
    threads: int | None = None,
) -> Array:
    """The gradient of ``conv`` with respect to its input, as torch.nn.grad.conv{1,2,3}d_input.

    ``input_size`` is the whole shape of the input in ``layout``. Returns an array of that shape.
    """
    _check_array("grad_output", grad_output)
    _check_weight(weight)
    shape = _shape("input_size", input_size, weight.ndim)
    _check_channels("input_size", shape, layout, int(weight.shape[1]) * _groups(groups))
    fields = _common(stride, padding, dilation, groups, padding_mode, accuracy)
    fields |= {"direction": "backward_data", "out_channels": int(weight.shape[0])}
    fields |= {"kernel_size": tuple(map(int, weight.shape[2:])), "dtype": _dtype(grad_output)}
    op = _operator(strategy, threads, shape, layout, fields)
    return op(grad_output, weight)


def conv_backward_weights(
    input: Array,
    grad_output: Array,
    kernel_size: PerAxis,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    layout: str = "channels_first",
    strategy: str = "auto",
    accuracy: str | float = "fast",
    threads: int | None = None,
) -> Array:
    """The gradient of ``conv`` with respect to its weights, of shape (out, in/groups, *kernel_size)."""
    _check_array("input", input)
    _check_array("grad_output", grad_output)
    shape = _shape("input", input.shape, grad_output.ndim)
    fields = _common(stride, padding, dilation, groups, padding_mode, accuracy)
    fields |= {"direction": "backward_weights", "out_channels": _channels(grad_output.shape, layout)}
    fields |= {"kernel_size": _frozen(kernel_size), "dtype": _dtype(input)}
    op = _operator(strategy, threads, shape, layout, fields)
    return op(input, grad_output)


def _forward(
    image: Array,
    weight: Array,
    bias: Array | None,
    channels: tuple[int, int],
    layout: str,
    strategy: str,
    threads: int | None,
    fields: dict[str, Any],
) -> CompiledConv:
    """The operator of a forward problem; ``channels`` are (in, out) as the weights and groups make them."""
    _check_channels("input", image.shape, layout, channels[0])
    fields |= {"out_channels": channels[1], "kernel_size": tuple(map(int, weight.shape[2:])), "dtype": _dtype(image)}
    fields |= {"epilogue": () if bias is None else ("bias",)}
    return _operator(strategy, threads, image.shape, layout, fields)


def _common(
    stride: PerAxis, padding: Padding, dilation: PerAxis, groups: int, padding_mode: str, accuracy: str | float
) -> dict[str, Any]:
    """The fields of a problem that are just what a function was given."""
    return {
        "stride": _frozen(stride),
        "padding": _frozen(padding),
        "dilation": _frozen(dilation),
        "groups": groups,
        "padding_mode": padding_mode,
        "accuracy": accuracy,
    }


def _operator(
    strategy: str, threads: int | None, shape: tuple[int, ...], layout: str, fields: dict[str, Any]
) -> CompiledConv:
    """The operator of a problem whose input has a shape, from those kept or compiled now."""

    def spec() -> ConvSpec:
        return ConvSpec(
            batch=shape[0],
            in_channels=_channels(shape, layout),
            spatial_size=_spatial(shape, layout),
            layout=layout,
            **fields,
        )

    return kept_operator((strategy, threads, shape, layout, *fields.items()), spec, strategy, threads)


def _frozen(value: Any) -> Any:
    """Lists as tuples, so that arguments can be part of a key."""
    return tuple(map(_frozen, value)) if type(value) in (list, tuple) else value


def _check_array(name: str, value: object) -> None:
    if not isinstance(value, np.ndarray):
        raise OperandError(f"{name} is a {type(value).__name__}; allowed: numpy.ndarray")


def _check_weight(weight: object) -> None:
    _check_array("weight", weight)
    assert isinstance(weight, np.ndarray)
    if not 3 <= weight.ndim <= 5:
        raise ShapeError(f"weight has shape {weight.shape}; allowed: 3 to 5 axes (channels, channels, *kernel)")


def _image(name: str, value: Array, weight: Array) -> tuple[Array, bool]:
    """The image with a batch axis, and whether it had one."""
    _check_array(name, value)
    _check_weight(weight)
    if value.ndim == weight.ndim - 1:
        return value[np.newaxis], False
    if value.ndim != weight.ndim:
        raise ShapeError(
            f"{name} has shape {value.shape}; allowed: {weight.ndim} axes (or {weight.ndim - 1} without a batch) to go "
            f"with weight of shape {weight.shape}"
        )
    return value, True


def _groups(groups: object) -> int:
    try:
        count = operator.index(groups)  # type: ignore[arg-type]
    except TypeError:
        count = 0
    if count < 1 or isinstance(groups, bool):
        raise SpecError(f"groups={groups!r} is not valid; allowed: an integer of 1 or more")
    return count


def _dtype(array: Array) -> str:
    """The name of the array's dtype; NumPy takes a microsecond to spell one."""
    name = _names.get(array.dtype)
    if name is None:
        name = _names[array.dtype] = dtype_named(array.dtype).name
    return name


def _channels(shape: tuple[int, ...], layout: str) -> int:
    return shape[-1 if layout == "channels_last" else 1]


def _spatial(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    return shape[1:-1] if layout == "channels_last" else shape[2:]


def _shape(name: str, value: Sequence[int], ndim: int) -> tuple[int, ...]:
    try:
        shape = tuple(map(operator.index, value))
    except TypeError as error:
        raise ShapeError(f"{name}={value!r} is not a shape; allowed: {ndim} integers") from error
    if len(shape) != ndim or not 3 <= ndim <= 5:
        raise ShapeError(f"{name}={shape} has {len(shape)} axes, the other operand {ndim}; allowed: as many, 3 to 5")
    return shape


def _check_channels(name: str, shape: tuple[int, ...], layout: str, expected: int) -> None:
    channels = _channels(shape, layout)
    if channels != expected:
        raise ShapeError(f"{name} of shape {shape} has {channels} channels; weight and groups make it {expected}")
