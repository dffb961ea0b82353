"""im2col, col2im and the sparse matrix against the oracle, on integers and therefore exactly, over random problems."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convgen.errors import SpecError
from convgen.matrixform import SparseMatrix, col2im, conv_by_im2col, convolution_matrix, im2col
from convgen.oracle import convolve
from convgen.spec import DIRECTIONS, LAYOUTS, PADDING_MODES, ConvSpec


@st.composite
def problems(draw: st.DrawFn) -> ConvSpec:
    """Small valid problems of every geometry; out of range combinations are skipped."""
    ndim = draw(st.integers(1, 3))

    def per_axis(lo: int, hi: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(lo, hi), min_size=ndim, max_size=ndim)))

    groups, transposed = draw(st.integers(1, 3)), draw(st.booleans())
    try:
        return ConvSpec(
            batch=draw(st.integers(0, 2)),
            in_channels=groups * draw(st.integers(0, 2)),
            out_channels=groups * draw(st.integers(1, 2)),
            spatial_size=per_axis(1, 6 - ndim),
            kernel_size=per_axis(1, 3),
            stride=per_axis(1, 3),
            padding=tuple(zip(per_axis(-1, 3), per_axis(-1, 3), strict=True)),
            dilation=per_axis(1, 2),
            groups=groups,
            output_padding=per_axis(0, 1) if transposed else 0,
            transposed=transposed,
            padding_mode="zeros" if transposed else draw(st.sampled_from(PADDING_MODES)),
            direction=draw(st.sampled_from(DIRECTIONS)),
            layout=draw(st.sampled_from(LAYOUTS)),
        )
    except SpecError:
        assume(False)
        raise


def integers(spec: ConvSpec, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(-9, 10, shape) for shape in spec.operand_shapes.values()]


def by_matrix(matrix: SparseMatrix, images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    rows = [matrix.matvec(image.ravel()) for image in images]
    return np.asarray(rows).reshape(len(images), *shape)


@settings(max_examples=150)
@given(problems())
def test_im2col_agrees_with_the_oracle(spec: ConvSpec) -> None:
    operands = integers(spec)
    np.testing.assert_array_equal(conv_by_im2col(spec, *operands), convolve(spec, *operands))


@settings(max_examples=100)
@given(problems())
def test_sparse_matrix_agrees_with_the_oracle(spec: ConvSpec) -> None:
    forward = spec.replace(direction="forward", layout="channels_first")
    backward = forward.replace(direction="backward_data")
    x, w = integers(forward)
    grad, _ = integers(backward, seed=1)
    matrix = convolution_matrix(forward, w)
    assert matrix.shape == (math.prod(forward.output_shape[1:]), math.prod(forward.input_shape[1:]))
    np.testing.assert_array_equal(by_matrix(matrix, x, forward.output_shape[1:]), convolve(forward, x, w))
    data_gradient = by_matrix(matrix.transpose, grad, forward.input_shape[1:])
    np.testing.assert_array_equal(data_gradient, convolve(backward, grad, w))


def test_coordinates_that_occur_twice_add_up() -> None:
    matrix = SparseMatrix(np.array([0, 0, 1]), np.array([2, 2, 0]), np.array([1.0, 10.0, 5.0]), (2, 3))
    np.testing.assert_array_equal(matrix.matvec(np.array([1, 2, 3])), [33, 5])
    np.testing.assert_array_equal(matrix.transpose.matvec(np.array([1, 2])), [10, 0, 11])


def test_matrix_of_a_small_convolution_written_out() -> None:
    spec = ConvSpec(batch=1, in_channels=1, out_channels=1, spatial_size=4, kernel_size=2, padding=((1, 0),))
    matrix = convolution_matrix(spec, np.array([[[3, 5]]]))
    dense = np.stack([matrix.matvec(column) for column in np.eye(4)], axis=1)
    np.testing.assert_array_equal(dense, [[5, 0, 0, 0], [3, 5, 0, 0], [0, 3, 5, 0], [0, 0, 3, 5]])


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_col2im_is_the_adjoint_of_im2col(mode: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 10, (2, 3, 5, 4))
    geometry = ((3, 2), (2, 1), ((2, 1), (0, 3)), (1, 2), mode)
    columns = im2col(x, *geometry)
    other = rng.integers(-9, 10, columns.shape)
    back = col2im(other, x.shape[2:], *geometry)
    assert back.shape == x.shape
    assert np.vdot(columns, other) == np.vdot(x, back)


def test_im2col_is_torchs_unfold() -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 6))
    expected = torch.nn.functional.unfold(torch.from_numpy(x), (3, 2), dilation=(1, 2), padding=(1, 2), stride=(2, 1))
    np.testing.assert_array_equal(im2col(x, (3, 2), (2, 1), ((1, 1), (2, 2)), (1, 2)), expected.numpy())
