"""Squares that are transposed in registers: machine code against the interpreter, and what lies around stays as it is."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from convgen.dtypes import DTYPES
from convgen.ir.build import mul, sub
from convgen.ir.interp import interpret
from convgen.ir.nodes import Buffer, For, Int, Program, Stage, Transpose, Var
from convgen.machine import Machine, machine_named
from convgen.targets.cpu.build import stage_address
from convgen.targets.cpu.lower import lower_stage

STAGE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3)
FENCE = 7


def turning(dtype: str, size: int, *, partly: bool) -> Program:
    """y[c, 1, r] = x[r, c], square after square; a middle axis makes rows of y further apart than they are long."""
    row, column = mul("i", size), mul("j", size)
    counts = (sub("R", row), sub("C", column)) if partly else (None, None)
    body = Transpose("y", (column, Int(1), row), 0, "x", (row, column), 0, size, *counts)
    nest = For("i", Var("RB"), (For("j", Var("CB"), (body,)),))
    buffers = (
        Buffer("x", dtype, (Var("R"), Var("C")), "operand"),
        Buffer("y", dtype, (Var("C"), Int(2), Var("R")), "result"),
    )
    return Program("turning", ("R", "C", "RB", "CB"), buffers, (Stage("turn", (nest,)),))


def run(program: Program, sizes: dict[str, int], x: np.ndarray, machine: Machine) -> np.ndarray:
    """What y holds afterwards where it began as sevens."""
    stage = lower_stage(program, program.stages[0], machine)
    y = np.full((sizes["C"], 2, sizes["R"]), FENCE, x.dtype)
    addresses = np.array([x.ctypes.data, y.ctypes.data], np.int64)
    values = np.array([sizes[name] for name in stage.sizes], np.int64)
    STAGE(stage_address(stage, machine))(addresses.ctypes.data, values.ctypes.data, 0, 1, 0)
    return y


@pytest.mark.parametrize("machine", ["generic", "host"])
@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize(("rows", "columns", "size"), [(8, 8, 8), (5, 11, 4), (17, 3, 16)])
def test_machine_code_moves_what_the_interpreter_moves(
    rows: int, columns: int, size: int, dtype: str, machine: str
) -> None:
    sizes = {"R": rows, "C": columns, "RB": -(-rows // size), "CB": -(-columns // size)}
    partly = bool(rows % size or columns % size)
    program = turning(dtype, size, partly=partly)
    x = (np.arange(rows * columns) % 100).astype(DTYPES[dtype].numpy).reshape(rows, columns)
    got = run(program, sizes, x, machine_named(machine))
    np.testing.assert_array_equal(got[:, 1].T.astype(np.float64), x.astype(np.float64))
    assert np.all(got[:, 0].astype(np.float64) == FENCE)
    meant = interpret(program, sizes, {"x": x})["y"]
    np.testing.assert_array_equal(meant[:, 1].astype(np.float64), got[:, 1].astype(np.float64))
