"""Operands and results directly against pages that cannot be touched: any access outside an array ends the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from convgen.spec import ConvSpec

PROGRAM = '''
import ctypes, json, mmap, sys
import numpy as np
import convgen
from convgen.driver import accurate_strategies, algorithms_of_plan
from convgen.dtypes import DTYPES
from convgen.spec import ConvSpec
from convgen.strategies.registry import applicable
from convgen.verify import compare_exact, expect_integers, integer_operands
from convgen.machine import Machine
from convgen.oracle import reference

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
PAGE = mmap.PAGESIZE
kept = []

def fenced(array, at_end):
    """A copy of the array that ends (or begins) where a page without any access begins (or ends)."""
    pages = -(-array.nbytes // PAGE)
    block = mmap.mmap(-1, (pages + 2) * PAGE)
    kept.append(block)
    start = ctypes.addressof(ctypes.c_char.from_buffer(block))
    for fence in (start, start + (pages + 1) * PAGE):
        assert libc.mprotect(fence, PAGE, 0) == 0, ctypes.get_errno()
    offset = (pages + 1) * PAGE - array.nbytes if at_end else PAGE
    copy = np.ndarray(array.shape, array.dtype, buffer=block, offset=offset)
    copy[...] = array
    return copy

if sys.argv[1] == "touch":
    fence = fenced(np.zeros(4, np.float32), True)
    ctypes.string_at(fence.ctypes.data, 17)
spec = ConvSpec.from_json(sys.argv[1])
for at_end in (True, False):
    operands = integer_operands(spec, np.random.default_rng(0))
    main = [fenced(array, at_end) for array in operands.main]
    rest = {name: fenced(array, at_end) for name, array in operands.epilogue.items()}
    out = fenced(np.zeros(spec.result_shape, DTYPES[DTYPES[spec.dtype].result].numpy), at_end)
    for strategy in accurate_strategies(spec.replace(accuracy="strict"), Machine.host()):
        op = convgen.compile(spec, strategy.name, 1)
        expected = reference(spec, *operands.main, **operands.epilogue).astype(out.dtype)
        out[...] = 77
        assert op(*main, **rest, out=out) is out
        found = compare_exact(out, expected)
        assert found.ok, (strategy.name, at_end, found.reason)
    for strategy in applicable(spec, Machine.host()):
        op = convgen.compile(spec, strategy.name, 1)
        if not (algorithms := algorithms_of_plan(op.plan)):
            continue
        operands = integer_operands(spec, np.random.default_rng(0), algorithms)
        main = [fenced(array, at_end) for array in operands.main]
        rest = {name: fenced(array, at_end) for name, array in operands.epilogue.items()}
        out[...] = 77
        assert op(*main, **rest, out=out) is out
        found = expect_integers(spec, operands, algorithms).check(out)
        assert found.ok, (strategy.name, at_end, found.reason)
print("done")
'''

PROBLEMS: dict[str, dict[str, Any]] = {
    "channels first": dict(),
    "channels last": dict(layout="channels_last"),
    "in place": dict(layout="channels_last", padding=0, spatial_size=(5, 9)),
    "pointwise": dict(layout="channels_last", padding=0, kernel_size=1, spatial_size=(3, 7)),
    "pointwise channels first": dict(padding=0, kernel_size=1, spatial_size=(3, 7), out_channels=5),
    "epilogue": dict(layout="channels_last", epilogue=("bias", "scale", "residual", "relu")),
    "epilogue channels first": dict(epilogue=("bias", "residual", "relu"), stride=2),
    "depthwise": dict(groups=17, in_channels=17, layout="channels_last", padding=0, spatial_size=(5, 9)),
    "depthwise padded": dict(
        groups=17, in_channels=17, layout="channels_last", spatial_size=(5, 9), padding=((2, 1), (1, 3))
    ),
    "depthwise circular": dict(groups=17, in_channels=17, layout="channels_last", padding_mode="circular", stride=2),
    "transposed": dict(transposed=True, stride=2, layout="channels_last"),
    "circular": dict(padding_mode="circular", layout="channels_last"),
    "data gradient": dict(direction="backward_data", layout="channels_last", in_channels=17, out_channels=3, padding=0),
    "weight gradient": dict(direction="backward_weights", layout="channels_last", padding=0),
    "weight gradient channels first": dict(direction="backward_weights", stride=2),
    "int8": dict(dtype="int8", layout="channels_last", padding=0),
    "bfloat16": dict(dtype="bfloat16", layout="channels_last", padding=0),
}
QUICK = ("in place", "pointwise", "epilogue", "depthwise", "depthwise padded", "int8")


def run(argument: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, argument],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[1],
        check=False,
    )


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")


def test_the_fence_holds() -> None:
    assert run("touch").returncode < 0


@pytest.mark.parametrize(
    "problem",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PROBLEMS],
)
def test_nothing_outside_the_arrays_is_touched(problem: str) -> None:
    base: dict[str, Any] = dict(batch=1, in_channels=3, out_channels=17, spatial_size=(4, 5), kernel_size=3, padding=1)
    spec = ConvSpec(**{**base, **PROBLEMS[problem]})
    child = run(spec.to_json())
    assert (child.returncode, child.stdout.strip()) == (0, "done"), child.stderr[-2000:]
