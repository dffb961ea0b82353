"""The cost model: the order it gives, not its numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.base import Strategy
from convgen.strategies.direct import Direct
from convgen.strategies.reference import Reference
from convgen.strategies.registry import rank
from convgen.tuning.space import Config

AVX512 = Machine(
    name="test", triple="x86_64-unknown-linux-gnu", cpu="x86-64-v4", features="", isa="avx512", vector_bytes=64,
    vector_registers=32, l1d_bytes=48 << 10, l2_bytes=2 << 20, l3_bytes=32 << 20, cores=1,
)  # fmt: skip

DIRECT, REFERENCE = Direct(), Reference()


def problem(**changes: Any) -> ConvSpec:
    fields: dict[str, Any] = dict(
        batch=1,
        in_channels=64,
        out_channels=64,
        spatial_size=(56, 56),
        kernel_size=3,
        padding=1,
        layout="channels_last",
    )
    return ConvSpec(**(fields | changes))


def direct(spec: ConvSpec, pixels: int, lanes: int, machine: Machine = AVX512) -> float:
    return DIRECT.predicted_seconds(spec, Config.of(pixels=pixels, lanes=lanes, pixels_first=0), machine)


def test_a_tile_of_24_accumulators_beats_a_single_pixel() -> None:
    tiles = ((1, 64), (1, 16), (6, 64), (3, 32))
    candidates: list[tuple[Strategy, Config]] = [(REFERENCE, Config())]
    candidates += [(DIRECT, Config.of(pixels=p, lanes=n, pixels_first=0)) for p, n in tiles]
    ranked = rank(problem(), AVX512, candidates)
    assert ranked[0] == (DIRECT, Config.of(pixels=6, lanes=64, pixels_first=0))
    assert ranked[-1] == (REFERENCE, Config())
    assert sorted(map(str, ranked)) == sorted(map(str, candidates))


def test_too_few_accumulators_wait_for_each_other() -> None:
    assert direct(problem(), 2, 16) > 1.9 * direct(problem(), 4, 32)


def test_loads_bound_a_tile_of_one_vector() -> None:
    assert direct(problem(), 14, 16) > direct(problem(), 14, 32)


def test_a_few_pixels_wait_for_weights_beyond_the_first_level_cache() -> None:
    few, many = (
        problem(in_channels=channels, spatial_size=(112, 112), kernel_size=1, padding=0) for channels in (64, 512)
    )
    assert direct(many, 2, 64) / direct(many, 6, 64) > 1.5 * direct(few, 2, 64) / direct(few, 6, 64)


def test_a_tile_beyond_the_registers_spills() -> None:
    assert direct(problem(), 14, 64) > direct(problem(), 7, 64)
    narrow = dataclasses.replace(AVX512, vector_registers=16)
    assert direct(problem(), 7, 64, narrow) > direct(problem(), 7, 64)


@pytest.mark.parametrize(
    ("changes", "whole", "overlapping"),
    [
        pytest.param({"spatial_size": (7, 7)}, 7, 5, id="image-of-49"),
        pytest.param(
            {"spatial_size": (7, 7), "kernel_size": 1, "padding": 0, "in_channels": 512}, 7, 5, id="merged-49"
        ),
        pytest.param({"direction": "backward_data", "stride": 2, "spatial_size": (14, 14)}, 7, 8, id="classes-of-49"),
        pytest.param({"transposed": True, "stride": 2, "spatial_size": (7, 7)}, 7, 8, id="transposed-classes"),
        pytest.param({"direction": "backward_weights"}, 8, 7, id="64-reduced-channels"),
    ],
)
def test_overlapping_tiles_are_wasted_work(changes: dict[str, Any], whole: int, overlapping: int) -> None:
    # With registers enough, a larger tile is only ever slower for its overlap.
    roomy = dataclasses.replace(AVX512, vector_registers=1000)
    spec = problem(**changes)
    assert direct(spec, overlapping, 64, roomy) > 1.01 * direct(spec, whole, 64, roomy)


def test_a_block_of_weights_beyond_the_cache_is_read_again() -> None:
    deep = problem(in_channels=512, out_channels=512, spatial_size=(7, 7))
    small = dataclasses.replace(AVX512, l2_bytes=1 << 20)
    assert direct(deep, 14, 32, small) < direct(deep, 7, 64, small)
    assert direct(deep, 14, 32) > direct(deep, 7, 64)


def test_lanes_beyond_the_channels_are_wasted_work() -> None:
    assert direct(problem(out_channels=96), 7, 64) > direct(problem(out_channels=96), 14, 32)
    assert direct(problem(out_channels=3), 16, 64) > direct(problem(out_channels=3), 16, 4)


def test_depthwise_problems_have_their_groups_in_the_lanes() -> None:
    depthwise = problem(in_channels=144, out_channels=144, groups=144)
    assert direct(depthwise, 7, 64) > direct(depthwise, 7, 16)


def test_a_depthwise_weight_gradient_has_taps_in_its_tile() -> None:
    depthwise = problem(
        in_channels=64, out_channels=64, groups=64, direction="backward_weights", kernel_size=7, padding=3
    )

    def seconds(rows: int, pixels: int) -> float:
        return DIRECT.predicted_seconds(depthwise, Config.of(rows=rows, pixels=pixels, lanes=16, copied=1), AVX512)

    assert seconds(1, 4) > seconds(1, 7) > seconds(4, 7)


def test_copies_cost_time() -> None:
    unpadded = problem(padding=0)
    assert direct(problem(layout="channels_first", padding=0), 7, 64) > direct(unpadded, 7, 64)
    same_work = problem(spatial_size=(54, 54), padding=(1, 1))
    assert same_work.macs == problem(spatial_size=(56, 56), padding=0).macs
    assert direct(same_work, 6, 64) > direct(unpadded, 6, 64)


def test_equals_stay_in_the_order_given() -> None:
    spec = problem(batch=0)
    candidates: list[tuple[Strategy, Config]] = [
        (REFERENCE, Config()),
        (DIRECT, Config.of(pixels=7, lanes=64, pixels_first=0)),
        (REFERENCE, Config.of(a=1)),
    ]
    for order in (candidates, candidates[::-1]):
        references = [candidate for candidate in rank(spec, AVX512, order) if candidate[0] is REFERENCE]
        assert references == [candidate for candidate in order if candidate[0] is REFERENCE]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("direction", ["forward", "backward_data", "backward_weights"])
@pytest.mark.parametrize("batch", [0, 1])
def test_every_problem_has_a_cost(dtype: str, direction: str, batch: int) -> None:
    spec = problem(batch=batch, dtype=dtype, direction=direction, stride=5, kernel_size=2, transposed=True, padding=0)
    seconds = direct(spec, 1, 2)
    assert seconds >= 0
    assert (seconds > 0) == (batch > 0 or spec.weight_bytes > 0)
