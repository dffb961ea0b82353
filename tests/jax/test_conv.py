"""convgen.jax: JAX's own numbers and gradients, under its transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convgen.errors import ConvgenError, DTypeError, OperandError, ShapeError

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

import convgen.jax as cj  # noqa: E402
from convgen.jax import ffi  # noqa: E402


def integers(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return jnp.asarray(np.random.default_rng(seed).integers(-3, 4, shape), dtype)


def reference(
    x: Any, w: Any, b: Any = None, *, stride: Any, padding: Any, dilation: Any = 1, groups: int = 1, last: bool = False
) -> Any:
    ndim = w.ndim - 2
    spatial = "DHW"[-ndim:]
    numbers = (
        (f"N{spatial}C", f"OI{spatial}", f"N{spatial}C") if last else (f"NC{spatial}", f"OI{spatial}", f"NC{spatial}")
    )
    y = jax.lax.conv_general_dilated(
        x,
        w,
        (stride,) * ndim,
        [(padding, padding)] * ndim,
        rhs_dilation=(dilation,) * ndim,
        dimension_numbers=numbers,
        feature_group_count=groups,
        precision="highest",
    )
    if b is None:
        return y
    return y + (b if last else b.reshape(-1, *(1,) * ndim))


PROBLEMS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "1d": ((2, 3, 11), (4, 3, 3), dict(stride=2, padding=1)),
    "2d": ((2, 4, 7, 6), (6, 4, 3, 3), dict(stride=1, padding=1)),
    "2d groups": ((1, 4, 8, 8), (6, 2, 3, 3), dict(stride=2, padding=0, dilation=2, groups=2)),
    "3d": ((1, 2, 4, 5, 4), (3, 2, 2, 3, 2), dict(stride=1, padding=1)),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "wrap", [pytest.param(lambda f: f, id="plain", marks=pytest.mark.slow), pytest.param(jax.jit, id="jit")]
)
def test_numbers_and_gradients_are_exact(name: str, last: bool, wrap: Callable[[Any], Any]) -> None:
    image, weight, options = PROBLEMS[name]
    x, w, b = integers(*image), integers(*weight, seed=1), integers(weight[0], seed=2)
    x = jnp.moveaxis(x, 1, -1) if last else x
    layout = "channels_last" if last else "channels_first"

    def ours(x: Any, w: Any, b: Any) -> Any:
        return cj.conv(x, w, b, layout=layout, **options)

    def theirs(x: Any, w: Any, b: Any) -> Any:
        return reference(x, w, b, last=last, **options)

    np.testing.assert_array_equal(wrap(ours)(x, w, b), theirs(x, w, b))
    np.testing.assert_array_equal(
        wrap(lambda x, w: cj.conv(x, w, layout=layout, **options))(x, w), reference(x, w, last=last, **options)
    )
    both = [wrap(jax.grad(lambda *given, f=f: (f(*given) ** 2).sum(), (0, 1, 2)))(x, w, b) for f in (ours, theirs)]
    for mine, other in zip(*both, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_the_transposed_convolution_is_the_adjoint() -> None:
    x, w, y = integers(2, 4, 8, 7), integers(6, 4, 3, 2, seed=1), integers(2, 6, 4, 4, seed=2)
    forward = cj.conv(x, w, stride=2, padding=(1, 1), dilation=1)
    y = integers(*forward.shape, seed=2)
    back = cj.conv_transpose(y, w, stride=2, padding=(1, 1), output_padding=(1, 1))
    assert back.shape == x.shape
    assert (forward * y).sum() == (back * x).sum()
    of_y = jax.grad(lambda y: (cj.conv_transpose(y, w, stride=2, padding=1, output_padding=1) * x).sum())(y)
    np.testing.assert_array_equal(of_y, forward)


def test_second_derivatives() -> None:
    x, w = integers(1, 2, 5, 5), integers(3, 2, 3, 3, seed=1)

    def twice(conv: Callable[[Any, Any], Any]) -> Any:
        def loss(w: Any) -> Any:
            return (jax.grad(lambda x: (conv(x, w) ** 2).sum())(x) ** 2).sum()

        return jax.grad(loss)(w)

    mine = twice(lambda x, w: cj.conv(x, w, padding=1))
    np.testing.assert_array_equal(mine, twice(lambda x, w: reference(x, w, stride=1, padding=1)))


def test_vmap() -> None:
    x, w = integers(3, 2, 2, 6, 6), integers(3, 4, 2, 3, 3, seed=1)
    images = jax.vmap(lambda x: cj.conv(x, w[0]))(x)
    each = jax.jit(jax.vmap(cj.conv))(x, w)
    for i in range(3):
        np.testing.assert_array_equal(images[i], cj.conv(x[i], w[0]))
        np.testing.assert_array_equal(each[i], cj.conv(x[i], w[i]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_types(dtype: str) -> None:
    x, w = integers(1, 3, 6, 6, dtype=dtype), integers(4, 3, 3, 3, seed=1, dtype=dtype)
    y = cj.conv(x, w)
    assert y.dtype == dtype
    expected = reference(x.astype("float32"), w.astype("float32"), stride=1, padding=0)
    np.testing.assert_array_equal(y.astype("float32"), expected)


def test_an_image_without_a_batch_and_numpy_arrays() -> None:
    x, w = np.ones((2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)
    np.testing.assert_array_equal(cj.conv(x, w), np.full((3, 3, 3), 18, np.float32))


X, W = np.zeros((1, 4, 5, 5), np.float32), np.zeros((6, 4, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: cj.conv(3.0, W), OperandError, "input is a float"),
        (lambda: cj.conv(X, W[0, 0]), ShapeError, "weight"),
        (lambda: cj.conv(X[:, :2], W), ShapeError, "weight has shape"),
        (lambda: cj.conv(X, W, np.zeros(5, np.float32)), ShapeError, "bias has shape"),
        (lambda: cj.conv(X.astype(int), W.astype(int)), DTypeError, "input has dtype int"),
        (lambda: cj.conv(X, W.astype(np.float16)), DTypeError, "weight has dtype float16"),
        (lambda: cj.conv(X, W, stride=0), ConvgenError, "stride"),
        (lambda: cj.conv(X, W, groups=3), ConvgenError, "groups"),
    ],
)
def test_bad_input_is_named(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_an_error_of_the_kernel_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    x = jnp.asarray(X)
    run = jax.jit(lambda x: cj.conv(x, W, padding=2))
    run(x)

    def fails(problem: str) -> Any:
        raise RuntimeError("the kernel is gone")

    monkeypatch.setattr(ffi, "operator_of", fails)
    with pytest.raises(Exception, match="the kernel is gone"):
        run(x).block_until_ready()
