from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convgen.descriptor import format_descriptor, parse_descriptor
from convgen.dtypes import OPERAND_DTYPES
from convgen.errors import ConvgenError, DTypeError, SpecError
from convgen.spec import ACTIVATIONS, DIRECTIONS, LAYOUTS, OPERAND_STEPS, PADDING_MODES, ConvSpec, Epilogue


def conv(spatial_size: Any, kernel_size: Any, **fields: Any) -> ConvSpec:
    channels = {"batch": 2, "in_channels": 4, "out_channels": 4}
    return ConvSpec(spatial_size=spatial_size, kernel_size=kernel_size, **{**channels, **fields})


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        (
            "mb1_ic64oc64_ih56oh56kh3ph1",
            conv((56, 56), 3, padding=1, batch=1, in_channels=64, out_channels=64),
        ),
        (
            'ic3ih227iw227_oc96oh55ow55_kh11kw11_sh4sw4ph0pw0_n"alexnet:conv1"',
            conv((227, 227), 11, stride=4, in_channels=3, out_channels=96),
        ),
        (
            "g144mb1_ic144oc144_ih56oh28kh3sh2dh0ph1_iw56ow28kw3sw2dw0pw1",
            conv((56, 56), 3, stride=2, padding=1, groups=144, batch=1, in_channels=144, out_channels=144),
        ),
        ("ic4iw9oc4kw3", conv(9, 3)),
        ("ic4oc4id9kd3", conv((9, 9, 9), 3)),
        ("ic4oc4id9kd3_ih8kh2", conv((9, 8, 8), (3, 2, 2))),
        ("ic4oc4ih9kh3dh1", conv((9, 9), 3, dilation=2)),
        ("mb1_ic4oc4_iw9_kw3_nresnext:2 layout=channels_last", conv(9, 3, batch=1, layout="channels_last")),
        ('ic4oc4iw9kw3n"two words",dir=backward_data', conv(9, 3, direction="backward_data")),
        # the padding is deduced: trivial, then the rest on the right
        ("ic4oc4ih9oh9kh3", conv((9, 9), 3, padding=1)),
        ("ic4oc4ih9oh9kh4", conv((9, 9), 4, padding=((1, 2), (1, 2)))),
        ("ic4oc4ih9oh5kh3sh2", conv((9, 9), 3, stride=2, padding=1)),
        ("ic4oc4ih8oh4kh1sh2", conv((8, 8), 1, stride=2)),
        # a right side that differs from the left one is deduced from the output size
        ("ic4oc4ih9oh9kh3ph0", conv((9, 9), 3, padding=((0, 2), (0, 2)))),
        ("ic4oc4ih9oh11kh3ph1", conv((9, 9), 3, padding=((1, 3), (1, 3)))),
        ("ic4oc4ih9oh6kh3ph1", conv((9, 9), 3, padding=((1, -2), (1, -2)))),
        # a row that no window reaches leaves the padding symmetric
        ("ic4oc4ih8oh4kh3sh2ph1", conv((8, 8), 3, stride=2, padding=1)),
        # transposed: the output size tells the output padding
        (
            "ic4oc4ih8oh16kh3sh2ph1 transposed=true",
            conv((8, 8), 3, stride=2, padding=1, output_padding=1, transposed=True),
        ),
        ("ic4oc4ih8oh13kh3sh2ph1 transposed=true", conv((8, 8), 3, stride=2, padding=((1, 3),) * 2, transposed=True)),
        (
            "ic4oc4ih9kh3ph1,padding_mode=reflect,layout=channels_last",
            conv((9, 9), 3, padding=1, padding_mode="reflect", layout="channels_last"),
        ),
        (
            "ic4oc4iw9kw3 epilogue=bias+leaky_relu negative_slope=0.2 accuracy=1e-3",
            conv(9, 3, epilogue=Epilogue(("bias", "leaky_relu"), 0.2), accuracy=1e-3),
        ),
        (
            "ic4oc4iw9kw3 padding=-1:2 dir=backward_data dtype=bfloat16 accuracy=strict",
            conv(9, 3, padding=((-1, 2),), direction="backward_data", dtype="bfloat16", accuracy="strict"),
        ),
        (
            "ic4oc4iw9kw3sw2pw1 transposed=true output_padding=1",
            conv(9, 3, stride=2, padding=1, output_padding=1, transposed=True),
        ),
    ],
)
def test_parse(text: str, spec: ConvSpec) -> None:
    assert parse_descriptor(text) == spec
    assert parse_descriptor(format_descriptor(spec)) == spec


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (conv((56, 56), 3, padding=1), "mb2_ic4oc4_ih56oh56kh3ph1"),
        (conv((9, 8), 3, groups=2, stride=2), "g2mb2_ic4oc4_ih9oh4kh3sh2_iw8ow3kw3sw2"),
        (conv((9, 8, 8), 3, dilation=2), "mb2_ic4oc4_id9od5kd3dd1_ih8oh4kh3dh1"),
        (conv(9, 4, padding="same"), "mb2_ic4oc4_iw9ow9kw4pw1"),
        (conv(9, 3, padding=((-1, 1),)), "mb2_ic4oc4_iw9ow7kw3 padding=-1:1"),
    ],
)
def test_format(spec: ConvSpec, text: str) -> None:
    assert format_descriptor(spec) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks ic"),
        ("ic4ih5kh3", "lacks oc"),
        ("ic4oc4", "no spatial axis"),
        ("ic4oc4kh3", "lacks ih"),
        ("ic4oc4ih5", "lacks kh"),
        ("ic4oc4ih8iw8kh3", "lacks kw"),
        ("ic4oc4id5kd1iw5kw1", "without h"),
        ("ic4oc4ih5kh3qq7", "'qq7'"),
        ("ic4oc4ih5kh", "'kh'"),
        ("ic4oc4ih-5kh3", "'ih-5kh3'"),
        ("ic4oc4ih5kh3ic4", "gives ic more than once"),
        ("ic4oc4ih5kh3nresnext 2", "' 2'"),
        ("ic4oc4ih5kh3oh2ph1 padding=1:1x1:1", "padding twice"),
        ("ic4oc4ih5kh3oh2 padding=1:1x1:1", "says oh2"),
        ("ic4oc4iw5kw3 padding=1:x", "not made of integers"),
        ("ic4oc4iw5kw3 padding=1", "not lo:hi"),
        ("ic4oc4iw5kw3 padding=1:1x1:1", "1 spatial axes"),
        ("ic4oc4ih5kh7", "kernel_size=(7, 7)"),
        ("g3ic4oc4ih5kh3", "groups=3"),
        ("ic4oc4ih5kh3sh0", "stride=0"),
        ("ic4oc4ih5kh3 colour=red", "'colour'"),
        ("ic4oc4ih5kh3 dir=forward dir=forward", "gives dir more than once"),
        ("ic4oc4ih5kh3 dir", "' dir'"),
        ("ic4oc4ih5kh3 dir=up", "direction='up'"),
        ("ic4oc4ih5kh3 transposed=yes", "transposed='yes'"),
        ("ic4oc4ih5kh3 epilogue=bias+", "''"),
        ("ic4oc4ih5kh3 accuracy=nan", "accuracy=nan"),
        ("ic4oc4ih5kh3 negative_slope=steep", "negative_slope='steep'"),
        ("ic" + "9" * 5000 + "oc4ih5kh3", "field ic has 5000 digits"),
        (7, "descriptor 7"),
    ],
)
def test_malformed_text_is_named(text: Any, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        parse_descriptor(text)


def test_unsupported_dtype() -> None:
    with pytest.raises(DTypeError, match="float8"):
        parse_descriptor("ic4oc4ih5kh3 dtype=float8")


@st.composite
def epilogues(draw: st.DrawFn, dtype: str) -> Epilogue:
    if dtype == "int8" and draw(st.booleans()):
        before = draw(st.lists(st.sampled_from(("bias", "residual", "relu")), unique=True))
        return Epilogue((*before, "requantize"), zero_point=draw(st.integers(-128, 127)))
    steps = draw(st.lists(st.sampled_from([step for step in OPERAND_STEPS if step != "requantize"]), unique=True))
    activations = ("relu", "relu6") if dtype == "int8" else ACTIVATIONS
    steps += draw(st.lists(st.sampled_from(activations), max_size=2))
    return Epilogue(draw(st.permutations(steps)), draw(st.sampled_from([0.01, 0.2, -1.5e-7])))


@st.composite
def specs(draw: st.DrawFn) -> ConvSpec:
    """Valid problems of every kind; sizes grow where padding, kernel or crop need it."""
    ndim = draw(st.integers(1, 3))
    axes = st.tuples(*[st.integers(1, 4)] * ndim)
    groups = draw(st.integers(1, 3))
    transposed = draw(st.booleans())
    direction = draw(st.sampled_from(DIRECTIONS))
    stride, kernel, dilation = draw(axes), draw(axes), draw(axes)
    padding = draw(st.tuples(*[st.tuples(st.integers(-2, 4), st.integers(-2, 4))] * ndim))
    slack = draw(st.tuples(*[st.integers(0, 6)] * ndim))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = [max(5, r - sum(p)) + extra for r, p, extra in zip(reach, padding, slack, strict=True)]
    output_padding: tuple[int, ...] = (0,) * ndim
    if transposed:
        size = [n + max(0, sum(p)) for n, p in zip(size, padding, strict=True)]
        output_padding = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    dtype = draw(st.sampled_from(OPERAND_DTYPES))
    return ConvSpec(
        batch=draw(st.integers(0, 3)),
        in_channels=groups * draw(st.integers(0, 3)),
        out_channels=groups * draw(st.integers(1, 3)),
        spatial_size=size,
        kernel_size=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        output_padding=output_padding,
        transposed=transposed,
        padding_mode="zeros" if transposed else draw(st.sampled_from(PADDING_MODES)),
        direction=direction,
        layout=draw(st.sampled_from(LAYOUTS)),
        dtype=dtype,
        epilogue=draw(epilogues(dtype)) if direction == "forward" else (),
        accuracy=draw(st.sampled_from(["fast", "strict"]) | st.floats(1e-12, 1.0)),
    )


@settings(max_examples=200, deadline=None)
@given(specs())
def test_every_problem_survives_both_text_forms(spec: ConvSpec) -> None:
    assert parse_descriptor(format_descriptor(spec)) == spec
    assert ConvSpec.from_json(spec.to_json()) == spec


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='gmbicodhwkspn0123456789_ ,=:x-+"', max_size=40))
def test_any_text_is_a_problem_or_a_typed_error(text: str) -> None:
    try:
        spec = parse_descriptor(text)
    except ConvgenError:
        return
    assert parse_descriptor(format_descriptor(spec)) == spec
