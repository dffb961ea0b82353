"""The NumPy functions: arguments as PyTorch takes them, what is refused, and which operators are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convgen
from convgen import kept_operators
from convgen.errors import ConvgenError, DTypeError, NotApplicable, OperandError, ShapeError, SpecError
from convgen.oracle import reference
from convgen.spec import ConvSpec
from convgen.targets.cpu import build


def integers(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def test_conv_with_every_argument() -> None:
    x, w, b = integers(2, 7, 9, 4), integers(6, 2, 3, 2), integers(6)
    options: dict[str, Any] = dict(stride=(2, 1), padding=((1, 0), (2, 1)), dilation=(1, 2), groups=2)
    spec = ConvSpec(
        batch=2,
        in_channels=4,
        out_channels=6,
        spatial_size=(7, 9),
        kernel_size=(3, 2),
        layout="channels_last",
        padding_mode="replicate",
        epilogue=("bias",),
        **options,
    )
    result = convgen.conv(
        x, w, b, **options, padding_mode="replicate", layout="channels_last", strategy="reference", threads=1
    )
    np.testing.assert_array_equal(result, reference(spec, x, w, bias=b))
    assert result.dtype == np.float32


def test_conv_transpose_with_every_argument() -> None:
    x, w, b = integers(2, 5, 6, 4), integers(4, 3, 3, 2), integers(6)
    options: dict[str, Any] = dict(stride=(2, 3), padding=1, output_padding=(1, 2), dilation=(1, 2), groups=2)
    spec = ConvSpec(
        batch=2,
        in_channels=4,
        out_channels=6,
        spatial_size=(5, 6),
        kernel_size=(3, 2),
        layout="channels_last",
        transposed=True,
        epilogue=("bias",),
        **options,
    )
    result = convgen.conv_transpose(x, w, b, **options, layout="channels_last", strategy="reference")
    np.testing.assert_array_equal(result, reference(spec, x, w, bias=b))


def test_gradients_are_adjoint() -> None:
    x, w = integers(2, 4, 9), integers(6, 2, 3, seed=1)
    options: dict[str, Any] = dict(stride=2, padding=[(1, 2)], groups=2, strategy="reference")
    y = convgen.conv(x, w, **options)
    dy = integers(*y.shape, seed=2)
    dx = convgen.conv_backward_data(dy, w, x.shape, **options)
    dw = convgen.conv_backward_weights(x, dy, 3, **options)
    assert (dx.shape, dw.shape) == (x.shape, w.shape)
    assert np.vdot(y, dy) == np.vdot(x, dx) == np.vdot(w, dw)


def test_an_input_without_a_batch_gives_a_result_without_one() -> None:
    x, w = integers(1, 3, 8), integers(4, 3, 3)
    np.testing.assert_array_equal(convgen.conv(x[0], w), convgen.conv(x, w)[0])
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    np.testing.assert_array_equal(convgen.conv(last[0], w, layout="channels_last"), convgen.conv(x, w)[0].T)


def test_int8_gives_int32() -> None:
    x, w = np.full((1, 300, 1), 127, np.int8), np.full((1, 300, 1), -128, np.int8)
    result = convgen.conv(x, w)
    assert (result.dtype, result.tolist()) == (np.int32, [[[-300 * 127 * 128]]])


X, W = integers(1, 4, 6, 6), integers(6, 2, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        (([1], W), {}, OperandError, "input is a list"),
        ((X, None), {}, OperandError, "weight is a NoneType"),
        ((X, W[0]), {"groups": 2}, ShapeError, r"input has shape \(1, 4, 6, 6\)"),
        ((X[0, 0, 0], W), {"groups": 2}, ShapeError, r"input has shape \(6,\)"),
        ((X, W[0, 0]), {}, ShapeError, r"weight has shape \(3, 3\)"),
        ((X, W), {}, ShapeError, "4 channels; weight and groups make it 2"),
        ((X, W), {"groups": 3}, ShapeError, "4 channels; weight and groups make it 6"),
        ((X, W), {"groups": 0}, ConvgenError, "groups"),
        ((X, W), {"groups": 2.0}, ConvgenError, "groups|channels"),
        ((X, W), {"groups": 2, "stride": 0}, SpecError, "stride=0 is too small"),
        ((X, W), {"groups": 2, "stride": (1, -2)}, SpecError, "stride=-2 is too small"),
        ((X, W), {"groups": 2, "stride": (1, 1, 1)}, SpecError, r"stride=\(1, 1, 1\)"),
        ((X, W), {"groups": 2, "dilation": 4}, SpecError, "larger than the padded input"),
        ((X, W), {"groups": 2, "padding": -1}, SpecError, "padding=-1 is negative"),
        ((X, W), {"groups": 2, "padding": "SAME"}, SpecError, "padding='SAME'"),
        ((X, W), {"groups": 2, "padding_mode": "mirror"}, SpecError, "padding_mode='mirror'"),
        ((X, W), {"groups": 2, "layout": "NCHW"}, SpecError, "layout='NCHW'"),
        ((X, W), {"groups": 2, "strategy": "magic"}, ConvgenError, "strategy='magic'"),
        ((X, W), {"groups": 2, "accuracy": "exact"}, SpecError, "accuracy='exact'"),
        ((X, W), {"groups": 2, "threads": 0}, ConvgenError, "threads=0"),
        ((X, W.astype(np.float64)), {"groups": 2}, DTypeError, "weight has dtype float64; allowed: float32"),
        ((X.astype(np.complex64), W), {"groups": 2}, DTypeError, "complex64"),
        ((X.astype(np.int32), W), {"groups": 2}, DTypeError, "int32"),
        ((X, W, integers(5)), {"groups": 2}, ShapeError, r"bias has shape \(5,\)"),
        ((X, W, [0.0] * 6), {"groups": 2}, OperandError, "bias is a list"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        convgen.conv(*arguments, **options)


def test_bad_arguments_of_the_other_functions_are_named() -> None:
    with pytest.raises(SpecError, match="output_padding"):
        convgen.conv_transpose(X, integers(4, 2, 3, 3), output_padding=1)
    with pytest.raises(ShapeError, match="4 channels; weight and groups make it 6"):
        convgen.conv_transpose(X, W)
    with pytest.raises(ShapeError, match="input_size"):
        convgen.conv_backward_data(integers(1, 6, 4, 4), W, (4, 6, 6))
    with pytest.raises(ShapeError, match="input_size"):
        convgen.conv_backward_data(integers(1, 6, 4, 4), W, (1, 3, 6, 6))
    with pytest.raises(ShapeError, match="grad_output has shape"):
        convgen.conv_backward_data(integers(1, 6, 4, 3), W, X.shape, groups=2)
    with pytest.raises(ShapeError, match="input"):
        convgen.conv_backward_weights(X[0], integers(1, 6, 4, 4), 3)
    with pytest.raises(SpecError, match="kernel_size=0"):
        convgen.conv_backward_weights(X, integers(1, 6, 4, 4), (3, 0))


def test_operators_are_kept_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_operators.clear_operators()
    convgen.conv(X, W, groups=2, padding=[1, 1])
    convgen.conv(X, W, groups=2, padding=[1, 1])
    convgen.conv(X, W, groups=2, padding=(1, 1))
    assert len(kept_operators._operators) == 1
    monkeypatch.setattr(kept_operators, "MAX_OPERATORS", 2)
    for count in (2, 3, 4):
        convgen.conv(integers(count, 4, 6, 6), W, groups=2, padding=1)
    assert len(kept_operators._operators) == 2
    kept_operators.clear_operators()
    assert not kept_operators._operators


def kernels(directory: Path) -> int:
    return len(list((directory / "kernels").glob("*.obj")))


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("direction", ["forward", "backward_data"])
def test_other_batches_image_sizes_and_channels_made_compile_nothing(
    direction: str, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(build, "_addresses", {})
    spec = ConvSpec(
        batch=1,
        in_channels=64,
        out_channels=64,
        spatial_size=(56, 56),
        kernel_size=3,
        padding=1,
        direction=direction,
        layout=layout,
    )
    convgen.compile(spec, threads=1)
    count = kernels(tmp_path)
    assert count > 0
    made = "in_channels" if direction == "backward_data" else "out_channels"
    for change in ({"spatial_size": (40, 48)}, {"batch": 7}, {made: 128}, {"batch": 3, "spatial_size": (30, 61)}):
        convgen.compile(spec.replace(**change), threads=1)
        assert kernels(tmp_path) == count, change


def test_every_function_hands_accuracy_on() -> None:
    x, w = np.ones((1, 1, 4), np.float32), np.ones((1, 1, 3), np.float32)
    y = np.ones((1, 1, 2), np.float32)
    calls: dict[str, Callable[[], object]] = {
        "conv": lambda: convgen.conv(x, w, accuracy="bogus"),
        "conv_transpose": lambda: convgen.conv_transpose(x, w, accuracy="bogus"),
        "conv_backward_data": lambda: convgen.conv_backward_data(y, w, x.shape, accuracy="bogus"),
        "conv_backward_weights": lambda: convgen.conv_backward_weights(x, y, 3, accuracy="bogus"),
    }
    for name, call in calls.items():
        with pytest.raises(SpecError, match="accuracy='bogus'"):
            call()
        assert name in convgen.__all__


@pytest.mark.parametrize("groups", [0, "a", 2.0, True])
def test_groups_that_are_no_count_are_named(groups: Any) -> None:
    x, w = np.ones((1, 2, 4), np.float32), np.ones((2, 1, 3), np.float32)
    with pytest.raises(SpecError, match="groups"):
        convgen.conv(x, w, groups=groups)


def test_functions_use_what_tuning_has_found_since() -> None:
    x, w = np.ones((1, 3, 9), np.float32), np.ones((4, 3, 3), np.float32)
    spec = convgen.ConvSpec(batch=1, in_channels=3, out_channels=4, spatial_size=9, kernel_size=3)
    before = convgen.conv(x, w)
    convgen.tune(spec, budget=0.0)
    np.testing.assert_array_equal(convgen.conv(x, w), before)
    assert [op.plan.origin for op, _ in kept_operators._operators.values() if op.spec == spec] == ["database"]


def test_an_accuracy_that_is_refused_names_one_that_is_not() -> None:
    x, w = np.ones((1, 8, 10, 10), np.float32), np.ones((16, 8, 3, 3), np.float32)
    with pytest.raises(NotApplicable, match=r"allowed: (\S+) or more") as refused:
        convgen.conv(x, w, accuracy=1e-12)
    allowed = float(str(refused.value).split("allowed: ")[1].split()[0])
    assert convgen.conv(x, w, accuracy=allowed).shape == (1, 16, 8, 8)
    with pytest.raises(NotApplicable):
        convgen.conv(x, w, accuracy=allowed / 3)
