"""depthwise: what it refuses, and that its kernels are exact at every border, with nothing copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convgen
from convgen.driver import Plan, heuristic_plan, lower
from convgen.ir.nodes import For, If
from convgen.ir.rewrite import statements
from convgen.machine import Machine, machine_named
from convgen.oracle import reference
from convgen.spec import ConvSpec
from convgen.strategies.depthwise import Depthwise
from convgen.verify import compare_exact, integer_operands

HOST = Machine.host()
DEPTHWISE = Depthwise()
LAST = "channels_last"

WINDOWS: dict[str, dict[str, Any]] = {
    "3x3": dict(kernel_size=3, padding=1),
    "5x5 stride 2": dict(kernel_size=5, padding=2, stride=2),
    "uneven": dict(kernel_size=(3, 5), padding=((0, 2), (4, 1)), stride=(2, 1)),
    "no padding": dict(kernel_size=3),
    "cropped": dict(kernel_size=3, padding=((-1, 0), (-2, -1))),
    "dilated": dict(kernel_size=3, dilation=(2, 3), padding=3, stride=(1, 2)),
    "reflected": dict(kernel_size=5, padding=2, padding_mode="reflect"),
    "replicated": dict(kernel_size=3, padding=((3, 1), (2, 4)), padding_mode="replicate", stride=2),
    "circular": dict(kernel_size=(2, 4), padding=((1, 0), (3, 3)), padding_mode="circular"),
    "larger than the image": dict(spatial_size=(4, 5), kernel_size=(9, 11), padding=(4, 5)),
    "a row": dict(spatial_size=(1, 12), kernel_size=(1, 3), padding=(0, 1)),
    "a column": dict(spatial_size=(12, 1), kernel_size=(3, 1), padding=(1, 0)),
    "transposed": dict(kernel_size=3, padding=1, stride=2, output_padding=1, transposed=True),
    "line": dict(spatial_size=(19,), kernel_size=15, padding=7),
    "volume": dict(spatial_size=(4, 5, 6), kernel_size=3, padding=1, stride=(1, 2, 1)),
}


def make_spec(**fields: Any) -> ConvSpec:
    channels = fields.pop("channels", 20)
    base: dict[str, Any] = dict(batch=2, spatial_size=(9, 11), layout=LAST, groups=channels)
    return ConvSpec(**{**base, **fields}, in_channels=channels, out_channels=channels)


def check(spec: ConvSpec, machine: Machine | None = None, *, every: bool = False) -> None:
    operands = integer_operands(spec, np.random.default_rng(0))
    expected = reference(spec, *operands.main, **operands.epilogue)
    configs = DEPTHWISE.space(spec, machine or HOST)
    for config in configs if every else configs[:1]:
        op = convgen.compile(spec, "depthwise", 2, config=config, machine=machine)
        result = op(*operands.main, **operands.epilogue)
        found = compare_exact(result, expected.astype(result.dtype))
        assert found.ok, (spec, config, found.reason)


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_exact(name: str) -> None:
    check(make_spec(**WINDOWS[name]))


@pytest.mark.parametrize("name", ["3x3", "5x5 stride 2", "reflected"])
def test_data_gradients_are_exact(name: str) -> None:
    check(make_spec(**WINDOWS[name], direction="backward_data"))


@pytest.mark.parametrize("level", ["generic", "avx2"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_feature_levels_are_exact(level: str, dtype: str) -> None:
    check(make_spec(kernel_size=3, padding=1, dtype=dtype), machine_named(level))


@pytest.mark.parametrize("channels", [2, 3, 17])
def test_any_number_of_channels_is_exact(channels: int) -> None:
    check(make_spec(kernel_size=3, padding=1, channels=channels))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_narrow_types_are_exact(dtype: str) -> None:
    check(make_spec(kernel_size=3, padding=1, dtype=dtype))


@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
def test_images_smaller_than_a_tile_are_exact(size: tuple[int, int]) -> None:
    check(make_spec(spatial_size=size, kernel_size=3, padding=1))


GROUPS: dict[str, dict[str, Any]] = {
    "2 to 2": dict(groups=10, in_channels=20, out_channels=20),
    "4 to 4": dict(groups=5, in_channels=20, out_channels=20),
    "8 to 8, stride 2": dict(groups=3, in_channels=24, out_channels=24, stride=2),
    "16 to 16": dict(groups=2, in_channels=32, out_channels=32, spatial_size=(5, 6)),
    "1 to 2": dict(groups=9, in_channels=9, out_channels=18),
    "1 to 8": dict(groups=3, in_channels=3, out_channels=24, dilation=2, padding=2),
    "2 to 1": dict(groups=18, in_channels=36, out_channels=18),
    "4 to 2, reflected": dict(groups=9, in_channels=36, out_channels=18, padding_mode="reflect"),
    "2 to 8, with an epilogue": dict(
        groups=4, in_channels=8, out_channels=32, epilogue=("scale", "shift", "residual", "relu")
    ),
    "transposed": dict(groups=6, in_channels=12, out_channels=24, transposed=True, stride=2),
    "line": dict(groups=6, in_channels=24, out_channels=24, spatial_size=(13,), kernel_size=7, padding=3),
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("direction", ["forward", "backward_data"])
def test_groups_of_a_few_channels_are_exact(direction: str, name: str) -> None:
    fields = dict(batch=2, spatial_size=(7, 9), kernel_size=3, padding=1, layout=LAST, direction=direction)
    if direction == "backward_data" and "epilogue" in GROUPS[name]:
        pytest.skip("gradients have no epilogue")
    spec = ConvSpec(**{**fields, **GROUPS[name]})
    if DEPTHWISE.refusal(spec, HOST) is None:
        check(spec)
    else:
        assert spec.reduced_channels > 4 * spec.made_channels


@pytest.mark.parametrize("level", ["generic", "avx2"])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "int8"])
def test_groups_at_feature_levels_are_exact(level: str, dtype: str) -> None:
    spec = make_spec(groups=5, spatial_size=(4, 5), kernel_size=3, padding=1, dtype=dtype)
    check(spec, machine_named(level))


def test_every_config_is_exact() -> None:
    check(make_spec(spatial_size=(5, 5), kernel_size=(2, 3), padding=1), every=True)


def test_an_epilogue_is_fused() -> None:
    spec = make_spec(kernel_size=3, padding=1, epilogue=("bias", "relu6", "residual", "scale", "shift"))
    check(spec)
    assert len(lower(Plan(spec, "depthwise", DEPTHWISE.default(spec, HOST), "given"), HOST).stages) == 2


def test_an_empty_batch_gives_an_empty_result() -> None:
    check(make_spec(batch=0, kernel_size=3, padding=1))


def test_results_do_not_depend_on_threads() -> None:
    spec = make_spec(batch=1, channels=70, spatial_size=(40, 40), kernel_size=3, padding=1)
    draw = np.random.default_rng(0)
    x = draw.standard_normal(spec.input_shape).astype(np.float32)
    w = draw.standard_normal(spec.weight_shape).astype(np.float32)
    one, two = (convgen.compile(spec, "depthwise", threads)(x, w) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_values_beside_the_image_are_not_multiplied() -> None:
    """An infinite weight meets the padding of some outputs: they stay finite, as where a sum leaves the padding out."""
    spec = make_spec(batch=1, spatial_size=(3, 3), kernel_size=3, padding=1)
    weight = np.ones(spec.weight_shape, np.float32)
    weight[:, :, 0, 0] = np.inf
    result = convgen.compile(spec, "depthwise", 1)(np.ones(spec.input_shape, np.float32), weight)
    infinite = np.isinf(result[0, :, :, 0])
    np.testing.assert_array_equal(infinite, [[False] * 3, [False, True, True], [False, True, True]])
    assert not np.isnan(result).any()


def test_nothing_is_copied() -> None:
    for mode in ("zeros", "circular"):
        spec = make_spec(kernel_size=3, padding=1, padding_mode=mode)
        plan = Plan(spec, "depthwise", DEPTHWISE.default(spec, HOST), "given")
        assert lower(plan, HOST).workspace_bytes == 0


def test_only_the_border_is_tested() -> None:
    """Of the columns that a tile reads, one at each end can lie outside of the image, and only in tiles at the border."""
    spec = make_spec(kernel_size=3, padding=1, spatial_size=(30, 30))
    config = next(config for config in DEPTHWISE.space(spec, HOST) if config["rows"] == 1)
    stage = lower(Plan(spec, "depthwise", config, "given"), HOST).program.stages[-1]
    tests = [statement for statement in statements(stage.body) if isinstance(statement, If)]
    inside, border = tests[:2]
    assert len(tests) == 4
    assert not any(isinstance(statement, If) for statement in statements(inside.body))
    assert sum(isinstance(statement, If) for statement in statements(border.body)) == 2
    named = {statement.var for statement in statements(stage.body) if isinstance(statement, For)}
    assert {"kh", "kh_border"} <= named


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (dict(direction="backward_weights"), "summed over pixels"),
        (dict(groups=1), "too few"),
        (dict(groups=4), "5 to 5 channels do not fill vectors evenly"),
        (dict(channels=64, groups=2), "32 to 32 channels do not fill"),
        (dict(layout="channels_first"), "channels_first"),
        (dict(kernel_size=(3, 33), padding=16), "wider than the 31 taps"),
        (dict(channels=32, groups=8, kernel_size=(3, 17), padding=8), "or 64 terms that are unrolled"),
    ],
)
def test_what_it_cannot_do_is_refused(fields: dict[str, Any], reason: str) -> None:
    assert reason in str(DEPTHWISE.refusal(make_spec(**{"kernel_size": 3, "padding": 1, **fields}), HOST))


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize(("channels", "size"), [(32, 112), (144, 56), (384, 14), (960, 7)])
def test_it_is_the_choice_for_depthwise_problems(kernel: int, channels: int, size: int) -> None:
    spec = make_spec(batch=1, channels=channels, spatial_size=(size, size), kernel_size=kernel, padding=kernel // 2)
    assert heuristic_plan(spec, HOST).strategy == "depthwise"
