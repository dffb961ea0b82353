"""The same problems for lower levels of the processor's features: right numbers, and no instruction beyond the level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convgen
from convgen.errors import OptionError
from convgen.machine import Machine, machine_named
from convgen.spec import DIRECTIONS, ConvSpec
from convgen.verify import gate_a

PROBLEMS: dict[str, dict[str, Any]] = {
    "channels first": dict(),
    "channels last": dict(layout="channels_last", stride=2, groups=3, out_channels=21, dtype="float64"),
    "depthwise": dict(groups=3, out_channels=3, layout="channels_last", dtype="bfloat16"),
}


def level(name: str) -> Machine:
    try:
        return machine_named(name)
    except OptionError as error:
        pytest.skip(str(error))


def make_spec(**fields: Any) -> ConvSpec:
    base: dict[str, Any] = dict(batch=1, in_channels=3, out_channels=19, spatial_size=(5, 11), kernel_size=3, padding=1)
    return ConvSpec(**{**base, **fields})


@pytest.mark.parametrize("name", ["avx2", "generic"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_integers_are_exact(problem: str, direction: str, name: str) -> None:
    spec = make_spec(direction=direction, **PROBLEMS[problem])
    op = convgen.compile(spec, "direct", 1, machine=level(name))
    comparison = gate_a(spec, op, np.random.default_rng(0))
    assert comparison.ok, comparison.reason


@pytest.mark.parametrize(("name", "dtype"), [("avx2", "float16"), ("generic", "bfloat16")])
def test_activations_work_without_wide_vectors(name: str, dtype: str) -> None:
    spec = make_spec(epilogue=("bias", "gelu", "tanh", "sigmoid", "relu6"), dtype=dtype)
    comparison = gate_a(spec, convgen.compile(spec, machine=level(name)), np.random.default_rng(0))
    assert comparison.ok, comparison.reason


def test_no_register_beyond_the_level_appears() -> None:
    if "x86" not in Machine.host().triple:
        pytest.skip("register names are x86's")
    spec = make_spec(out_channels=64, layout="channels_last")
    generic = convgen.compile(spec, "direct", 1, machine=level("generic")).inspect_asm()
    assert "%ymm" not in generic
    assert "%zmm" not in generic
    avx2 = convgen.compile(spec, "direct", 1, machine=level("avx2")).inspect_asm()
    assert "%ymm" in avx2
    assert "%zmm" not in avx2
    assert "vfmadd" in avx2
