"""The oracle against PyTorch in float64: sums and gradients over a corpus of geometries, and every epilogue step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from convgen.errors import OperandError, ShapeError
from convgen.oracle import apply_step, convolve, magnitude, reference
from convgen.spec import ACTIVATIONS, DIRECTIONS, LAYOUTS, ConvSpec, Epilogue

Fields = dict[str, Any]

BASE: Fields = dict(batch=2, in_channels=4, out_channels=6, spatial_size=(7, 6), kernel_size=(3, 2))

GEOMETRIES: dict[str, Fields] = {
    "1d": dict(spatial_size=(11,), kernel_size=(4,), stride=3, padding=((2, 1),), dilation=2),
    "2d": dict(),
    "3d": dict(spatial_size=(4, 5, 6), kernel_size=(2, 3, 1), stride=(1, 2, 3), padding=((1, 0), (0, 2), (1, 1))),
    "stride leaves a remainder": dict(spatial_size=(8, 9), stride=(3, 2)),
    "dilated": dict(dilation=(2, 3), padding=2),
    "asymmetric": dict(padding=((2, 0), (1, 3))),
    "cropped": dict(padding=((-1, 2), (1, -2))),
    "full": dict(padding=(2, 1)),
    "padding beyond the input": dict(spatial_size=(2, 3), padding=((5, 4), (4, 6))),
    "groups": dict(groups=2, padding=1),
    "depthwise": dict(groups=4, out_channels=4, padding=1, stride=2),
    "depthwise multiplier": dict(groups=4, out_channels=12, padding=1),
    "pointwise": dict(kernel_size=(1, 1)),
    "kernel as large as the input": dict(kernel_size=(7, 6)),
    "many taps of one channel": dict(in_channels=1, spatial_size=(9, 9), kernel_size=(7, 5), padding=3),
    "reflect": dict(padding=((2, 1), (3, 0)), padding_mode="reflect", stride=2),
    "reflect 3d": dict(spatial_size=(4, 3, 4), kernel_size=2, padding=((1, 3), (2, 1), (0, 2)), padding_mode="reflect"),
    "replicate": dict(padding=((4, 1), (0, 9)), padding_mode="replicate", dilation=2),
    "circular": dict(padding=((7, 1), (2, 6)), padding_mode="circular", groups=2),
    "circular 1d": dict(spatial_size=(5,), kernel_size=(3,), padding=((4, 5),), padding_mode="circular"),
    "transposed 1d": dict(transposed=True, spatial_size=(5,), kernel_size=(3,), stride=2, padding=1, output_padding=1),
    "transposed": dict(transposed=True, stride=(2, 3), padding=((1, 0), (2, 1)), output_padding=(1, 2), groups=2),
    "transposed 3d": dict(transposed=True, spatial_size=(2, 3, 2), kernel_size=(3, 1, 2), stride=2, padding=(1, 0, 0)),
    "transposed depthwise": dict(transposed=True, groups=4, out_channels=8, stride=2),
    "transposed grown": dict(transposed=True, padding=((-1, 2), (1, -3))),
    "output padding beyond the stride": dict(transposed=True, stride=1, dilation=3, output_padding=2, padding=1),
}


def make_spec(fields: Fields, **more: Any) -> ConvSpec:
    return ConvSpec(**{**BASE, **fields, **more})


def draw(spec: ConvSpec, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in spec.operand_shapes.items()}


def torch_result(spec: ConvSpec, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The sums of ``spec`` by PyTorch's forward functions and autograd, on channels_first arrays in float64."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    channels_first = spec.replace(layout="channels_first")
    x = torch.zeros(channels_first.input_shape, dtype=torch.float64, requires_grad=True)
    w = torch.zeros(spec.weight_shape, dtype=torch.float64, requires_grad=True)
    one, two = torch.from_numpy(first.copy()), torch.from_numpy(second.copy())
    with torch.no_grad():
        if spec.direction != "backward_data":
            x += one
        if spec.direction != "backward_weights":
            w += two
    geometry = dict(stride=spec.stride, dilation=spec.dilation, groups=spec.groups)
    pads = [amount for pair in reversed(spec.padding) for amount in pair]
    if spec.transposed:
        convolution = getattr(functional, f"conv_transpose{spec.ndim}d")
        whole = convolution(x, w, output_padding=spec.output_padding, **geometry)
        y = functional.pad(whole, [-amount for amount in pads])
    else:
        mode = "constant" if spec.padding_mode == "zeros" else spec.padding_mode
        y = getattr(functional, f"conv{spec.ndim}d")(functional.pad(x, pads, mode), w, **geometry)
    if spec.direction == "forward":
        return np.asarray(y.detach().numpy())
    variable, grad = (x, one) if spec.direction == "backward_data" else (w, two)
    return np.asarray(torch.autograd.grad(y, variable, grad)[0].numpy())


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_sums_are_torchs(geometry: str, direction: str) -> None:
    spec = make_spec(GEOMETRIES[geometry], direction=direction)
    first, second = draw(spec).values()
    result = reference(spec, first, second)
    assert result.dtype == np.float64
    assert result.shape == spec.result_shape
    np.testing.assert_allclose(result, torch_result(spec, first, second), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("transposed", [False, True])
def test_layout_only_moves_the_channels(direction: str, transposed: bool) -> None:
    fields: Fields = dict(direction=direction, transposed=transposed, groups=2, stride=2, padding=1)
    first_spec, last_spec = (make_spec(fields, layout=layout) for layout in LAYOUTS)
    operands = draw(first_spec)

    def move(name: str, array: np.ndarray) -> np.ndarray:
        return array if name == "weight" else np.moveaxis(array, 1, -1)

    result = convolve(last_spec, *(move(name, array) for name, array in operands.items()))
    expected = convolve(first_spec, *operands.values())
    assert result.shape == last_spec.result_shape
    np.testing.assert_array_equal(result, move("weight" if direction == "backward_weights" else "", expected))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("batch", "channels"), [(0, 4), (2, 0), (0, 0)])
def test_empty_problems(direction: str, batch: int, channels: int) -> None:
    spec = make_spec(dict(batch=batch, in_channels=channels, padding=1, direction=direction))
    result = convolve(spec, *draw(spec).values())
    assert result.shape == spec.result_shape
    assert not result.any()


def test_no_input_channels_give_the_bias() -> None:
    spec = make_spec(dict(in_channels=0, epilogue=("bias",)))
    operands = draw(spec)
    result = reference(spec, operands["input"], operands["weight"], bias=operands["bias"])
    np.testing.assert_array_equal(result, np.broadcast_to(operands["bias"][:, None, None], spec.output_shape))


def test_int8_extremes_are_exact() -> None:
    spec = ConvSpec(batch=1, in_channels=4096, out_channels=1, spatial_size=5, kernel_size=3, dtype="int8")
    first = np.full(spec.input_shape, -128, np.int8)
    second = np.full(spec.weight_shape, -128, np.int8)
    second[0, 7, 1] = 127
    assert set(reference(spec, first, second).ravel()) == {(4096 * 3 - 1) * 128 * 128 - 128 * 127}


def test_nan_stays_inside_its_windows() -> None:
    spec = make_spec(dict(batch=1, padding=1, padding_mode="replicate"))
    operands = draw(spec)
    operands["input"][0, 0, 3, 3] = math.nan
    spoiled = np.argwhere(np.isnan(reference(spec, *operands.values())[0, 0]))
    assert {tuple(index) for index in spoiled.tolist()} == {(row, column) for row in (2, 3, 4) for column in (3, 4)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_epilogue_steps_apply_in_order(layout: str) -> None:
    steps = ("scale", "shift", "relu", "residual", "leaky_relu", "bias")
    spec = make_spec(dict(layout=layout, epilogue=Epilogue(steps, negative_slope=0.25)))
    operands = draw(spec)
    extras = {name: operands[name] for name in spec.epilogue.operands}
    total = convolve(spec, operands["input"], operands["weight"])
    channels = {n: v if layout == "channels_last" else v[:, None, None] for n, v in extras.items() if n != "residual"}
    value = np.maximum(total * channels["scale"] + channels["shift"], 0) + extras["residual"]
    expected = np.where(value > 0, value, 0.25 * value) + channels["bias"]
    np.testing.assert_array_equal(reference(spec, operands["input"], operands["weight"], **extras), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_torchs(activation: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.concatenate([np.linspace(-12, 12, 481), [-700.0, -40.0, 40.0, 700.0, math.nan, math.inf]])
    function = getattr(torch.nn.functional, activation)
    expected = function(torch.from_numpy(x)).numpy()
    result = apply_step(make_spec({}), activation, x)
    # PyTorch's own gelu cancels far below zero, to about 1e-15 in absolute terms.
    np.testing.assert_allclose(result, expected, rtol=4e-16 * 8, atol=1e-14 if activation == "gelu" else 1e-300)


def test_gelu_keeps_its_relative_accuracy_in_the_tail() -> None:
    # 10·erfc(10/√2)/2 to 16 digits, by arbitrary-precision arithmetic.
    result = apply_step(make_spec({}), "gelu", np.array([-10.0]))
    assert result[0] == pytest.approx(-7.619853024160526e-23, rel=1e-14, abs=0)


def test_magnitude_sums_absolute_values() -> None:
    spec = make_spec(dict(epilogue=("bias",)))
    operands = draw(spec)
    positive = {name: np.abs(array) for name, array in operands.items()}
    expected = reference(spec, positive["input"], positive["weight"], bias=positive["bias"])
    result = magnitude(spec, operands["input"], operands["weight"], bias=operands["bias"])
    np.testing.assert_array_equal(result, expected)


def test_wrong_operands_are_named() -> None:
    spec = make_spec(dict(epilogue=("bias", "residual")))
    x, w, bias, residual = draw(spec).values()
    with pytest.raises(OperandError, match="bias is missing"):
        reference(spec, x, w, residual=residual)
    with pytest.raises(OperandError, match="scale is superfluous"):
        reference(spec, x, w, bias=bias, residual=residual, scale=bias)
    with pytest.raises(OperandError, match="1 operands were given"):
        reference(spec, x, bias=bias, residual=residual)
    with pytest.raises(ShapeError, match=r"weight has shape \(5, 4, 3, 2\)"):
        reference(spec, x, w[1:], bias=bias, residual=residual)
    with pytest.raises(ShapeError, match=r"bias has shape \(5,\)"):
        reference(spec, x, w, bias=bias[1:], residual=residual)
    with pytest.raises(ShapeError, match="residual has shape"):
        reference(spec, x, w, bias=bias, residual=residual[:1])
