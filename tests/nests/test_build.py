"""The naive nests, interpreted on integers, against the oracle: equal in every element."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convgen import oracle
from convgen.ir.check import check
from convgen.ir.interp import interpret
from convgen.ir.nodes import Int
from convgen.nests.build import build_nest
from convgen.nests.folded_gather import build_folded_gather
from convgen.nests.nest import Nest
from convgen.passes.pad import Pad
from convgen.passes.pipeline import run_passes
from convgen.spec import ConvSpec
from tests.programs import conv_sample, conv_specs

DIRECTIONS = ("forward", "backward_data", "backward_weights")
LAYOUTS = ("channels_first", "channels_last")

# What every problem below is made of unless it says otherwise.
PLAIN: dict[str, Any] = {"batch": 1, "in_channels": 2, "out_channels": 3, "spatial_size": (4, 3), "kernel_size": 2}

GEOMETRY: dict[str, dict[str, Any]] = {
    "1d": dict(batch=3, spatial_size=6, kernel_size=3, padding=1),
    "1d odd strides": dict(spatial_size=6, kernel_size=2, stride=3, padding=((2, 1),), dilation=2),
    "2d": dict(kernel_size=(3, 2), padding=1),
    "strides": dict(kernel_size=3, stride=(2, 3), padding=1),
    "stride beyond kernel": dict(kernel_size=(1, 2), stride=(3, 4)),
    "dilation": dict(kernel_size=(2, 3), dilation=(3, 1), padding=((1, 0), (0, 1))),
    "stride sharing a factor": dict(spatial_size=(6, 5), kernel_size=3, stride=(4, 2), dilation=2, padding=2),
    "asymmetric": dict(kernel_size=3, padding=((2, 0), (0, 2))),
    "cropped": dict(kernel_size=2, padding=((-1, 1), (2, -1))),
    "cropped with a stride": dict(spatial_size=(6, 6), kernel_size=2, stride=2, padding=((-1, 0), (0, -2))),
    "padding beyond kernel": dict(kernel_size=2, spatial_size=(2, 3), padding=3, stride=2),
    "1x1": dict(kernel_size=1),
    "kernel as large as the input": dict(kernel_size=(4, 3)),
    "one pixel": dict(spatial_size=(1, 1), kernel_size=1, stride=2),
    "groups": dict(batch=2, in_channels=4, out_channels=4, groups=2, kernel_size=(2, 3)),
    "depthwise": dict(in_channels=3, out_channels=3, groups=3, kernel_size=3, stride=2, padding=1),
    "channel multiplier": dict(in_channels=2, out_channels=4, groups=2, padding=1),
    "one made per group": dict(in_channels=4, out_channels=2, groups=2),
    "one channel": dict(in_channels=1, out_channels=1, padding=1),
    "empty batch": dict(batch=0, padding=1),
    "no input channels": dict(in_channels=0, padding=1),
    "3d": dict(batch=1, spatial_size=(3, 2, 3), kernel_size=2, padding=((1, 0), (0, 1), (0, 0)), stride=(1, 2, 1)),
}
MODES: dict[str, dict[str, Any]] = {
    "both edges": dict(padding=((2, 1), (1, 2))),
    "low edge and crop": dict(padding=((0, 2), (-1, 2)), stride=2),
    "crop and high edge": dict(padding=((-1, 3), (-1, 0))),
    "dilated groups": dict(in_channels=4, out_channels=2, groups=2, padding=1, dilation=2),
    "1d": dict(spatial_size=4, kernel_size=3, padding=((3, 2),), stride=2),
}
OUTPUT_PADDED = {"strides", "1d odd strides", "depthwise", "3d", "stride sharing a factor", "one pixel"}


def problems() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, geometry in GEOMETRY.items():
        yield name, geometry
        # A transposed convolution crops its output by its padding, so that these would be left with nothing.
        if name not in ("padding beyond kernel", "no input channels"):
            yield f"transposed {name}", {**geometry, "transposed": True}
        if name in OUTPUT_PADDED:
            stride: Any = geometry["stride"]
            more = tuple(s - 1 for s in stride) if isinstance(stride, tuple) else stride - 1
            yield f"output_padding {name}", {**geometry, "transposed": True, "output_padding": more}
    for mode in ("reflect", "replicate", "circular"):
        for name, folded in MODES.items():
            yield f"{mode} {name}", {**folded, "padding_mode": mode}


PROBLEMS = dict(problems())


def assert_is_the_oracles(spec: ConvSpec, seed: int = 0, build: Callable[[ConvSpec], Nest] = build_nest) -> None:
    nest = build(spec)
    check(nest.program)
    rng = np.random.default_rng(seed)
    numpy_type = np.dtype(np.int8) if spec.dtype == "int8" else np.dtype(np.float32)
    operands = {name: rng.integers(-3, 4, shape).astype(numpy_type) for name, shape in spec.operand_shapes.items()}
    if spec.dtype == "int8":
        operands = {name: a.astype(np.int32) if name == "bias" else a for name, a in operands.items()}
    first, second, *_ = operands.values()
    extra = {name: array for name, array in operands.items() if name not in list(operands)[:2]}
    want = oracle.reference(spec, first, second, **extra)
    memory = interpret(nest.program, nest.sizes, operands)
    (result,) = (buffer.name for buffer in nest.program.buffers if buffer.space == "result")
    np.testing.assert_array_equal(memory[result].reshape(want.shape).astype(np.float64), want)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_nest_computes_what_the_oracle_does(name: str, direction: str) -> None:
    """Layouts take turns, so that each problem is seen in both over the directions."""
    layout = LAYOUTS[(list(PROBLEMS).index(name) + DIRECTIONS.index(direction)) % 2]
    assert_is_the_oracles(ConvSpec(**{**PLAIN, **PROBLEMS[name]}, direction=direction, layout=layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [name for name in PROBLEMS if "padding_mode" in PROBLEMS[name]])
def test_the_gradient_under_a_padding_mode_needs_no_workspace(name: str, layout: str) -> None:
    spec = ConvSpec(**{**PLAIN, **PROBLEMS[name]}, direction="backward_data", layout=layout)
    assert_is_the_oracles(spec, build=build_folded_gather)
    assert {buffer.space for buffer in build_folded_gather(spec).program.buffers} == {"operand", "result"}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("transposed", [False, True])
def test_both_layouts_of_a_grouped_problem(layout: str, direction: str, transposed: bool) -> None:
    geometry = {**PLAIN, **GEOMETRY["groups"], "padding": 1, "stride": (2, 1), "transposed": transposed}
    assert_is_the_oracles(ConvSpec(**geometry, direction=direction, layout=layout))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int8"])
def test_types(dtype: str) -> None:
    assert_is_the_oracles(ConvSpec(**{**PLAIN, "padding": 1, "dtype": dtype, "spatial_size": (3, 3)}))


@pytest.mark.parametrize(
    "steps",
    [
        ("bias",),
        ("bias", "relu"),
        ("scale", "shift", "relu6"),
        ("residual", "relu", "scale"),
        ("relu", "residual"),
    ],
    ids="-".join,
)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("groups", [1, 2])
def test_exact_epilogues(steps: tuple[str, ...], layout: str, groups: int) -> None:
    spec = ConvSpec(
        batch=2, in_channels=2, out_channels=4, spatial_size=(3, 2), kernel_size=2, padding=1, groups=groups,
        layout=layout, epilogue=steps,
    )  # fmt: skip
    assert_is_the_oracles(spec)


@pytest.mark.parametrize("step", ["leaky_relu", "silu", "gelu", "hardswish", "sigmoid", "tanh"])
def test_smooth_activations_are_the_oracles_to_float32(step: str) -> None:
    spec = ConvSpec(
        batch=1, in_channels=1, out_channels=3, spatial_size=4, kernel_size=2, dtype="float32", epilogue=("bias", step)
    )
    nest = build_nest(spec)
    rng = np.random.default_rng(0)
    operands = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in spec.operand_shapes.items()}
    got = interpret(nest.program, nest.sizes, operands)["output"]
    want = oracle.reference(spec, operands["input"], operands["weight"], bias=operands["bias"])
    np.testing.assert_allclose(got.reshape(want.shape), want, rtol=2e-6, atol=1e-6)


@settings(max_examples=60)
@given(spec=conv_specs(), seed=st.integers(0, 99))
def test_random_problems(spec: ConvSpec, seed: int) -> None:
    assert_is_the_oracles(spec, seed)


@settings(max_examples=40)
@given(spec=conv_specs(epilogue=False), seed=st.integers(0, 99))
def test_reads_leave_the_source_no_further_than_the_nest_says(spec: ConvSpec, seed: int) -> None:
    """A copy with just that much padding serves every read: the interpreter raises for one outside."""
    sample = conv_sample(spec, seed)
    copies = [
        Pad(name, "padded", pad.low, pad.extents, tuple(range(len(pad.low))), pad.mode)
        for name, pad in sample.pads.items()
    ]
    copied = run_passes(sample.program, copies)
    for name, want in sample.results(sample.program).items():
        np.testing.assert_array_equal(sample.results(copied)[name], want)


def test_problems_that_differ_in_sizes_alone_share_their_stages() -> None:
    """Batch, image size and output channels are arguments of a kernel."""
    spec = ConvSpec(**{**PLAIN, "kernel_size": 3, "stride": 2, "padding": 1})
    other = spec.replace(batch=5, out_channels=7, spatial_size=(9, 8))
    assert build_nest(spec).program == build_nest(other).program
    gradients = [build_nest(s.replace(direction="backward_weights")).program for s in (spec, other)]
    assert gradients[0] == gradients[1]


def test_residue_classes_with_as_many_taps_share_their_text() -> None:
    """What differs between the classes is bound, so that one kernel serves all of them."""
    spec = ConvSpec(**{**PLAIN, "kernel_size": 4, "stride": 2, "padding": 1, "direction": "backward_data"})
    stages = build_nest(spec).program.stages
    assert len(stages) == 4
    names = [tuple((name, Int(0)) for name, _ in stage.bindings) for stage in stages]
    unbound = {replace(stage, name="", bindings=bound) for stage, bound in zip(stages, names, strict=True)}
    assert len(unbound) == 1
