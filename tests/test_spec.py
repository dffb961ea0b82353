from __future__ import annotations

import dataclasses
import json
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch

from convgen.errors import DTypeError, SpecError
from convgen.spec import ConvSpec, Epilogue


def make(**changes: Any) -> ConvSpec:
    fields: dict[str, Any] = {
        "batch": 2,
        "in_channels": 4,
        "out_channels": 6,
        "spatial_size": (9, 8),
        "kernel_size": 3,
    }
    return ConvSpec(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "padding"),
    [
        ({"padding": 1}, ((1, 1), (1, 1))),
        ({"padding": (1, 2)}, ((1, 1), (2, 2))),
        ({"padding": [2]}, ((2, 2), (2, 2))),
        ({"padding": ((0, 1), (-2, 3))}, ((0, 1), (-2, 3))),
        ({"padding": (1, (0, 2))}, ((1, 1), (0, 2))),
        ({"padding": "valid"}, ((0, 0), (0, 0))),
        ({"padding": "same", "kernel_size": (3, 4)}, ((1, 1), (1, 2))),
        ({"padding": "same", "kernel_size": (2, 4), "dilation": (3, 1)}, ((1, 2), (1, 2))),
    ],
)
def test_padding_becomes_pairs(changes: dict[str, Any], padding: tuple[tuple[int, int], ...]) -> None:
    assert make(**changes).padding == padding


def test_axes_come_from_the_first_sequence() -> None:
    assert make(spatial_size=9, kernel_size=3).spatial_size == (9,)
    assert make(spatial_size=9, kernel_size=(3, 2)).spatial_size == (9, 9)
    assert make(spatial_size=9, padding=((0, 1), (1, 0), 2)).ndim == 3
    spec = make(spatial_size=(9, 8, 7), stride=(2,))
    assert (spec.ndim, spec.kernel_size, spec.stride) == (3, (3, 3, 3), (2, 2, 2))


def test_equal_problems_are_equal_however_they_are_written() -> None:
    one = make(padding="same", kernel_size=[3, 3], dtype=np.float32, epilogue=["bias", "relu"])
    other = make(
        batch=np.int64(2),
        spatial_size=[np.int32(9), 8],
        padding=((1, 1), 1),
        dtype="float32",
        epilogue=Epilogue(("bias", "relu")),
    )
    assert one == other
    assert hash(one) == hash(other)
    assert type(other.batch) is int
    assert type(other.spatial_size[0]) is int
    assert one != make(padding="same")
    assert pickle.loads(pickle.dumps(one)) == one


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().batch = 3  # type: ignore[misc]


CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"stride": (2, 3), "padding": 1, "dilation": (1, 2)},
    {"padding": "same", "kernel_size": 4, "dilation": 2},
    {"groups": 2, "kernel_size": (9, 8)},
    {"spatial_size": 7, "stride": 2},
    {"spatial_size": (5, 4, 3), "kernel_size": (2, 1, 3)},
    {"batch": 0, "padding": 2},
    {"batch": 0, "spatial_size": (0, 4), "padding": 2},
]


@pytest.mark.parametrize("changes", CONVOLUTIONS)
def test_output_shape_is_that_of_torch(changes: dict[str, Any]) -> None:
    spec = make(**changes)
    conv = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[spec.ndim - 1]
    padding = changes.get("padding", 0)
    y = conv(
        torch.zeros(spec.input_shape),
        torch.zeros(spec.weight_shape),
        stride=spec.stride,
        padding=padding,
        dilation=spec.dilation,
        groups=spec.groups,
    )
    assert tuple(y.shape) == spec.output_shape


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stride": 2, "output_padding": 1, "padding": (1, 2)},
        {"stride": 2, "dilation": 3, "output_padding": 2},
        {"groups": 2, "spatial_size": 9, "padding": 5},
        {"spatial_size": (2, 3, 4), "kernel_size": 1},
    ],
)
def test_output_shape_is_that_of_torch_when_transposed(changes: dict[str, Any]) -> None:
    spec = make(transposed=True, **changes)
    functions = (
        torch.nn.functional.conv_transpose1d,
        torch.nn.functional.conv_transpose2d,
        torch.nn.functional.conv_transpose3d,
    )
    y = functions[spec.ndim - 1](
        torch.zeros(spec.input_shape),
        torch.zeros(spec.weight_shape),
        stride=spec.stride,
        padding=changes.get("padding", 0),
        output_padding=spec.output_padding,
        groups=spec.groups,
        dilation=spec.dilation,
    )
    assert tuple(y.shape) == spec.output_shape


def test_shapes_follow_the_layout_and_the_direction() -> None:
    spec = make(layout="channels_last", groups=2, epilogue=("scale", "bias", "relu", "residual"))
    assert spec.input_shape == (2, 9, 8, 4)
    assert spec.weight_shape == (6, 2, 3, 3)
    assert spec.output_shape == (2, 7, 6, 6)
    assert list(spec.operand_shapes.items()) == [
        ("input", (2, 9, 8, 4)),
        ("weight", (6, 2, 3, 3)),
        ("bias", (6,)),
        ("residual", (2, 7, 6, 6)),
        ("scale", (6,)),
    ]
    assert spec.result_shape == spec.output_shape
    data = make(direction="backward_data")
    assert data.operand_shapes == {"grad_output": (2, 6, 7, 6), "weight": (6, 4, 3, 3)}
    assert data.result_shape == (2, 4, 9, 8)
    weights = make(direction="backward_weights", transposed=True)
    assert weights.operand_shapes == {"input": (2, 4, 9, 8), "grad_output": (2, 6, 11, 10)}
    assert weights.result_shape == (4, 6, 3, 3)


def test_costs() -> None:
    spec = make(groups=2, dtype="int8", epilogue=("bias",))
    assert spec.macs == 2 * 6 * (7 * 6) * 2 * 9
    assert spec.flops == 2 * spec.macs
    # int8 operands, int32 results
    assert (spec.input_bytes, spec.weight_bytes, spec.output_bytes) == (576, 108, 4 * 504)
    assert spec.bytes_moved == 576 + 108 + 4 * 504 + 4 * 6
    assert spec.arithmetic_intensity == spec.flops / spec.bytes_moved
    assert make(transposed=True).macs == 2 * (9 * 8) * 4 * 6 * 9
    assert make(direction="backward_weights", dtype="float64").weight_bytes == 8 * 6 * 4 * 9


def test_empty_problems() -> None:
    spec = make(in_channels=0, groups=2)
    assert spec.weight_shape == (6, 0, 3, 3)
    assert spec.macs == 0
    assert spec.output_shape == (2, 6, 7, 6)
    assert make(batch=0).arithmetic_intensity == 0.0


def test_sizes_do_not_overflow() -> None:
    spec = make(batch=np.int64(2**40), in_channels=2**40, spatial_size=np.int32(2**30), kernel_size=1)
    assert spec.macs == 2**40 * 2**40 * 2**30 * 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": -1}, "batch=-1"),
        ({"batch": True}, "batch=True"),
        ({"batch": 2.0}, "batch=2.0"),
        ({"in_channels": "4"}, "in_channels='4'"),
        ({"out_channels": 0}, "out_channels=0"),
        ({"spatial_size": ()}, "spatial_size=()"),
        ({"spatial_size": (4, 4, 4, 4)}, "spatial_size=(4, 4, 4, 4)"),
        ({"spatial_size": (0, 8), "padding": 2}, "spatial_size=(0, 8)"),
        ({"spatial_size": (0, 8), "padding": 2, "batch": 0, "padding_mode": "replicate"}, "'replicate'"),
        ({"kernel_size": 0}, "kernel_size=0"),
        ({"kernel_size": (3,)}, "kernel_size=(3,)"),
        ({"kernel_size": (3, 9)}, "kernel_size=(3, 9)"),
        ({"dilation": 4}, "dilation=(4, 4)"),
        ({"stride": 0}, "stride=0"),
        ({"stride": (1, -2)}, "stride=-2"),
        ({"stride": (1, 2, 1)}, "stride=(1, 2, 1)"),
        ({"padding": -1}, "padding=-1"),
        ({"padding": (0, -1)}, "padding=(0, -1)"),
        ({"padding": ((1, 2, 3), 0)}, "(1, 2, 3)"),
        ({"padding": ((0, -4), (0, -6))}, "padding=((0, -4), (0, -6))"),
        ({"padding": "full"}, "padding='full'"),
        ({"padding": "same", "stride": 2}, "stride=(2, 2)"),
        ({"padding": None}, "padding=None"),
        ({"padding": "same", "transposed": True}, "padding='same'"),
        ({"padding": 8, "padding_mode": "reflect"}, "padding=((8, 8), (8, 8))"),
        ({"padding": (0, 9), "padding_mode": "circular"}, "padding=((0, 0), (9, 9))"),
        ({"padding": 1, "padding_mode": "reflect", "transposed": True}, "padding_mode='reflect'"),
        ({"padding_mode": "wrap"}, "padding_mode='wrap'"),
        ({"groups": 0}, "groups=0"),
        ({"groups": 3}, "in_channels=4"),
        ({"groups": 4}, "out_channels=6"),
        ({"output_padding": 1}, "output_padding=(1, 1)"),
        ({"output_padding": (0, 2), "stride": 2, "transposed": True}, "output_padding=(0, 2)"),
        ({"padding": 6, "transposed": True}, "padding=((6, 6), (6, 6))"),
        ({"transposed": 1}, "transposed=1"),
        ({"direction": "backward"}, "direction='backward'"),
        ({"layout": "NHWC"}, "layout='NHWC'"),
        ({"accuracy": "exact"}, "accuracy='exact'"),
        ({"accuracy": 0.0}, "accuracy=0.0"),
        ({"accuracy": float("nan")}, "accuracy=nan"),
        ({"accuracy": True}, "accuracy=True"),
        ({"epilogue": "relu"}, "'relu'"),
        ({"epilogue": ("swish",)}, "'swish'"),
        ({"epilogue": ("bias", "relu", "bias")}, "'bias'"),
        ({"epilogue": ("relu",), "direction": "backward_data"}, "direction='forward'"),
    ],
)
def test_bad_arguments_are_named_with_their_value(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        make(**changes)


@pytest.mark.parametrize(("mode", "largest"), [("reflect", 7), ("circular", 8), ("replicate", 30)])
def test_the_largest_padding_of_a_mode_is_accepted(mode: str, largest: int) -> None:
    assert make(padding=(0, largest), padding_mode=mode).output_size == (7, 6 + 2 * largest)


@pytest.mark.parametrize("dtype", ["float8", "int16", None, 3])
def test_unsupported_dtype(dtype: object) -> None:
    with pytest.raises(DTypeError, match=str(dtype)):
        make(dtype=dtype)


def test_bad_epilogue_slope() -> None:
    with pytest.raises(SpecError, match="negative_slope=inf"):
        Epilogue(("leaky_relu",), float("inf"))


def test_replace_validates() -> None:
    assert make(stride=2).replace(stride=1, batch=5) == make(batch=5)
    with pytest.raises(SpecError, match="stride=0"):
        make().replace(stride=0)
    with pytest.raises(SpecError, match="'strides'"):
        make().replace(strides=1)


def test_json_keys_are_the_fields_in_order() -> None:
    text = make(epilogue=("bias",), accuracy=1e-3).to_json()
    assert list(json.loads(text)) == [field.name for field in dataclasses.fields(ConvSpec)]
    assert "\n" not in text
    assert ConvSpec.from_json('{"batch":1,"in_channels":4,"out_channels":6,"spatial_size":8,"kernel_size":3}').ndim == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "'colour'"),
        ({"batch": "2"}, "batch='2'"),
        ({"batch": 2.5}, "batch=2.5"),
        ({"batch": None}, "batch=None"),
        ({"dtype": 5}, "dtype=5"),
        ({"transposed": "no"}, "transposed='no'"),
        ({"epilogue": ["bias"]}, "epilogue="),
        ({"epilogue": {"steps": [1]}}, "epilogue step=1"),
        ({"epilogue": {"name": "relu"}}, "'name'"),
        ({"padding": {"lo": 1}}, "padding="),
    ],
)
def test_json_with_bad_entries(change: dict[str, Any], message: str) -> None:
    fields = {**json.loads(make().to_json()), **change}
    with pytest.raises(SpecError, match=re.escape(message)):
        ConvSpec.from_json(json.dumps(fields))


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "{}", "[" * 100_000, 7])
def test_text_that_is_no_json_problem(text: Any) -> None:
    with pytest.raises(SpecError):
        ConvSpec.from_json(text)


def test_str_is_short_and_tells_problems_apart() -> None:
    spec = make(stride=2, padding=((0, 1), 1), dilation=2, groups=2, epilogue=("bias", "relu"))
    assert str(spec) == "g2mb2_ic4i9x8_oc6o3x3_k3x3_s2x2_p0:1x1_d1x1 bias+relu"
    assert str(make(transposed=True, direction="backward_data")) == (
        "mb2_ic4i9x8_oc6o11x10_k3x3 backward_data transposed"
    )


def test_padding_is_zero() -> None:
    assert make().padding_is_zero
    assert not make(padding=((0, 0), (1, -1))).padding_is_zero


@pytest.mark.parametrize("transposed", [False, True])
def test_channels_made_and_reduced_and_who_writes_with_a_stride(transposed: bool) -> None:
    spec = ConvSpec(
        batch=1, in_channels=6, out_channels=10, groups=2, spatial_size=(8,), kernel_size=2, stride=2,
        transposed=transposed,
    )  # fmt: skip
    seen = {
        direction: (other.made_channels, other.reduced_channels, other.writes_with_stride)
        for direction in ("forward", "backward_data", "backward_weights")
        if (other := spec.replace(direction=direction))
    }
    assert seen["forward"] == (5, 3, transposed)
    assert seen["backward_data"] == (3, 5, not transposed)
    assert seen["backward_weights"][:2] == ((3, 5) if transposed else (5, 3))


def test_pointwise_is_one_tap_without_stride_or_padding() -> None:
    plain = ConvSpec(batch=1, in_channels=2, out_channels=2, spatial_size=(4, 4), kernel_size=1)
    assert plain.is_pointwise
    assert plain.replace(transposed=True).is_pointwise
    for changes in ({"kernel_size": (1, 2)}, {"stride": (2, 1)}, {"padding": ((0, 0), (1, 0))}):
        assert not plain.replace(**changes).is_pointwise
    assert not plain.replace(transposed=True, dilation=2, output_padding=1).is_pointwise


def quantized(**fields: Any) -> ConvSpec:
    base: dict[str, Any] = dict(
        batch=1,
        in_channels=4,
        out_channels=6,
        spatial_size=(5, 5),
        kernel_size=3,
        dtype="int8",
        epilogue=("requantize",),
    )
    return ConvSpec(**{**base, **fields})


def test_requantized_results_are_bytes() -> None:
    spec = quantized(epilogue=Epilogue(("bias", "relu", "requantize"), zero_point=-3))
    assert spec.result_dtype == "int8"
    assert {name: spec.operand_dtype(name) for name in spec.operand_shapes} == {
        "input": "int8",
        "weight": "int8",
        "bias": "int32",
        "requantize": "float32",
    }
    assert spec.operand_shapes["requantize"] == (6,)
    assert spec.output_bytes * 4 == spec.replace(epilogue=()).output_bytes
    assert ConvSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(dtype="float32"), "'requantize' needs dtype='int8', not 'float32'"),
        (dict(epilogue=("requantize", "bias")), "'requantize' must come last; allowed before it: bias, residual, relu"),
        (dict(epilogue=("scale", "requantize")), "'requantize' must come last"),
        (dict(epilogue=("gelu",)), "epilogue step 'gelu' makes fractions of dtype='int8'; allowed: bias, scale"),
        (dict(epilogue=("bias", "leaky_relu")), "epilogue step 'leaky_relu' makes fractions"),
        (dict(direction="backward_data"), "need direction='forward'"),
    ],
)
def test_what_cannot_be_requantized(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        quantized(**fields)


def test_zero_points() -> None:
    with pytest.raises(SpecError, match="zero_point=128 is not an int8"):
        Epilogue(("requantize",), zero_point=128)
    with pytest.raises(SpecError, match="zero_point=1 needs the step 'requantize'"):
        Epilogue(("relu",), zero_point=1)
