"""direct: which tiles it offers, what it copies, and that every tile computes the same."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

import convgen
from convgen.driver import Plan, build_program, lower
from convgen.ir.nodes import Alloc, For, Int
from convgen.ir.rewrite import statements
from convgen.machine import Machine, machine_named
from convgen.operator import CompiledConv
from convgen.oracle import reference
from convgen.spec import ConvSpec
from convgen.strategies.boxes import choose_box
from convgen.strategies.direct import Direct
from convgen.verify import gate_a, integer_operands

HOST = Machine.host()
DIRECT = Direct()


def make_spec(**fields: Any) -> ConvSpec:
    base: dict[str, Any] = dict(
        batch=1,
        in_channels=64,
        out_channels=64,
        spatial_size=(14, 14),
        kernel_size=3,
        padding=1,
        layout="channels_last",
    )
    return ConvSpec(**{**base, **fields})


def spaces(spec: ConvSpec) -> set[str]:
    return {buffer.name for buffer in program_of(spec).buffers if buffer.space in ("packed", "workspace", "local")}


def program_of(spec: ConvSpec) -> Any:
    return build_program(Plan(spec, "direct", DIRECT.default(spec, HOST), "given"), HOST)[0]


@pytest.mark.parametrize("direction", ["forward", "backward_weights"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    "fields",
    [
        dict(spatial_size=(9, 10), kernel_size=1, stride=2),
        dict(spatial_size=(9, 10), kernel_size=(1, 3), stride=(3, 2), padding=(0, 1)),
        dict(spatial_size=(5, 6, 7), kernel_size=1, stride=(2, 3, 2)),
        dict(spatial_size=(5, 6, 7), kernel_size=(1, 3, 2), stride=2),
        dict(spatial_size=(9, 10), kernel_size=1, stride=2, padding=1),
        dict(spatial_size=(9, 10), kernel_size=1, stride=2, in_channels=1),
        dict(spatial_size=(9, 10), kernel_size=1, stride=2, groups=24),
        dict(spatial_size=(23,), kernel_size=1, stride=3, dtype="bfloat16"),
    ],
    ids=str,
)
def test_positions_between_strides_are_not_copied(fields: dict[str, Any], layout: str, direction: str) -> None:
    spec = make_spec(
        **{"in_channels": 24, "out_channels": 24, "padding": 0, "layout": layout, "direction": direction, **fields}
    )
    for config in DIRECT.space(spec, HOST)[:6]:
        op = CompiledConv(Plan(spec, "direct", config, "given"), HOST, 2)
        comparison = gate_a(spec, op, np.random.default_rng(0))
        assert comparison.ok, (config, comparison.reason)


def test_a_box_has_no_rows_between_strides() -> None:
    spec = make_spec(kernel_size=1, stride=2, padding=0, layout="channels_first")
    box = choose_box(spec, 7, 32, HOST)
    assert box.source[0] == box.result[0]
    assert box.source[1] == 2 * box.result[1] - 1
    window = choose_box(spec.replace(kernel_size=2), 7, 32, HOST)
    assert window.source[0] == 2 * window.result[0]


@pytest.mark.parametrize("machine", ["generic", "host"])
@pytest.mark.parametrize("channels", [1, 3, 16, 17, 64, 1000])
def test_tiles_fit_the_registers(channels: int, machine: str) -> None:
    where = machine_named(machine)
    width = where.vector_bytes // 4
    for config in DIRECT.space(make_spec(out_channels=channels), where):
        if config.get("terms", 0):
            assert config["pixels"] * config["lanes"] < where.vector_registers
            continue
        vectors = max(1, config["lanes"] // width)
        assert config["lanes"] & (config["lanes"] - 1) == 0
        assert config["lanes"] < 2 * max(channels, 1)
        assert config["pixels"] * vectors <= where.vector_registers


def test_wide_problems_have_several_tiles_to_choose_from() -> None:
    for direction in ("forward", "backward_data", "backward_weights"):
        assert len(DIRECT.space(make_spec(direction=direction), HOST)) >= 3


def test_tiles_are_no_longer_than_an_image() -> None:
    for config in DIRECT.space(make_spec(spatial_size=(1, 3)), HOST):
        assert config["pixels"] <= 3


def test_what_can_be_read_in_place_is_not_copied() -> None:
    assert spaces(make_spec(padding=0)) == {"packed"}
    assert spaces(make_spec(kernel_size=1, padding=0)) == {"packed"}
    assert spaces(make_spec(spatial_size=(100, 100))) == {"packed", "padded"}
    assert spaces(make_spec()) == {"packed"}
    assert "padded" in spaces(make_spec(padding=0, layout="channels_first"))


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("groups", [128, 144])
def test_lanes_along_groups_copy_what_they_read_alone_where_they_share_it_evenly(groups: int, layout: str) -> None:
    spec = make_spec(in_channels=groups, out_channels=groups, groups=groups, layout=layout, kernel_size=9, padding=4)
    lanes = HOST.vector_bytes // 2
    config = next(c for c in DIRECT.space(spec, HOST) if c["pixels_first"] and c["lanes"] == lanes)
    program = build_program(Plan(spec, "direct", config, "given"), HOST)[0]
    (padded,) = (buffer for buffer in program.buffers if buffer.name == "padded")
    assert padded.space == "local"
    assert padded.shape[-1] == Int(lanes if groups % lanes == 0 else groups)
    operands = integer_operands(spec, np.random.default_rng(0)).main
    got = convgen.compile(spec, "direct", 2, config=config)(*operands)
    np.testing.assert_array_equal(got, reference(spec, *operands))


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_no_whole_image_is_copied_where_parts_of_images_come_first(layout: str) -> None:
    spec = make_spec(spatial_size=(100, 100), layout=layout, epilogue=("bias", "relu"))
    plan = Plan(spec, "direct", DIRECT.space(spec, HOST)[0], "given")
    program = build_program(plan, HOST)[0]
    assert plan.config["pixels_first"] == 1
    assert {buffer.space for buffer in program.buffers} == {"operand", "result", "packed", "local"}
    assert [stage.name for stage in program.stages] == ["pack_weight", "conv"]
    assert lower(plan, HOST).workspace_bytes < spec.input_bytes


def test_accumulators_stay_in_registers() -> None:
    """One register tile in the kernel, and all loops inside it are over what is summed."""
    program = program_of(make_spec(spatial_size=(100, 100)))
    (conv,) = [stage for stage in program.stages if stage.name == "conv"]
    (tile,) = [found for found in statements(conv.body) if isinstance(found, Alloc)]
    assert tile.buffer.space == "register"
    inside = {found.var for found in statements(tile.body) if isinstance(found, For)}
    assert inside == {"kh", "kw", "ic"}


def test_packed_weights_hold_every_weight_once() -> None:
    spec = make_spec(out_channels=70)
    lowered = lower(Plan(spec, "direct", DIRECT.default(spec, HOST), "given"), HOST)
    lanes = DIRECT.default(spec, HOST)["lanes"]
    assert lowered.packed_bytes == -(-70 // lanes) * lanes * 64 * 9 * 4


@pytest.mark.parametrize(
    "fields",
    [
        dict(in_channels=3, out_channels=37, spatial_size=(5, 7)),
        pytest.param(dict(in_channels=37, out_channels=3, direction="backward_data", stride=2), marks=pytest.mark.slow),
        pytest.param(dict(in_channels=3, out_channels=37, direction="backward_weights"), marks=pytest.mark.slow),
        pytest.param(dict(in_channels=21, out_channels=21, groups=21), marks=pytest.mark.slow),
    ],
    ids=["forward", "backward_data", "backward_weights", "depthwise"],
)
def test_every_tile_gives_the_same_integers(fields: dict[str, Any]) -> None:
    spec = make_spec(**fields)
    operands = integer_operands(spec, np.random.default_rng(0)).main
    results = [
        convgen.compile(spec, "direct", 1, config=config)(*operands) for config in DIRECT.space(spec, Machine.host())
    ]
    assert len(results) >= 2
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


SMALL: dict[str, dict[str, Any]] = {
    "plane": {},
    "channels_first": dict(layout="channels_first"),
    "epilogue": dict(epilogue=("bias", "relu"), layout="channels_first"),
    "volume": dict(spatial_size=(3, 2, 5), kernel_size=3, padding=1),
    "line": dict(spatial_size=(9,), kernel_size=12, padding=8),
    "strided line": dict(spatial_size=(19,), kernel_size=16, padding=15, stride=2),
    "gradient of a line": dict(spatial_size=(29,), kernel_size=12, padding=2, direction="backward_data", stride=2),
    "groups of a line": dict(spatial_size=(5,), kernel_size=9, padding=5, groups=2, layout="channels_first"),
    "few terms, in place": dict(in_channels=3, padding=0),
    "few terms, a padding mode": dict(in_channels=3, padding_mode="reflect"),
    "few terms in channels_first": dict(in_channels=3, layout="channels_first", padding=0),
    "few terms in channels_first, padded": dict(in_channels=3, layout="channels_first"),
    "few terms in channels_first, a padding mode": dict(
        in_channels=3, layout="channels_first", padding_mode="circular"
    ),
    "much padding": dict(padding=((4, 2), (1, 3)), kernel_size=(5, 3)),
    "strided": dict(stride=2, spatial_size=(6, 9)),
    "dilated": dict(dilation=3, padding=3),
    "groups": dict(groups=2),
    "gradient": dict(direction="backward_data"),
    "strided gradient": dict(direction="backward_data", stride=(2, 3), spatial_size=(6, 7)),
    "transposed": dict(transposed=True, stride=2, kernel_size=4, spatial_size=(3, 4)),
}


@pytest.mark.parametrize("fields", SMALL.values(), ids=SMALL)
def test_rows_of_taps_outside_of_the_image_are_left_out(fields: dict[str, Any]) -> None:
    spec = make_spec(**{**dict(in_channels=4, out_channels=6, spatial_size=(4, 5), batch=2), **fields})
    config = next(config for config in DIRECT.space(spec, HOST) if config.get("by_rows", 0))
    operands = integer_operands(spec, np.random.default_rng(0))
    op = convgen.compile(spec, "direct", 1, config=config)
    got = op(*operands.main, **operands.epilogue)
    np.testing.assert_array_equal(got, reference(spec, *operands.main, **operands.epilogue))


WHOLE: dict[str, dict[str, Any]] = {
    "rows": {},
    "two tiles a row": dict(spatial_size=(3, 29)),
    "tiles that overlap": dict(spatial_size=(3, 15), out_channels=HOST.vector_bytes),
    "strided": dict(spatial_size=(9, 14), stride=2),
    "one side": dict(padding=((0, 1), (2, 0))),
    "window larger than the image": dict(spatial_size=(3, 2), kernel_size=5, padding=2),
    "dilated": dict(dilation=2, padding=2),
    "line": dict(spatial_size=(9,), kernel_size=5, padding=2),
    "volume": dict(spatial_size=(3, 4, 4), kernel_size=3, padding=1),
    "groups": dict(groups=2, in_channels=16, out_channels=32),
    "epilogue": dict(epilogue=("bias", "residual", "relu")),
    "gradient": dict(direction="backward_data", in_channels=20),
    "strided gradient": dict(direction="backward_data", in_channels=20, stride=2, kernel_size=5, padding=2),
    "gradient under a padding mode": dict(direction="backward_data", in_channels=20, padding_mode="reflect"),
    "transposed": dict(transposed=True, stride=2, kernel_size=4, spatial_size=(4, 4)),
    "float64": dict(dtype="float64"),
    "bfloat16": dict(dtype="bfloat16"),
    "int8": dict(dtype="int8"),
}


@pytest.mark.parametrize("fields", WHOLE.values(), ids=WHOLE)
def test_whole_rows_and_planes_leave_out_what_lies_outside(fields: dict[str, Any]) -> None:
    lanes = HOST.vector_bytes // 4
    base = dict(in_channels=8, out_channels=lanes + 3, spatial_size=(4, 5), batch=2)
    spec = make_spec(**{**base, **fields})
    configs = [config for config in DIRECT.space(spec, HOST) if config.get("whole", 0)]
    assert configs
    operands = integer_operands(spec, np.random.default_rng(0))
    want = reference(spec, *operands.main, **operands.epilogue)
    for config in configs:
        op = convgen.compile(spec, "direct", 1, config=config)
        got = op(*operands.main, **operands.epilogue)
        np.testing.assert_array_equal(got.astype(np.float64), want)
        assert "padded" not in op.source


def test_whole_planes_meet_streamed_weights_once() -> None:
    small = dataclasses.replace(HOST, l2_bytes=1 << 10)
    spec = make_spec(in_channels=8, out_channels=2 * HOST.vector_bytes // 4 + 3, spatial_size=(3, 4), groups=1)
    configs = [config for config in DIRECT.space(spec, small) if config.get("whole", 0)]
    assert {(config["whole"], config["pixels_first"]) for config in configs} == {(1, 0), (2, 0)}
    operands = integer_operands(spec, np.random.default_rng(0)).main
    for config in configs:
        op = CompiledConv(Plan(spec, "direct", config, "given"), small, 2)
        assert ("(packed, " in "".join(re.findall("prefetch_.*", op.source))) == (config["whole"] == 2)
        np.testing.assert_array_equal(op(*operands), reference(spec, *operands))


@pytest.mark.parametrize("machine", ["generic", "avx2"])
def test_terms_of_a_few_channels_in_channels_first_are_turned(machine: str) -> None:
    """Lanes of narrow vectors along as few reduced channels as are broadcast from where they lie."""
    where = machine_named(machine)
    terms = where.vector_bytes // 8
    spec = make_spec(in_channels=terms, out_channels=1, spatial_size=(5, 6), layout="channels_first", dtype="float64")
    config = next(config for config in DIRECT.space(spec, where) if config.get("terms", 0))
    operands = integer_operands(spec, np.random.default_rng(0)).main
    op = CompiledConv(Plan(spec, "direct", config, "given"), where, 1)
    np.testing.assert_array_equal(op(*operands), reference(spec, *operands))


def test_one_made_channel_of_a_long_line_needs_no_vectors_of_weights() -> None:
    spec = make_spec(in_channels=1001, out_channels=1, spatial_size=(64,), kernel_size=801, padding=400)
    assert spec.weight_bytes > HOST.l2_bytes
    config = next(config for config in DIRECT.space(spec, HOST) if config.get("by_rows", 0))
    assert "prefetch" not in lower(Plan(spec, "direct", config, "given"), HOST).llvm()


def test_images_larger_than_a_few_tiles_are_not_written_out() -> None:
    for fields in (
        dict(spatial_size=(1, 1), kernel_size=2, dilation=3, padding=2),
        dict(transposed=True, kernel_size=16, stride=8, padding=4, spatial_size=(8, 8)),
        dict(spatial_size=(100, 100)),
        dict(padding=0),
        dict(padding_mode="reflect"),
        dict(layout="channels_first"),
        dict(in_channels=3),
        dict(direction="backward_weights"),
    ):
        assert not any(config.get("whole", 0) for config in DIRECT.space(make_spec(**fields), HOST))


FEW: dict[str, dict[str, Any]] = {
    "one": dict(out_channels=1),
    "three": {},
    "channels_first": dict(layout="channels_first"),
    "many": dict(out_channels=HOST.vector_bytes // 8),
    "in place": dict(kernel_size=1, padding=0),
    "strided, no padding": dict(stride=(2, 1), padding=0),
    "epilogue": dict(epilogue=("bias", "gelu"), spatial_size=(3, 4)),
    "gradient": dict(in_channels=3, out_channels=64, direction="backward_data"),
    "transposed": dict(transposed=True, stride=2, kernel_size=4),
    "float64": dict(dtype="float64", out_channels=min(3, HOST.vector_bytes // 16)),
    "bfloat16": dict(dtype="bfloat16"),
    "int8": dict(dtype="int8"),
}


@pytest.mark.parametrize("fields", FEW.values(), ids=FEW)
def test_a_few_made_channels_are_summed_in_vectors(fields: dict[str, Any]) -> None:
    spec = make_spec(**{**dict(in_channels=64, out_channels=3, spatial_size=(5, 6), batch=2), **fields})
    config = next(config for config in DIRECT.space(spec, HOST) if config.get("terms", 0))
    operands = integer_operands(spec, np.random.default_rng(0))
    op = convgen.compile(spec, "direct", 1, config=config)
    got, want = op(*operands.main, **operands.epilogue), reference(spec, *operands.main, **operands.epilogue)
    if "gelu" in spec.epilogue.steps:
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(got.astype(np.float64), want)
    assert "sum_" in op.source


def test_channels_that_fill_no_vector_are_not_summed_in_vectors() -> None:
    for fields in (dict(in_channels=3), dict(out_channels=64), dict(out_channels=4, groups=2)):
        spec = make_spec(**{**dict(in_channels=64, out_channels=3), **fields})
        assert not any(config.get("terms", 0) for config in DIRECT.space(spec, HOST))


def test_rows_are_not_told_apart_where_little_is_padded() -> None:
    large = make_spec(spatial_size=(112, 112))
    assert not any(config.get("by_rows", 0) for config in DIRECT.space(large, HOST))
    assert not any(config.get("by_rows", 0) for config in DIRECT.space(make_spec(padding_mode="reflect"), HOST))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [((1, 2), (0, 0)), ((0, 0), (2, 1))])
def test_one_axis_alone_is_padded(padding: tuple[tuple[int, int], ...], mode: str) -> None:
    spec = make_spec(in_channels=8, padding=padding, padding_mode=mode, layout="channels_last", spatial_size=(6, 7))
    assert gate_a(spec, convgen.compile(spec, "direct", 1), np.random.default_rng(0)).ok
