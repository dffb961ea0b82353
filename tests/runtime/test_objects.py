"""Object code is loaded, and what cannot be loaded is a typed error rather than the end of the process."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convgen.errors import CompileError
from convgen.runtime.cache import Entry, KernelCache
from convgen.runtime.objects import load_object, undefined_symbols
from tests.runtime.stage_code import SCALE, compiled

ANSWER = "define i64 @answer() {{\n ret i64 {}\n}}"
CALLER = """
declare double @{0}(double)
define double @call(double %x) {{
  %y = call double @{0}(double %x)
  ret double %y
}}
"""
elf = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="object files are ELF on Linux only")


def test_two_objects_may_define_the_same_symbol() -> None:
    addresses = [load_object(compiled(ANSWER.format(value)), "answer") for value in (41, 42)]
    assert [ctypes.CFUNCTYPE(ctypes.c_int64)(address)() for address in addresses] == [41, 42]


def test_functions_of_the_process_are_found() -> None:
    address = load_object(compiled(CALLER.format("tanh")), "call")
    assert ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(address)(0.0) == 0.0


@elf
def test_missing_functions_are_named() -> None:
    code = compiled(CALLER.format("no_such_function"))
    assert undefined_symbols(code) == ["no_such_function"]
    with pytest.raises(CompileError, match="needs no_such_function"):
        load_object(code, "call")


def test_a_missing_symbol_is_named() -> None:
    with pytest.raises(CompileError, match="symbol='other'"):
        load_object(compiled(ANSWER.format(1)), "other")


@pytest.mark.parametrize("code", [b"", b"not an object file", b"\x7fELF\x02\x01"])
def test_foreign_code_is_a_typed_error(code: bytes) -> None:
    with pytest.raises(CompileError, match="code="):
        load_object(code, "kernel")


@elf
def test_truncated_elf_is_a_typed_error() -> None:
    with pytest.raises(CompileError, match="code="):
        load_object(compiled(SCALE)[:-40], "scale")


FRESH = """
import sys
import numpy as np
from convgen.runtime.cache import KernelCache
from convgen.runtime.launch import ArrayGuard, Launcher, StageCall
from convgen.runtime.objects import load_object
entry = KernelCache(sys.argv[1]).get("0123456789abcdef")
x = np.arange(5.0)
guard = ArrayGuard(x.dtype, x.shape, True)
launcher = Launcher([StageCall(load_object(entry.code, entry.symbol), 5, (3, 0))], [guard, guard])
y = np.empty_like(x)
assert launcher(x, y) is True and (y == 3 * x).all()
print(sorted({"numba", "jinja2"} & set(sys.modules)))
"""


def test_a_cached_kernel_runs_in_a_new_process_without_numba(tmp_path: Path) -> None:
    KernelCache(tmp_path).put("0123456789abcdef", Entry("scale", compiled(SCALE), SCALE))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", FRESH, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr


def test_a_refused_object_leaves_the_loader_intact() -> None:
    """An engine frees its target machine with itself; the next one must have its own."""
    code = compiled(SCALE)
    for _ in range(20):
        with pytest.raises(CompileError, match="is not defined"):
            load_object(code, "absent")
        gc.collect()
        assert load_object(code, "scale")
