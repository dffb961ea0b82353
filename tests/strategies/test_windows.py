"""im2col_gemm and implicit_gemm: every geometry sums exactly, whatever is copied where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convgen
from convgen import driver
from convgen.driver import Plan, lower
from convgen.machine import Machine, machine_named
from convgen.spec import LAYOUTS, ConvSpec
from convgen.strategies.base import Strategy
from convgen.strategies.im2col_gemm import Im2colGemm
from convgen.strategies.implicit_gemm import ImplicitGemm
from convgen.verify import gate_a, gate_b, normal_operands

HOST = Machine.host()
IMPLICIT, IM2COL = ImplicitGemm(), Im2colGemm()

GEOMETRIES: dict[str, dict[str, Any]] = {
    "stem": dict(in_channels=3, kernel_size=5, stride=2, padding=2, spatial_size=(23, 37)),
    "many channels": dict(in_channels=18, padding=1, out_channels=35),
    "reflect": dict(padding=((1, 0), (2, 1)), padding_mode="reflect", stride=(2, 1)),
    "cropped groups": dict(groups=2, in_channels=6, out_channels=38, padding=((-1, 2), (1, -2)), dtype="float64"),
    "dilated": dict(dilation=(2, 3), stride=(1, 2), padding=2, spatial_size=(11, 17)),
    "gradient": dict(direction="backward_data", padding=1),
    "folded gradient": dict(direction="backward_data", padding=1, padding_mode="circular"),
    "line": dict(spatial_size=(41,), kernel_size=(4,), stride=3, padding=1),
    "volume": dict(spatial_size=(4, 5, 6), kernel_size=(3, 1, 2), padding=((1, 1), (0, 0), (1, 0)), in_channels=2),
    "one channel": dict(in_channels=1, padding=1),
}
QUICK = {
    ("stem", "channels_first", "implicit_gemm"),
    ("stem", "channels_last", "implicit_gemm"),
    ("many channels", "channels_first", "implicit_gemm"),
    ("cropped groups", "channels_last", "implicit_gemm"),
    ("folded gradient", "channels_last", "implicit_gemm"),
    ("stem", "channels_last", "im2col_gemm"),
    ("reflect", "channels_first", "im2col_gemm"),
}


def make_spec(**fields: Any) -> ConvSpec:
    base: dict[str, Any] = dict(batch=3, in_channels=5, out_channels=19, spatial_size=(9, 20), kernel_size=3)
    return ConvSpec(**{**base, **fields})


def cases() -> list[Any]:
    """Every geometry in both layouts by both strategies, all but a few of them slow."""
    return [
        pytest.param(
            make_spec(layout=layout, **fields),
            strategy,
            id=f"{name}-{layout}-{strategy.name}",
            marks=() if (name, layout, strategy.name) in QUICK else (pytest.mark.slow,),
        )
        for name, fields in GEOMETRIES.items()
        for layout in LAYOUTS
        for strategy in (IMPLICIT, IM2COL)
    ]


@pytest.mark.parametrize(("spec", "strategy"), cases())
def test_gates(spec: ConvSpec, strategy: Strategy) -> None:
    for batch in (3, 1):
        op = convgen.compile(spec.replace(batch=batch), strategy.name)
        assert gate_a(op.spec, op, np.random.default_rng(0)).ok
        assert gate_b(op.spec, op, np.random.default_rng(1)).ok


def test_classes_of_pixels_by_im2col() -> None:
    """A data gradient of stride 2 and a transposed convolution: each residue class has windows of its own."""
    for spec in (
        make_spec(layout="channels_last", direction="backward_data", stride=2, padding=1),
        make_spec(layout="channels_last", transposed=True, stride=(2, 1), padding=1, output_padding=(1, 0)),
    ):
        op = convgen.compile(spec, "im2col_gemm")
        assert gate_a(op.spec, op, np.random.default_rng(0)).ok


@pytest.mark.parametrize(("level", "layout"), [("generic", "channels_first"), ("avx2", "channels_last")])
def test_lower_feature_levels(level: str, layout: str) -> None:
    spec = make_spec(in_channels=3, stride=2, padding=1, layout=layout)
    op = convgen.compile(spec, "implicit_gemm", machine=machine_named(level))
    assert gate_a(spec, op, np.random.default_rng(0)).ok


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_do_not_depend_on_the_number_of_threads(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MIN_PARALLEL_MACS", 0)
    spec = make_spec(in_channels=3, layout=layout, padding=1, spatial_size=(40, 33), stride=2)
    operands = normal_operands(spec, np.random.default_rng(3)).main
    results = [convgen.compile(spec, "implicit_gemm", threads)(*operands) for threads in (1, 2, 3)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_epilogue(layout: str) -> None:
    spec = make_spec(in_channels=3, layout=layout, padding=1, epilogue=("bias", "scale", "residual", "relu"))
    op = convgen.compile(spec, "implicit_gemm")
    assert gate_a(spec, op, np.random.default_rng(0)).ok


def test_blocked_sums() -> None:
    """600 channels of nine taps: a panel overflows its share of the cache, and all configurations agree on integers."""
    spec = make_spec(batch=1, in_channels=600, out_channels=33, padding=1, spatial_size=(3, 5), layout="channels_last")
    assert any(config["block"] for config in IMPLICIT.space(spec, HOST))
    for config in IMPLICIT.space(spec, HOST):
        op = convgen.compile(spec, "implicit_gemm", config=config)
        assert gate_a(spec, op, np.random.default_rng(0)).ok, config


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("strategy", [IMPLICIT, IM2COL], ids=["implicit", "im2col"])
def test_no_image_is_copied_as_a_whole(strategy: Strategy, layout: str) -> None:
    for size in (56, 224):
        spec = make_spec(batch=2, in_channels=16, spatial_size=(size, 56), padding=1, layout=layout)
        lowered = lower(Plan(spec, strategy.name, strategy.default(spec, HOST), "given"), HOST)
        assert not any(buffer.space == "workspace" for buffer in lowered.program.buffers)
        assert lowered.workspace_bytes <= HOST.l2_bytes


def test_stems_go_to_the_implicit_product() -> None:
    """Three channels: the rows of a window are long enough for one loop, and cheaper to copy than the windows."""
    for kernel, stride in ((7, 2), (3, 2), (3, 1)):
        for layout in LAYOUTS:
            spec = make_spec(
                in_channels=3, out_channels=64, spatial_size=(224, 224), kernel_size=kernel, stride=stride,
                padding=kernel // 2, layout=layout,
            )  # fmt: skip
            implicit, im2col = (
                strategy.predicted_seconds(spec, strategy.default(spec, HOST), HOST) for strategy in (IMPLICIT, IM2COL)
            )
            assert implicit < im2col


@pytest.mark.parametrize(
    ("strategy", "fields", "reason"),
    [
        (IMPLICIT, dict(kernel_size=1), "one pixel"),
        (IM2COL, dict(kernel_size=1), "one pixel"),
        (IMPLICIT, dict(direction="backward_data", stride=2), "taps of its own"),
        (IM2COL, dict(direction="backward_data", stride=2), "different classes"),
        (IMPLICIT, dict(stride=2, padding=1, padding_mode="reflect"), "columns that no window has"),
        (IMPLICIT, dict(groups=5, out_channels=5, layout="channels_last"), "nothing to run lanes along"),
        (IMPLICIT, dict(groups=5, out_channels=10, layout="channels_last"), "nothing that lies side by side"),
        (IM2COL, dict(direction="backward_weights"), "sums over pixels"),
    ],
)
def test_refusals(strategy: Strategy, fields: dict[str, Any], reason: str) -> None:
    found = strategy.refusal(make_spec(**fields), HOST)
    assert found is not None
    assert reason in found
