"""Second opinions on the oracle: im2col, col2im, and convolution as one sparse matrix.

Both are built by enumerating indices one by one and share no code with ``convgen.oracle``, so that a mistake in one
of the three is seen. They are slow and meant for small problems. Arrays are channels_first unless a spec says
otherwise.

Sources: Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing" (2006)
for im2col; Dumoulin and Visin, "A guide to convolution arithmetic", section 4.1, for the matrix C with y = C·x and
its transpose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from convgen.spec import ConvSpec

Float64 = NDArray[np.float64]
Padding = Sequence[tuple[int, int]]

# A read that falls into zero padding.
_ZERO = -1


@dataclass(frozen=True)
class SparseMatrix:
    """A matrix as coordinates: ``values[i]`` is added at (``rows[i]``, ``cols[i]``); a coordinate may occur more than
    once."""

    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    values: Float64
    shape: tuple[int, int]

    @property
    def transpose(self) -> SparseMatrix:
        return SparseMatrix(self.cols, self.rows, self.values, self.shape[::-1])

    def matvec(self, x: np.ndarray) -> Float64:
        """Returns C·x for x of shape (columns,) as float64 of shape (rows,)."""
        y = np.zeros(self.shape[0])
        np.add.at(y, self.rows, self.values * x[self.cols])
        return y


def convolution_matrix(spec: ConvSpec, weight: np.ndarray) -> SparseMatrix:
    """Returns C with y = C·x for one image x and its output y of the forward problem, both flattened channels_first.

    ``weight`` has the shape ``spec.weight_shape``; the data gradient is ``C.transpose``.
    """
    image_size, window_size, sources = _spec_sources(spec)
    outputs, depth = weight.shape[:2]
    taps, positions = sources.shape
    tap, window = np.nonzero(sources != _ZERO)
    rows, cols, values = [], [], []
    for output, channel in product(range(outputs), range(depth)):
        group = output // (outputs // spec.groups)
        rows.append(output * positions + window)
        cols.append((group * depth + channel) * math.prod(image_size) + sources[tap, window])
        values.append(weight[output, channel].reshape(taps)[tap])
    matrix = SparseMatrix(
        np.concatenate([np.zeros(0, np.intp), *rows]),
        np.concatenate([np.zeros(0, np.intp), *cols]),
        np.concatenate([np.zeros(0), *values]).astype(np.float64),
        (outputs * math.prod(window_size), depth * spec.groups * math.prod(image_size)),
    )
    return matrix.transpose if spec.transposed else matrix


def im2col(
    x: np.ndarray,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    padding_mode: str = "zeros",
) -> np.ndarray:
    """Returns the windows of ``x`` of shape (N, C, *spatial) as the columns of (N, C·∏kernel_size, positions) matrices.

    Rows run over channels, then kernel positions; columns over output positions, both in row-major order. The result
    has x's dtype.
    """
    size = x.shape[2:]
    windows = _window_counts(size, kernel_size, stride, padding, dilation)
    return _read_columns(x, _window_sources(size, windows, kernel_size, stride, padding, dilation, padding_mode))


def col2im(
    columns: np.ndarray,
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    padding_mode: str = "zeros",
) -> np.ndarray:
    """Returns the adjoint of ``im2col``: (N, C·∏kernel_size, positions) columns summed into images (N, C, *size)."""
    windows = _window_counts(size, kernel_size, stride, padding, dilation)
    sources = _window_sources(size, windows, kernel_size, stride, padding, dilation, padding_mode)
    return _sum_columns(columns, sources, size)


def conv_by_im2col(spec: ConvSpec, *operands: np.ndarray) -> Float64:
    """Returns the sums of ``spec`` in float64 as matrix products with im2col; operands and layout as in
    ``oracle.convolve``.

    With W the weights of a group as an (O, C·∏kernel) matrix and X the columns, y = W·X, the data gradient is
    col2im(Wᵀ·dy) and the weight gradient dy·Xᵀ. A transposed convolution is the data gradient of the convolution it
    mirrors.
    """
    image_size, window_size, sources = _spec_sources(spec)
    first, second = (np.asarray(operand, dtype=np.float64) for operand in operands)
    first = _channels_first(spec, first)
    if spec.direction == "backward_weights":
        second = _channels_first(spec, second)
        image, windows = (second, first) if spec.transposed else (first, second)
        groups = zip(np.split(image, spec.groups, axis=1), np.split(windows, spec.groups, axis=1), strict=True)
        parts = [_flat(part) @ np.swapaxes(_read_columns(x, sources), 1, 2) for x, part in groups]
        return np.asarray(np.concatenate(parts, axis=1).sum(axis=0).reshape(spec.weight_shape))
    outputs, depth = spec.weight_shape[:2]
    weights = np.split(second.reshape(outputs, depth * math.prod(spec.kernel_size)), spec.groups)
    pairs = list(zip(weights, np.split(first, spec.groups, axis=1), strict=True))
    if (spec.direction == "forward") != spec.transposed:
        products = np.concatenate([weight @ _read_columns(x, sources) for weight, x in pairs], axis=1)
        result = products.reshape(spec.batch, outputs, *window_size)
    else:
        images = [_sum_columns(weight.T @ _flat(part), sources, image_size) for weight, part in pairs]
        result = np.concatenate(images, axis=1)
    return np.moveaxis(result, 1, -1) if spec.layout == "channels_last" else result


def _channels_first(spec: ConvSpec, array: Float64) -> Float64:
    return np.moveaxis(array, -1, 1) if spec.layout == "channels_last" else array


def _flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(*array.shape[:2], math.prod(array.shape[2:]))


def _read_columns(x: np.ndarray, sources: NDArray[np.intp]) -> np.ndarray:
    flat = _flat(x)
    # One more element per channel, a zero: the index -1 of a padded read finds it.
    extended = np.concatenate([flat, np.zeros((*flat.shape[:2], 1), flat.dtype)], axis=2)
    batch, channels = x.shape[:2]
    return extended[:, :, sources].reshape(batch, channels * sources.shape[0], sources.shape[1])


def _sum_columns(columns: np.ndarray, sources: NDArray[np.intp], size: Sequence[int]) -> np.ndarray:
    batch, rows = columns.shape[:2]
    channels = rows // sources.shape[0]
    extended = np.zeros((math.prod(size) + 1, batch, channels), columns.dtype)
    np.add.at(extended, sources, np.moveaxis(columns.reshape(batch, channels, *sources.shape), (0, 1), (2, 3)))
    return np.moveaxis(extended[:_ZERO], 0, 2).reshape(batch, channels, *size)


def _spec_sources(spec: ConvSpec) -> tuple[tuple[int, ...], tuple[int, ...], NDArray[np.intp]]:
    """The sizes of the array read through windows and of the array with one element per window, and their sources."""
    image, windows = spec.spatial_size, spec.output_size
    if spec.transposed:
        image, windows = windows, image
    sources = _window_sources(
        image, windows, spec.kernel_size, spec.stride, spec.padding, spec.dilation, spec.padding_mode
    )
    return image, windows, sources


def _window_counts(
    size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int], padding: Padding, dilation: Sequence[int]
) -> tuple[int, ...]:
    axes = zip(size, kernel_size, stride, padding, dilation, strict=True)
    return tuple((lo + n + hi - (k - 1) * d - 1) // s + 1 for n, k, s, (lo, hi), d in axes)


def _window_sources(
    size: Sequence[int],
    windows: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    mode: str,
) -> NDArray[np.intp]:
    """The flat image index read at each (kernel position, output position), -1 for a zero; both row-major."""
    sources = np.empty((math.prod(kernel_size), math.prod(windows)), np.intp)
    for row, tap in enumerate(product(*map(range, kernel_size))):
        for column, window in enumerate(product(*map(range, windows))):
            axes = zip(size, window, stride, tap, dilation, padding, strict=True)
            index = [_source(w * s + t * d - lo, n, mode) for n, w, s, t, d, (lo, _) in axes]
            inside = _ZERO not in index
            sources[row, column] = np.ravel_multi_index(index, tuple(size)) if inside else _ZERO
    return sources


def _source(position: int, size: int, mode: str) -> int:
    """The element of an axis that a read at ``position`` finds, inside the axis or in its padding."""
    if 0 <= position < size:
        return position
    before = position < 0
    match mode:
        case "reflect":
            return -position if before else 2 * (size - 1) - position
        case "replicate":
            return 0 if before else size - 1
        case "circular":
            return position + size if before else position - size
        case _:
            return _ZERO
