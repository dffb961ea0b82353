"""Integer arithmetic in kernels is Python's, for every sign."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np

from convgen.machine import Machine
from convgen.runtime.objects import load_object
from convgen.targets.cpu.build import UNIT, _target_machine, unit_assembly, unit_module
from convgen.targets.cpu.numba_pipeline import plain_llvm

HOST = Machine.host()
FORMULAS = ("a // b", "a % b", "min(a, b)", "max(a, b)", "a // 7", "a % 8", "a // 16", "min(a, 3)", "max(5, a)")
SOURCE = "\n".join(
    [
        f"def {UNIT}(buffers, sizes, begin, end, worker):",
        "    a, b = sizes[0], sizes[1]",
        *(f"    buffers[{place}] = {formula}" for place, formula in enumerate(FORMULAS)),
    ]
)


def compiled() -> ctypes._CFunctionType:
    code = _target_machine(HOST).emit_object(unit_module(SOURCE, HOST))
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)
    return signature(load_object(code, UNIT))


def test_every_sign() -> None:
    stage = compiled()
    found = np.zeros(len(FORMULAS), np.int64)
    for a, b in itertools.product(range(-17, 18), (-9, -2, -1, 1, 2, 3, 16)):
        sizes = np.array([a, b], np.int64)
        stage(found.ctypes.data, sizes.ctypes.data, 0, 1, 0)
        assert found.tolist() == [eval(formula, {"a": a, "b": b}) for formula in FORMULAS], (a, b)


def test_zero_does_not_trap() -> None:
    found, sizes = np.zeros(len(FORMULAS), np.int64), np.zeros(2, np.int64)
    compiled()(found.ctypes.data, sizes.ctypes.data, 0, 1, 0)
    assert found[FORMULAS.index("max(5, a)")] == 5


def test_no_branches_and_no_calls() -> None:
    text, name = plain_llvm(SOURCE, UNIT)
    body = text[text.index("define") :]
    assert name in body
    assert body.count("define") == 1
    assert " br i1 " not in body
    assert " call " not in body


def test_a_unit_is_one_function() -> None:
    assert str(unit_module(SOURCE, HOST)).count("define ") == 1
    assert f"{UNIT}:" in unit_assembly(SOURCE, HOST)
