"""PyTorch's own sample and error inputs of its convolutions, through compiled kernels, against PyTorch in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import convgen
from convgen.errors import ConvgenError
from convgen.spec import ConvSpec

torch = pytest.importorskip("torch")
database = pytest.importorskip("torch.testing._internal.common_methods_invocations").op_db

FORWARD = ("conv1d", "conv2d", "conv3d")
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
DTYPES = ("float64", "float32")
# The order of the optional arguments in PyTorch's signatures.
ARGUMENTS = {
    "conv": ("stride", "padding", "dilation", "groups"),
    "conv_transpose": ("stride", "padding", "output_padding", "groups", "dilation"),
}


def entry(name: str) -> Any:
    (found,) = [op for op in database if op.name == f"nn.functional.{name}"]
    return found


def convgen_call(name: str, sample: Any) -> tuple[Callable[..., np.ndarray], list[Any], dict[str, Any]]:
    """The function of convgen that stands for PyTorch's, the sample's arrays, and its options by name."""
    function = name.rstrip("123d") if name.endswith("d") else name
    arrays = [sample.input, *sample.args[:2]]
    options = dict(zip(ARGUMENTS[function], sample.args[2:], strict=False)) | sample.kwargs
    return getattr(convgen, function), [None if a is None else a.numpy() for a in arrays], options


def torch_result(sample: Any, op: Any) -> Any:
    """PyTorch's result in float64, and what a sum of absolute values comes to."""
    wide = [None if a is None else a.double() for a in (sample.input, *sample.args[:2])]
    size = [None if a is None else a.abs() for a in wide]
    rest = sample.args[2:]
    return op.op(*wide, *rest, **sample.kwargs).numpy(), op.op(*size, *rest, **sample.kwargs).numpy()


def samples(name: str, dtype: str) -> list[Any]:
    """The distinct samples: many come twice with other numbers."""
    torch.manual_seed(0)
    found = entry(name).sample_inputs("cpu", getattr(torch, dtype), requires_grad=False)
    distinct: dict[str, Any] = {}
    for sample in found:
        shapes = [None if a is None else tuple(a.shape) for a in (sample.input, *sample.args[:2])]
        distinct.setdefault(f"{shapes} {sample.args[2:]} {sorted(sample.kwargs.items())}", sample)
    return list(distinct.values())


def assert_close(result: np.ndarray, expected: np.ndarray, size: np.ndarray, terms: int, dtype: str) -> None:
    unit = 2.0**-24 if dtype == "float32" else 2.0**-52
    assert result.dtype == np.dtype(dtype)
    assert result.shape == expected.shape
    assert np.all(np.abs(result - expected) <= (terms + 2) * unit * size)


QUICK = (("conv1d", "float64"), ("conv2d", "float32"), ("conv_transpose1d", "float32"))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if (name, dtype) in QUICK else pytest.mark.slow)
        for name in (*FORWARD, *TRANSPOSED)
        for dtype in DTYPES
    ],
)
def test_sample_inputs(name: str, dtype: str) -> None:
    chosen = samples(name, dtype)
    assert len(chosen) >= 5
    for sample in chosen:
        function, arrays, options = convgen_call(name, sample)
        expected, size = torch_result(sample, entry(name))
        result = function(*arrays, **options)
        assert_close(result, expected, size, arrays[1].size + 1, dtype)


@dataclass(frozen=True)
class Gradients:
    """Small integers as float32 for a sample's operands and grad_output, and PyTorch's gradients in float64."""

    x: np.ndarray
    w: np.ndarray
    dy: np.ndarray
    dx: np.ndarray
    dw: np.ndarray


def gradients(sample: Any, op: Any) -> Gradients:
    x, w = (torch.randint(-3, 4, a.shape).double().requires_grad_() for a in (sample.input, sample.args[0]))
    y = op.op(x, w, None, *sample.args[2:], **sample.kwargs)
    dy = torch.randint(-3, 4, y.shape).double()
    dx, dw = torch.autograd.grad(y, (x, w), dy)
    x32, w32, dy32 = (a.detach().numpy().astype(np.float32) for a in (x, w, dy))
    return Gradients(x32, w32, dy32, dx.numpy(), dw.numpy())


def batched_samples(name: str) -> list[Any]:
    return [sample for sample in samples(name, "float32") if sample.input.ndim == sample.args[0].ndim]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORWARD)
def test_gradients_of_sample_inputs(name: str) -> None:
    for sample in batched_samples(name):
        _, _, options = convgen_call(name, sample)
        known = gradients(sample, entry(name))
        result = convgen.conv_backward_data(known.dy, known.w, known.x.shape, **options)
        np.testing.assert_array_equal(result, known.dx)
        result = convgen.conv_backward_weights(known.x, known.dy, known.w.shape[2:], **options)
        np.testing.assert_array_equal(result, known.dw)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSPOSED)
def test_gradients_of_transposed_sample_inputs(name: str) -> None:
    for sample in batched_samples(name):
        _, _, options = convgen_call(name, sample)
        known = gradients(sample, entry(name))
        spec = ConvSpec(
            batch=known.x.shape[0],
            in_channels=known.x.shape[1],
            out_channels=known.dy.shape[1],
            spatial_size=known.x.shape[2:],
            kernel_size=known.w.shape[2:],
            transposed=True,
            direction="backward_data",
            **options,
        )
        np.testing.assert_array_equal(convgen.compile(spec)(known.dy, known.w), known.dx)
        weights = convgen.compile(spec.replace(direction="backward_weights"))
        np.testing.assert_array_equal(weights(known.x, known.dy), known.dw)


@pytest.mark.parametrize("name", FORWARD)
def test_error_inputs(name: str) -> None:
    """What PyTorch refuses is refused. It wants the bias in the weight's type and so do we."""
    errors = list(entry(name).error_inputs("cpu"))
    assert len(errors) >= 8
    for error in errors:
        function, arrays, options = convgen_call(name, error.sample_input)
        with pytest.raises(ConvgenError):
            function(*arrays, **options)
