"""pointwise: what it refuses, where it copies, and that every blocking of every geometry sums exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convgen
from convgen import driver
from convgen.driver import Plan, lower
from convgen.machine import Machine, machine_named
from convgen.spec import LAYOUTS, ConvSpec
from convgen.strategies.pointwise import Pointwise
from convgen.tuning.space import Config
from convgen.verify import gate_a, gate_b, integer_operands, normal_operands

HOST = Machine.host()
POINTWISE = Pointwise()

GEOMETRIES: dict[str, dict[str, Any]] = {
    "plane": dict(),
    "strided": dict(stride=2),
    "groups": dict(groups=2, in_channels=6, out_channels=38),
    "line": dict(spatial_size=(37,), kernel_size=(1,), stride=3, dtype="float64"),
    "volume": dict(spatial_size=(3, 4, 5), kernel_size=1, stride=(2, 1, 2)),
    "one channel": dict(in_channels=1),
    "one narrow channel": dict(in_channels=1, stride=(1, 2), dtype="bfloat16"),
    "few pixels": dict(spatial_size=(1, 3), out_channels=70),
}


def make_spec(**fields: Any) -> ConvSpec:
    base: dict[str, Any] = dict(batch=3, in_channels=5, out_channels=19, spatial_size=(7, 9), kernel_size=1)
    return ConvSpec(**{**base, **fields})


SLOW = {("line", "channels_last"), ("volume", "channels_last"), ("few pixels", "channels_first")}


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        pytest.param(name, layout, marks=(pytest.mark.slow,) if (name, layout) in SLOW else ())
        for name in GEOMETRIES
        for layout in LAYOUTS
    ],
)
def test_gates(name: str, layout: str) -> None:
    spec = make_spec(layout=layout, **GEOMETRIES[name])
    for batch in (3, 1):
        op = convgen.compile(spec.replace(batch=batch), "pointwise")
        assert gate_a(op.spec, op, np.random.default_rng(0)).ok
        assert gate_b(op.spec, op, np.random.default_rng(1)).ok


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("level", ["generic", "avx2"])
def test_lower_feature_levels(level: str, layout: str) -> None:
    spec = make_spec(layout=layout, direction="backward_data", in_channels=21)
    op = convgen.compile(spec, "pointwise", machine=machine_named(level))
    assert gate_a(spec, op, np.random.default_rng(0)).ok


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_in_blocks_are_those_in_one_go(layout: str) -> None:
    """5000 terms: every configuration, blocked or not, adds them in the same order."""
    spec = make_spec(batch=1, in_channels=5000, out_channels=33, spatial_size=(5, 8), layout=layout)
    operands = normal_operands(spec, np.random.default_rng(2)).main
    space = POINTWISE.space(spec, HOST)
    assert any(config["block"] for config in space)
    results = [convgen.compile(spec, "pointwise", config=config)(*operands) for config in space]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_do_not_depend_on_the_number_of_threads(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MIN_PARALLEL_MACS", 0)
    spec = make_spec(layout=layout, out_channels=150, spatial_size=(13, 11))
    operands = normal_operands(spec, np.random.default_rng(3)).main
    results = [convgen.compile(spec, "pointwise", threads)(*operands) for threads in (1, 2, 3)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize(("layout", "stride"), [("channels_first", 1), ("channels_first", 2), ("channels_last", 2)])
def test_epilogue(layout: str, stride: int) -> None:
    spec = make_spec(layout=layout, stride=stride, epilogue=("bias", "scale", "residual", "relu"))
    op = convgen.compile(spec, "pointwise")
    assert gate_a(spec, op, np.random.default_rng(0)).ok


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride", [1, 2])
def test_no_image_is_copied_as_a_whole(layout: str, stride: int) -> None:
    """Workspace is local memory alone, in channels_last none at all, and does not grow with the image."""
    sizes = []
    for size in (112, 224):
        spec = make_spec(batch=2, in_channels=64, spatial_size=(size, size), layout=layout, stride=stride)
        lowered = lower(Plan(spec, "pointwise", POINTWISE.default(spec, HOST), "given"), HOST)
        assert not any(buffer.space == "workspace" for buffer in lowered.program.buffers)
        sizes.append(lowered.workspace_bytes)
    assert sizes[0] == sizes[1] <= HOST.l2_bytes
    assert (sizes[0] == 0) == (layout == "channels_last")


def test_image_sizes_share_a_kernel() -> None:
    kernels = set()
    for size in (28, 56):
        spec = make_spec(in_channels=64, out_channels=64, spatial_size=(size, size), layout="channels_last")
        lowered = lower(Plan(spec, "pointwise", POINTWISE.default(spec, HOST), "given"), HOST)
        kernels.add(lowered.stages[-1].body)
    assert len(kernels) == 1


@pytest.mark.parametrize("machine", ["generic", "host"])
@pytest.mark.parametrize("made", [1, 3, 16, 17, 64, 1000])
def test_tiles_fit_the_registers(made: int, machine: str) -> None:
    where = machine_named(machine)
    for layout in LAYOUTS:
        space = POINTWISE.space(make_spec(out_channels=made, in_channels=2048, layout=layout), where)
        assert 1 <= len(space) <= 6
        for config in space:
            rows, lanes = config["made"], config["pixels"]
            if layout == "channels_last":
                rows, lanes = lanes, rows
            assert lanes & (lanes - 1) == 0
            assert rows * max(1, lanes // (where.vector_bytes // 4)) < where.vector_registers


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (dict(kernel_size=3), "leave the image as it is"),
        (dict(padding=1), "leave the image as it is"),
        (dict(stride=2, direction="backward_data"), "leave the image as it is"),
        (dict(direction="backward_weights"), "sums over pixels"),
        (dict(groups=5, out_channels=5, layout="channels_last"), "nothing to run lanes along"),
        (dict(batch=0), "nothing to compute"),
        (dict(in_channels=0), "nothing to sum"),
    ],
)
def test_refusals(fields: dict[str, Any], reason: str) -> None:
    found = POINTWISE.refusal(make_spec(**fields), HOST)
    assert found is not None
    assert reason in found


def test_a_named_config_is_compiled() -> None:
    spec = make_spec(layout="channels_last")
    config = POINTWISE.space(spec, HOST)[-1]
    op = convgen.compile(spec, "pointwise", config=Config.parse(str(config)))
    operands = integer_operands(spec, np.random.default_rng(5)).main
    np.testing.assert_array_equal(op(*operands), convgen.compile(spec, "direct")(*operands))
