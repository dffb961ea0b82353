"""The float64 reference every kernel is judged by: each field of ConvSpec, all directions, in plain NumPy.

All problems reduce to three operations between an *image* (the array that is padded and read through windows), the
*windows* (one element for each window) and the weights: ``gather`` reads windows from an image, ``scatter`` is its
adjoint in the image and ``correlate`` its adjoint in the weights (Dumoulin and Visin, "A guide to convolution
arithmetic", sections 2 and 4). A transposed convolution swaps the roles of image and windows.

Sums are float64. For int8 operands that is exact integer arithmetic: a product is below 2^15, so sums of up to 2^38
of them fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from convgen.errors import OperandError, ShapeError
from convgen.spec import ConvSpec

Float64 = NDArray[np.float64]

# Taps are multiplied together until a matrix product is at least this deep: shallow products waste the time of BLAS.
_PRODUCT_DEPTH = 16

_erfc = np.frompyfunc(math.erfc, 1, 1)


@dataclass(frozen=True)
class _Geometry:
    """Where the windows of a convolution lie in its image; all fields have one entry per spatial axis."""

    image: tuple[int, ...]
    windows: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    mode: str
    groups: int

    @property
    def padded(self) -> tuple[int, ...]:
        return tuple(lo + size + hi for size, (lo, hi) in zip(self.image, self.padding, strict=True))

    def tap_slices(self, tap: tuple[int, ...]) -> tuple[slice, ...]:
        """The elements of the padded image that all windows read at one kernel position."""
        starts = [t * d for t, d in zip(tap, self.dilation, strict=True)]
        return tuple(
            slice(start, start + (count - 1) * step + 1, step)
            for start, count, step in zip(starts, self.windows, self.stride, strict=True)
        )

    def tap_blocks(self, depth: int) -> Iterator[tuple[slice, list[tuple[int, ...]]]]:
        """The kernel positions in blocks, so that a block's product over ``depth`` channels is worth a BLAS call."""
        taps = list(product(*map(range, self.kernel)))
        length = max(1, _PRODUCT_DEPTH // max(depth, 1))
        for first in range(0, len(taps), length):
            block = slice(first, first + length)
            yield block, taps[block]


def reference(
    spec: ConvSpec,
    *operands: np.ndarray,
    bias: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    scale: np.ndarray | None = None,
    shift: np.ndarray | None = None,
    requantize: np.ndarray | None = None,
) -> Float64:
    """Returns the result of ``spec`` in float64, in the spec's layout and of shape ``spec.result_shape``.

    ``operands`` are (input, weight) forward, (grad_output, weight) for the data gradient and (input, grad_output) for
    the weight gradient, of any dtype, with the shapes of ``spec.operand_shapes``. ``residual`` has the result's shape,
    the other operands of the epilogue have shape (out_channels,); those that the epilogue names must be given, and no
    others. Raises ShapeError and OperandError.
    """
    extras = {"bias": bias, "residual": residual, "scale": scale, "shift": shift, "requantize": requantize}
    for name, array in extras.items():
        if (array is not None) != (name in spec.epilogue.operands):
            state = "missing" if array is None else "superfluous"
            raise OperandError(f"{name} is {state}: the epilogue's steps are {spec.epilogue.steps}")
    value = convolve(spec, *operands)
    for step in spec.epilogue.steps:
        value = apply_step(spec, step, value, extras.get(step))
    return value


def magnitude(spec: ConvSpec, *operands: np.ndarray, bias: np.ndarray | None = None) -> Float64:
    """Returns S, the same sums over absolute values, ``bias`` included: what rounding errors are relative to."""
    total = convolve(spec, *(np.abs(np.asarray(operand, dtype=np.float64)) for operand in operands))
    return total if bias is None else total + np.abs(per_channel(spec, bias, "bias"))


def convolve(spec: ConvSpec, *operands: np.ndarray) -> Float64:
    """Returns the sums of ``spec`` without its epilogue; operands, layout and errors as in ``reference``."""
    first, second = _checked(spec, operands)
    geometry = _geometry(spec)
    match spec.direction, spec.transposed:
        case ("forward", False) | ("backward_data", True):
            result = _gather(geometry, _channels_first(spec, first), second)
        case ("backward_data", False) | ("forward", True):
            result = _scatter(geometry, _channels_first(spec, first), second)
        case "backward_weights", False:
            return _correlate(geometry, _channels_first(spec, first), _channels_first(spec, second))
        case _:
            return _correlate(geometry, _channels_first(spec, second), _channels_first(spec, first))
    return np.ascontiguousarray(np.moveaxis(result, 1, -1)) if spec.layout == "channels_last" else result


def apply_step(spec: ConvSpec, step: str, value: Float64, array: np.ndarray | None = None) -> Float64:
    """Returns ``value`` after one epilogue step; ``array`` is the step's operand, where it has one."""
    if array is not None:
        return _apply_operand(spec, step, value, array)
    with np.errstate(invalid="ignore", over="ignore"):
        return _activate(step, value, spec.epilogue.negative_slope)


def per_channel(spec: ConvSpec, array: np.ndarray, name: str) -> Float64:
    """Returns ``array`` of shape (out_channels,) as float64, shaped to broadcast over an output; raises ShapeError."""
    if array.shape != (spec.out_channels,):
        raise ShapeError(f"{name} has shape {array.shape}; ({spec.out_channels},) is expected")
    values = np.asarray(array, dtype=np.float64)
    return values if spec.layout == "channels_last" else values.reshape(-1, *(1,) * spec.ndim)


def _apply_operand(spec: ConvSpec, step: str, value: Float64, array: np.ndarray) -> Float64:
    match step:
        case "bias" | "shift":
            return value + per_channel(spec, array, step)
        case "scale":
            return value * per_channel(spec, array, step)
        case "residual" if array.shape == value.shape:
            return value + np.asarray(array, dtype=np.float64)
        case "requantize":
            scaled = np.rint(value * per_channel(spec, array, step)) + spec.epilogue.zero_point
            return np.asarray(np.clip(scaled, -128, 127))
        case "residual":
            raise ShapeError(f"residual has shape {array.shape}; {value.shape} is expected")
        case _:
            raise OperandError(f"epilogue step {step!r} takes no array")


def _activate(step: str, x: Float64, negative_slope: float) -> Float64:
    result: Float64
    match step:
        case "relu":
            result = np.maximum(x, 0.0)
        case "leaky_relu":
            result = np.where(x < 0, x * negative_slope, x)
        case "relu6":
            result = np.clip(x, 0.0, 6.0)
        case "silu":
            result = x * _sigmoid(x)
        case "gelu":
            # x·Φ(x); erfc keeps full relative accuracy where 1 + erf would cancel.
            result = 0.5 * x * np.asarray(_erfc(x * -math.sqrt(0.5)), dtype=np.float64)
        case "hardswish":
            result = x * np.clip(x + 3.0, 0.0, 6.0) / 6.0
        case "sigmoid":
            result = _sigmoid(x)
        case "tanh":
            result = np.tanh(x)
        case _:
            raise OperandError(f"epilogue step {step!r} is missing its array or unknown")
    return result


def _sigmoid(x: Float64) -> Float64:
    tail = np.exp(-np.abs(x))
    result: Float64 = np.where(x < 0, tail, 1.0) / (1.0 + tail)
    return result


def _checked(spec: ConvSpec, operands: tuple[np.ndarray, ...]) -> list[Float64]:
    shapes = list(spec.operand_shapes.items())[:2]
    if len(operands) != len(shapes):
        names = " and ".join(name for name, _ in shapes)
        raise OperandError(f"{len(operands)} operands were given; direction={spec.direction!r} takes {names}")
    for operand, (name, shape) in zip(operands, shapes, strict=True):
        if operand.shape != shape:
            raise ShapeError(f"{name} has shape {operand.shape}; {shape} is expected")
    return [np.asarray(operand, dtype=np.float64) for operand in operands]


def _geometry(spec: ConvSpec) -> _Geometry:
    image, windows = spec.spatial_size, spec.output_size
    if spec.transposed:
        image, windows = windows, image
    return _Geometry(
        image, windows, spec.kernel_size, spec.stride, spec.dilation, spec.padding, spec.padding_mode, spec.groups
    )


def _channels_first(spec: ConvSpec, array: Float64) -> Float64:
    return np.moveaxis(array, -1, 1) if spec.layout == "channels_last" else array


def _gather(geometry: _Geometry, image: Float64, weight: Float64) -> Float64:
    """(N, C, *image) and (O, C/groups, *kernel) to (N, O, *windows)."""
    padded, groups = _pad(geometry, image), geometry.groups
    (batch, channels), outputs = image.shape[:2], weight.shape[0]
    depth, positions = channels // groups, math.prod(geometry.windows)
    total = np.zeros((batch, groups, outputs // groups, positions))
    for block, taps in geometry.tap_blocks(depth):
        total += _tap_matrix(weight, block, groups) @ _read(geometry, padded, taps)
    return total.reshape(batch, outputs, *geometry.windows)


def _scatter(geometry: _Geometry, windows: Float64, weight: Float64) -> Float64:
    """(N, O, *windows) and (O, C/groups, *kernel) to (N, C, *image)."""
    groups, (batch, outputs), depth = geometry.groups, windows.shape[:2], weight.shape[1]
    grouped = windows.reshape(batch, groups, outputs // groups, math.prod(geometry.windows))
    padded = np.zeros((batch, depth * groups, *geometry.padded))
    for block, taps in geometry.tap_blocks(depth):
        parts = np.swapaxes(_tap_matrix(weight, block, groups), 1, 2) @ grouped
        parts = parts.reshape(batch, groups, len(taps), depth, *geometry.windows)
        for index, tap in enumerate(taps):
            target = padded[:, :, *geometry.tap_slices(tap)]
            target += parts[:, :, index].reshape(target.shape)
    return _unpad(geometry, padded)


def _correlate(geometry: _Geometry, image: Float64, windows: Float64) -> Float64:
    """(N, C, *image) and (N, O, *windows) to (O, C/groups, *kernel)."""
    padded, groups = _pad(geometry, image), geometry.groups
    (batch, channels), outputs = image.shape[:2], windows.shape[1]
    depth = channels // groups
    grouped = windows.reshape(batch, groups, outputs // groups, math.prod(geometry.windows))
    result = np.zeros((outputs, depth, math.prod(geometry.kernel)))
    for block, taps in geometry.tap_blocks(depth):
        parts = (grouped @ np.swapaxes(_read(geometry, padded, taps), 2, 3)).sum(axis=0)
        result[:, :, block] = np.swapaxes(parts.reshape(outputs, len(taps), depth), 1, 2)
    return result.reshape(outputs, depth, *geometry.kernel)


def _tap_matrix(weight: Float64, block: slice, groups: int) -> Float64:
    """The weights of a block of taps as (groups, O/groups, taps·C/groups)."""
    outputs, depth = weight.shape[:2]
    taps = np.swapaxes(weight.reshape(outputs, depth, math.prod(weight.shape[2:]))[:, :, block], 1, 2)
    return taps.reshape(groups, outputs // groups, taps.shape[1] * depth)


def _read(geometry: _Geometry, padded: Float64, taps: list[tuple[int, ...]]) -> Float64:
    """What all windows read at some taps, as (N, groups, taps·C/groups, windows)."""
    batch, channels = padded.shape[:2]
    groups, depth = geometry.groups, channels // geometry.groups
    read = np.empty((batch, groups, len(taps), depth, *geometry.windows))
    for index, tap in enumerate(taps):
        view = padded[:, :, *geometry.tap_slices(tap)]
        read[:, :, index] = view.reshape(batch, groups, depth, *geometry.windows)
    return read.reshape(batch, groups, len(taps) * depth, math.prod(geometry.windows))


def _pad(geometry: _Geometry, image: Float64) -> Float64:
    for axis, (size, padding) in enumerate(zip(geometry.image, geometry.padding, strict=True), start=2):
        sources = _sources(size, padding, geometry.mode)
        image = np.take(image, np.maximum(sources, 0), axis=axis)
        np.moveaxis(image, axis, 0)[sources < 0] = 0.0
    return image


def _unpad(geometry: _Geometry, padded: Float64) -> Float64:
    """The adjoint of ``_pad``: each padded element is added to the image element it was read from."""
    for axis, (size, padding) in enumerate(zip(geometry.image, geometry.padding, strict=True), start=2):
        sources = _sources(size, padding, geometry.mode)
        moved = np.moveaxis(padded, axis, 0)
        image = np.zeros((size, *moved.shape[1:]))
        np.add.at(image, sources[sources >= 0], moved[sources >= 0])
        padded = np.moveaxis(image, 0, axis)
    return np.ascontiguousarray(padded)


def _sources(size: int, padding: tuple[int, int], mode: str) -> NDArray[np.intp]:
    """For each padded position of one axis, the image position it reads, or -1 for a zero; negative padding crops."""
    position = np.arange(-padding[0], size + padding[1])
    match mode:
        case "reflect":
            last = size - 1
            return np.asarray(last - np.abs(last - np.abs(position)))
        case "replicate":
            return np.asarray(np.clip(position, 0, size - 1))
        case "circular":
            return np.asarray(position % size)
        case _:
            return np.where((position >= 0) & (position < size), position, -1)
