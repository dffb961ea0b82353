"""direct's weight gradients: lanes along either channels, blocks of pixels, tiles of taps; exact integers in all of them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from convgen.driver import Plan, build_program
from convgen.ir.interp import evaluate_index
from convgen.ir.nodes import Program
from convgen.machine import Machine
from convgen.operator import CompiledConv
from convgen.spec import ConvSpec
from convgen.strategies.direct import Direct
from convgen.strategies.direct_weights_dots import residue_waste
from convgen.strategies.dots import adds_terms
from convgen.tuning.space import Config
from convgen.verify import gate_a
from tests.samples import MACHINE
from tests.strategies.test_contract import interpreted

HOST = Machine.host()
# So small a cache that every image is passed by in blocks.
SMALL = dataclasses.replace(HOST, l2_bytes=1 << 11)
# The same of a machine that need not be this one.
SMALL_CACHES = dataclasses.replace(MACHINE, l2_bytes=1 << 8)
PROBLEMS: dict[str, dict[str, Any]] = {
    "1d": dict(in_channels=20, out_channels=24, spatial_size=(37,), kernel_size=3, padding=1),
    "2d": dict(in_channels=32, out_channels=17, spatial_size=(9, 8), kernel_size=3, padding=1, batch=2),
    "2d strided": dict(
        in_channels=16, out_channels=20, spatial_size=(11, 9), kernel_size=(3, 2), stride=2, padding=(1, 0)
    ),
    "2d pointwise": dict(in_channels=16, out_channels=12, spatial_size=(7, 6), kernel_size=1, batch=3),
    "pointwise strided": dict(in_channels=16, out_channels=12, spatial_size=(7, 8), kernel_size=1, stride=2, batch=2),
    "2d groups": dict(in_channels=36, out_channels=24, spatial_size=(8, 7), kernel_size=3, padding=1, groups=2),
    "2d reflected": dict(
        in_channels=16, out_channels=8, spatial_size=(8, 7), kernel_size=3, padding=1, padding_mode="reflect"
    ),
    "2d transposed": dict(
        in_channels=12, out_channels=16, spatial_size=(6, 7), kernel_size=3, stride=2, padding=1, transposed=True
    ),
    "few channels": dict(in_channels=3, out_channels=20, spatial_size=(14, 13), kernel_size=5, stride=2, padding=2),
    "3d": dict(in_channels=16, out_channels=6, spatial_size=(4, 5, 6), kernel_size=(2, 3, 3), padding=(0, 1, 1)),
    "depthwise": dict(in_channels=24, out_channels=24, spatial_size=(9, 8), kernel_size=3, padding=1, groups=24),
    "depthwise 7x7": dict(in_channels=20, out_channels=20, spatial_size=(9, 10), kernel_size=7, padding=3, groups=20),
    "depthwise without padding": dict(
        in_channels=24, out_channels=24, spatial_size=(19, 18), kernel_size=3, groups=24, batch=2
    ),
    "depthwise strided": dict(
        in_channels=24, out_channels=24, spatial_size=(10, 9), kernel_size=3, stride=2, padding=(1, 0), groups=24
    ),
    "depthwise 1d": dict(in_channels=24, out_channels=24, spatial_size=(19,), kernel_size=5, padding=2, groups=24),
    "depthwise 3d": dict(in_channels=16, out_channels=16, spatial_size=(4, 5, 4), kernel_size=3, padding=1, groups=16),
}


def problem(name: str, **changes: Any) -> ConvSpec:
    return ConvSpec(
        **{"batch": 1, "layout": "channels_last", "direction": "backward_weights", **PROBLEMS[name], **changes}
    )


def spread(configs: tuple[Config, ...]) -> list[Config]:
    """One configuration of each kind: which choices there are, and those that are flags."""
    kinds: dict[tuple[object, ...], Config] = {}
    for config in configs:
        names = tuple(name for name, _ in config.values)
        kinds.setdefault((names, config.get("turned", 0), config.get("copied", 0)), config)
    return list(kinds.values())


def assert_exact(spec: ConvSpec, machine: Machine) -> set[str]:
    """Holds one configuration of each kind to exact integers, by two threads; returns the choices that they make."""
    found: set[str] = set()
    for config in spread(Direct().space(spec, machine)):
        comparison = gate_a(
            spec, CompiledConv(Plan(spec, "direct", config, "given"), machine, 2), np.random.default_rng(0)
        )
        assert comparison.ok, (config, comparison.reason)
        found |= {name for name, _ in config.values}
    return found


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_kind_of_configuration_is_exact(name: str) -> None:
    names = assert_exact(problem(name), SMALL)
    assert ("rows" in names) == name.startswith("depthwise")
    assert ("block" in names) == (name != "depthwise 1d")
    assert ("merged" in names) == (name == "few channels")


def test_lanes_that_lie_apart_are_copied_where_they_are_read_at_one_place() -> None:
    pointwise, window = (
        assert_exact(problem("2d pointwise", in_channels=100, out_channels=72, kernel_size=size), SMALL)
        for size in (1, 2)
    )
    transposed = problem("2d transposed", in_channels=100, out_channels=72)
    assert "packed" in assert_exact(transposed, SMALL)
    assert "packed" in pointwise
    assert "packed" in window
    space = Direct().space(problem("2d pointwise", in_channels=100, out_channels=72, kernel_size=2), SMALL)
    assert not any(config["turned"] and config.get("packed", 0) for config in space)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int8"])
@pytest.mark.parametrize("name", ["2d", "2d strided", "depthwise"])
def test_other_types(name: str, dtype: str) -> None:
    assert_exact(problem(name, dtype=dtype), SMALL)


DOTTED = (
    "1d",
    "2d",
    "2d strided",
    "2d pointwise",
    "pointwise strided",
    "2d groups",
    "2d transposed",
    "3d",
    "few channels",
)


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", DOTTED)
def test_dot_products_of_pixels_mean_the_gradient(name: str, layout: str) -> None:
    """Interpreted, so that no machine needs the instruction; rows of odd and even numbers of pixels, in one block and several."""
    machine = dataclasses.replace(SMALL_CACHES, features="+avx512bf16")
    channels = {"2d groups": (12, 10), "few channels": (3, 7)}.get(name, (6, 7))
    small = dict(zip(("in_channels", "out_channels"), channels, strict=True))
    for size in (5, 6):
        ndim = len(PROBLEMS[name]["spatial_size"])
        spec = problem(name, dtype="bfloat16", layout=layout, spatial_size=(3, 4, size)[-ndim:], batch=2, **small)
        assert {bool(config.get("block", 0)) for config, _ in interpreted_dots(spec, machine)} == {False, True}


def interpreted_dots(spec: ConvSpec, machine: Machine) -> list[tuple[Config, Program]]:
    """One configuration in dot products of each kind and its program, which is held to exact integers."""
    found = []
    for config in spread(tuple(c for c in Direct().space(spec, machine) if c.get("dot", 1) > 1)):
        plan = Plan(spec, "direct", config, "given")
        program, sizes = build_program(plan, machine)
        comparison = interpreted(program, sizes, plan, 0)
        assert comparison.ok, (config, comparison.reason)
        found.append((config, program))
    return found


@pytest.mark.parametrize(
    "changes",
    [
        dict(in_channels=3, out_channels=7, kernel_size=3, padding=1),
        dict(in_channels=6, out_channels=7, kernel_size=1, stride=(1, 2), padding=((1, 1), (0, 0))),
    ],
    ids=["few channels without a stride", "pixels left out between"],
)
def test_rows_of_odd_numbers_of_pixels(changes: dict[str, Any]) -> None:
    spec = problem("2d", dtype="bfloat16", spatial_size=(4, 5), **changes)
    assert interpreted_dots(spec, dataclasses.replace(SMALL_CACHES, features="+avx512bf16"))


@pytest.mark.parametrize("padding", [0, 1])
def test_an_image_without_padding_is_read_in_place(padding: int) -> None:
    spec = problem("2d", in_channels=6, out_channels=7, dtype="bfloat16", spatial_size=(4, 5), padding=padding)
    programs = interpreted_dots(spec, dataclasses.replace(SMALL_CACHES, features="+avx512bf16"))
    assert {program.has_buffer("padded") for _, program in programs} == {padding > 0}


def test_which_gradients_have_dot_products() -> None:
    machine = dataclasses.replace(SMALL, features="+avx512bf16")
    for name, changes, wanted in (
        ("2d", dict(dtype="bfloat16"), True),
        ("2d", dict(dtype="bfloat16", accuracy="strict"), False),
        ("2d", dict(dtype="float16"), False),
        ("2d reflected", dict(dtype="bfloat16"), False),
        ("depthwise", dict(dtype="bfloat16"), False),
    ):
        found = Direct().space(problem(name, **changes), machine)
        assert any(config.get("dot", 1) > 1 for config in found) == wanted, (name, changes)
    assert not any(config.get("dot", 1) > 1 for config in Direct().space(problem("2d", dtype="bfloat16"), SMALL_CACHES))


def test_rows_are_parted_by_the_residues_of_small_strides() -> None:
    machine = dataclasses.replace(SMALL, features="+avx512bf16")
    for stride, wanted in ((16, True), (17, False)):
        found = Direct().space(problem("few channels", dtype="bfloat16", stride=(1, stride)), machine)
        assert any(config.get("dot", 1) > 1 and config.get("merged", 0) for config in found) == wanted


@pytest.mark.parametrize(("width", "stride", "padding"), [(256, 16, 0), (240, 16, 1), (32, 2, 1), (45, 3, 0)])
def test_rows_by_their_residues_count_what_is_added_to_them(width: int, stride: int, padding: int) -> None:
    spec = problem("few channels", dtype="bfloat16", spatial_size=(16, width), stride=(1, stride), padding=padding)
    machine = dataclasses.replace(MACHINE, features="+avx512bf16")
    config = next(c for c in Direct().space(spec, machine) if c.get("dot", 1) > 1 and c.get("merged", 0))
    program, sizes = build_program(Plan(spec, "direct", config, "given"), machine)
    row = [evaluate_index(extent, sizes) for extent in program.buffer("rows").shape[-2:]]
    assert residue_waste(spec) * width == pytest.approx(math.prod(row))


@pytest.mark.skipif(not adds_terms(HOST, "bfloat16"), reason="this processor has no dot products of bfloat16")
@pytest.mark.parametrize("name", ["1d", "2d strided", "2d pointwise", "pointwise strided", "few channels"])
def test_types_in_pairs(name: str) -> None:
    assert "dot" in assert_exact(problem(name, dtype="bfloat16"), SMALL)


@pytest.mark.parametrize("name", ["2d", "2d pointwise", "depthwise"])
def test_channels_first(name: str) -> None:
    assert_exact(problem(name, layout="channels_first"), SMALL)


def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    spec = problem("2d")
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape, dtype=np.float32) for shape in spec.operand_shapes.values())
    for config in spread(Direct().space(spec, SMALL)):
        ops = [CompiledConv(Plan(spec, "direct", config, "given"), HOST, threads) for threads in (1, 2)]
        np.testing.assert_array_equal(ops[0](x, dy), ops[1](x, dy))


def test_images_beyond_the_cache_are_passed_by_in_blocks() -> None:
    large = problem("2d", in_channels=64, out_channels=64, spatial_size=(224, 224))
    assert Direct().default(large, HOST).get("block", 0)
    assert not Direct().default(problem("2d"), HOST).get("block", 0)
