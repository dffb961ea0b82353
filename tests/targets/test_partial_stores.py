"""Stores of some lanes of a vector: by masks where the processor has them, elsewhere whole vectors by a branch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import convgen
from convgen.driver import Plan, lower, source_of
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.pointwise import Pointwise
from convgen.verify import gate_a
from tests.samples import MACHINE

HOST = Machine.host()


def problem(out_channels: int, dtype: str = "float32") -> ConvSpec:
    return ConvSpec(
        batch=1, in_channels=3, out_channels=out_channels, spatial_size=(3, 5), kernel_size=1, layout="channels_last",
        dtype=dtype,
    )  # fmt: skip


@pytest.mark.parametrize(("isa", "branches"), [("avx512", False), ("avx2", True), ("generic", True)])
def test_processors_without_masks_branch(isa: str, branches: bool) -> None:
    spec, machine = problem(19), dataclasses.replace(MACHINE, isa=isa)
    plan = Plan(spec, "pointwise", Pointwise().default(spec, machine), "given")
    assert ("def store_some(" in source_of(plan, lower(plan, machine))) == branches


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_channels_from_none_of_the_last_vector_to_all(dtype: str) -> None:
    """One kernel, whose last panel has as many channels as are left."""
    for out_channels in range(1, 2 * HOST.vector_bytes // 4 + 2, 3):
        op = convgen.compile(problem(out_channels, dtype), "pointwise", 1)
        assert gate_a(op.spec, op, np.random.default_rng(0)).ok, out_channels
