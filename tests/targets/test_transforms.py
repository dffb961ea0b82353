"""Constant matrices applied to registers, and memory that belongs to a worker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convgen.ir.interp import interpret
from convgen.ir.nodes import For, Program, Stage
from convgen.machine import Machine
from convgen.passes.pipeline import run_passes
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.runtime.launch import Launcher
from convgen.runtime.workspace import WorkspacePool
from convgen.targets.cpu.program import lower_program
from tests.passes.small import DIFFERENCES, transformed_columns

IMAGES = 5


def compiled_result(program: Program, x: np.ndarray, threads: int) -> np.ndarray:
    """Runs a program with one operand on that many threads."""
    lowered = lower_program(program, {"M": len(x)}, Machine.host(), threads)
    y = np.full((len(x), 4, x.shape[2]), np.nan, np.float32)
    pool = WorkspacePool(lowered.workspace_bytes)
    base = pool.acquire()
    addresses = {"x": x.ctypes.data, "y": y.ctypes.data}
    addresses |= {name: base + offset for name, offset in lowered.workspace.items()}
    launcher = Launcher(lowered.calls(), (None,) * len(program.buffers), threads)
    launcher.run([addresses[buffer.name] for buffer in program.buffers])
    return y


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("passes", [(Unroll("i"),), (Vectorize("c"), Unroll("i"))], ids=["scalar", "vectors"])
def test_compiled_is_what_the_interpreter_says(passes: tuple[Unroll | Vectorize, ...], threads: int) -> None:
    program = transformed_columns(8)
    x = np.random.default_rng(0).standard_normal((IMAGES, 3, 8)).astype(np.float32)
    want = interpret(program, {"M": IMAGES}, {"x": x})["y"]
    np.testing.assert_array_equal(want, DIFFERENCES.apply(x, 1))
    np.testing.assert_array_equal(compiled_result(run_passes(program, passes), x, threads), want)


def test_workers_have_memory_of_their_own() -> None:
    program = Unroll("i")(transformed_columns(6))
    one, three = (lower_program(program, {"M": 2}, Machine.host(), workers) for workers in (1, 3))
    assert one.worker_bytes == 128  # 4 x 6 float32, rounded up to a multiple of 64
    assert three.workspace_bytes - one.workspace_bytes == 2 * one.worker_bytes


def test_a_task_finds_nothing_in_local_memory() -> None:
    program = transformed_columns(2)
    nest = program.stages[0].body[0]
    assert isinstance(nest, For)
    stages = (*program.stages, Stage("again", (replace(nest, body=nest.body[1:]),)))
    x = np.ones((1, 3, 2), np.float32)
    broken = replace(program, stages=stages)
    assert np.isnan(interpret(broken, {"M": 1}, {"x": x})["y"]).all()
