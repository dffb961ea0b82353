"""From the text of a stage to PTX and machine code, without a GPU; the cache; what is missing where it is not installed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convgen.cuda
from convgen.cuda.kernels import CudaConv
from convgen.errors import (
    CacheWarning,
    CompileError,
    DTypeError,
    MissingDependencyError,
    OperandError,
    OptionError,
    ShapeError,
)
from convgen.gpu import GPUS, gpu_of
from convgen.spec import ConvSpec
from convgen.strategies.cuda.registry import gpu_strategy_named
from convgen.targets.cuda import build
from convgen.targets.cuda.build import disassembly, stage_cubin, stage_ptx, unit_source
from convgen.targets.cuda.interp import parse
from convgen.tuning.space import Config
from convgen.verify import integer_operands

ROOT = Path(__file__).resolve().parents[3]
SMALL = ConvSpec(batch=1, in_channels=4, out_channels=8, spatial_size=(4, 4), kernel_size=3, padding=1)
NAMES = [gpu.name for gpu in GPUS]


def compiled(
    capability: str = "8.0", strategy: str = "implicit_gemm", config: Config | None = None, **changes: Any
) -> CudaConv:
    spec = SMALL.replace(layout="channels_last", **changes)
    return convgen.cuda.compile(spec, strategy, capability=capability, config=config)


def without_names(ptx: str) -> str:
    """PTX without the numbers that Numba gives to functions as it compiles them."""
    return re.sub(r"_ZN08NumbaEnv\w+", "", ptx)


@pytest.mark.parametrize("capability", NAMES)
def test_ptx_and_machine_code_for_every_capability(capability: str) -> None:
    op = compiled(capability, dtype="float16")
    digits = capability.replace(".", "")
    assert f".target sm_{digits}" in op.ptx
    for stage, cubin in zip(op._lowered.stages, op.cubins, strict=True):
        ptx = stage_ptx(stage, op.gpu)
        module = parse(ptx)
        assert module.kernels == (stage.name,)
        assert len(module.functions[stage.name].parameters) == len(stage.buffers) + len(stage.sizes)
        assert module.functions[stage.name].max_threads == stage.threads
        assert cubin.code.startswith(b"\x7fELF")
        resources = cubin.resources
        assert 0 < resources.registers <= op.gpu.registers_per_thread
        assert (resources.spilled_bytes, resources.stack_bytes) == (0, 0)
        assert resources.shared_bytes == stage.shared_bytes
        assert 0 < resources.occupancy <= 1
    assert list(op.resources) == [stage.name for stage in op._lowered.stages]
    assert (gpu_of(capability).capability >= (8, 0)) == ("cp.async" in op.ptx)


def test_matrix_units_are_used_where_there_are_some() -> None:
    ptx = {name: compiled(name, dtype="bfloat16").ptx for name in ("7.5", "9.0")}
    assert "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" in ptx["9.0"]
    assert "ldmatrix.sync.aligned" in ptx["9.0"]
    assert "mma.sync" not in ptx["7.5"]


def test_machine_code_as_text() -> None:
    op = compiled(dtype="bfloat16")
    text = op.sass()
    for instruction in ("HMMA.16816", "LDGSTS", "LDSM", "EXIT"):
        assert instruction in text


def test_every_access_of_16_bytes_is_one_instruction() -> None:
    space = gpu_strategy_named("direct").space(SMALL.replace(layout="channels_last"), gpu_of("8.0"))
    op = compiled(strategy="direct", config=next(config for config in space if config["lanes"] == 4))
    for access in (r"ld\.global(\.nc)?\.v4", r"st\.global\.v4"):
        assert re.search(access, op.ptx)


def test_sources_are_python() -> None:
    op = compiled(dtype="bfloat16")
    for stage in op._lowered.stages:
        unit = ast.parse(unit_source(stage))
        functions = [node.name for node in unit.body if isinstance(node, ast.FunctionDef)]
        assert functions[-1] == stage.name
    whole = ast.parse(op.source)
    assert (ast.get_docstring(whole) or "").startswith("convgen: mb1_")
    names = [node.name for node in whole.body if isinstance(node, ast.FunctionDef)]
    assert names[-1] == "run"
    assert [stage.name for stage in op._lowered.stages] == names[-2 - len(op._lowered.stages) : -2]
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(whole)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {name.split(".")[0] for name in imported if name} == {"inspect", "numpy", "llvmlite", "numba"}


# ---- the cache


def test_a_second_call_compiles_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not in the same process, and not in the next one, which has but the disk."""
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path))
    op = compiled(strategy="reference")
    first = op.ptx
    files = {path: path.read_bytes() for path in (tmp_path / "kernels").iterdir()}
    assert {path.suffix for path in files} == {".py", ".obj"}
    assert len(files) == 2 * len(op._lowered.stages)

    def nothing(*arguments: object) -> str:
        raise AssertionError("compiled again")

    monkeypatch.setattr(build, "_compiled", nothing)
    assert compiled(strategy="reference").ptx == first
    build._cache.cache_clear()
    assert compiled(strategy="reference").ptx == first
    assert {path: path.read_bytes() for path in (tmp_path / "kernels").iterdir()} == files


def test_what_decides_a_kernel_decides_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    op = compiled(strategy="reference")
    (stage, *_), gpu = op._lowered.stages, op.gpu
    key = build._key(stage, gpu)
    assert build._key(stage, gpu) == key
    others = (
        build._key(stage, gpu_of("9.0")),
        build._key(replace(stage, threads=stage.threads // 2), gpu),
        build._key(replace(stage, body=(*stage.body, "    pass")), gpu),
        build._key(replace(stage, sizes=(*stage.sizes, "M")), gpu),
        build._key(replace(stage, operations=stage.operations[1:]), gpu),
    )
    monkeypatch.setattr(build, "_toolchain", lambda: ("another compiler",))
    assert len({key, *others, build._key(stage, gpu)}) == 7


def test_a_damaged_entry_is_compiled_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path))
    first = compiled(strategy="reference").ptx
    for path in (tmp_path / "kernels").glob("*.obj"):
        path.write_bytes(path.read_bytes()[:-5])
    build._cache.cache_clear()
    with pytest.warns(CacheWarning, match="damaged"):
        again = compiled(strategy="reference").ptx
    assert without_names(again) == without_names(first)


# ---- errors


def test_text_that_is_no_kernel_is_a_compile_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path))
    op = compiled(strategy="reference")
    stage = op._lowered.stages[-1]
    for line in ("    this is not Python", "    unknown(thread)"):
        with pytest.raises(CompileError, match=rf"^numba-cuda refuses stage {stage.name}: "):
            stage_ptx(replace(stage, body=(*stage.body, line)), op.gpu)
    assert not list(tmp_path.rglob("*.obj"))


def test_ptx_that_is_none_is_a_compile_error(monkeypatch: pytest.MonkeyPatch) -> None:
    op = compiled(strategy="reference")
    stage = op._lowered.stages[-1]
    ptx = stage_ptx(stage, op.gpu)
    monkeypatch.setattr(build, "stage_ptx", lambda stage, gpu: ptx.replace("ret;", "return;"))
    with pytest.raises(CompileError, match=rf"^ptxas refuses stage {stage.name}: "):
        stage_cubin(stage, op.gpu)


def test_code_that_is_none_is_a_compile_error() -> None:
    op = compiled(strategy="reference")
    with pytest.raises(CompileError, match=r"^nvdisasm fails: "):
        disassembly(replace(op.cubins[0], code=b"no machine code"))


def test_unknown_capability() -> None:
    with pytest.raises(OptionError, match=r"capability='6.0' is unknown; allowed: 7.5, 8.0"):
        convgen.cuda.compile(SMALL, capability="6.0")


def test_operands_of_the_interpreter_are_checked_and_not_changed() -> None:
    op = compiled(strategy="reference", epilogue=("bias",))
    operands = integer_operands(op.spec, np.random.default_rng(0))
    x, w = operands.main
    bias = operands.epilogue["bias"]
    kept = x.copy(), w.copy(), bias.copy()
    op.interpret(x, w, bias=bias)
    for array, before in zip((x, w, bias), kept, strict=True):
        np.testing.assert_array_equal(array, before)
    with pytest.raises(OperandError, match="operands are input, weight; allowed: input, weight, bias"):
        op.interpret(x, w)
    with pytest.raises(OperandError, match="allowed: input, weight, bias"):
        op.interpret(x, w, bias=bias, scale=bias)
    with pytest.raises(ShapeError, match="bias has shape"):
        op.interpret(x, w, bias=bias[1:])
    with pytest.raises(DTypeError, match="weight has dtype float64; allowed: float32"):
        op.interpret(x, w.astype(np.float64), bias=bias)
    # Any strides, read-only too.
    x.flags.writeable = False
    np.testing.assert_array_equal(op.interpret(x, w[::-1][::-1], bias=bias), op.interpret(*kept[:2], bias=kept[2]))


# ---- without the extra

_WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({blocked!r}):
            raise ImportError("no module " + name)

sys.meta_path.insert(0, Blocked())
import convgen.cuda
from convgen.errors import MissingDependencyError
from convgen.spec import ConvSpec

op = convgen.cuda.compile(ConvSpec(batch=1, in_channels=1, out_channels=1, spatial_size=4, kernel_size=3), "reference")
assert "cuda.jit" in op.source
try:
    op.{asked}
except MissingDependencyError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("blocked", "asked", "what"),
    [
        (("numba.cuda",), "ptx", "the CUDA target"),
        (("cuda",), "cubins", "machine code for GPUs"),
        (("cuda.pathfinder",), "sass()", "machine code for GPUs"),
    ],
)
def test_what_is_missing_is_named(blocked: tuple[str, ...], asked: str, what: str, tmp_path: Path) -> None:
    program = _WITHOUT.format(blocked=blocked, asked=asked)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": "", "CONVGEN_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == (
        f"{what} needs numba-cuda and the CUDA compiler, which are not installed: pip install 'convgen[cuda]'"
    )


def test_without_a_disassembler(monkeypatch: pytest.MonkeyPatch) -> None:
    import cuda.pathfinder

    op = compiled(strategy="reference")
    monkeypatch.setattr(cuda.pathfinder, "find_nvidia_binary_utility", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"^nvdisasm needs"):
        op.sass()


def test_nothing_but_compiling_for_gpus_imports_their_compiler(tmp_path: Path) -> None:
    """Neither importing convgen and convgen.cuda, nor commands for processors, nor the source for GPUs."""
    program = (
        "import sys, contextlib, io\n"
        "import convgen, convgen.cuda\n"
        "from convgen.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    for argv in (['show', 'mb1_ic2ih5oc3oh5kh3ph1', '--ir'], ['db', 'list'],\n"
        "                 ['verify', 'mb1_ic2ih5oc3oh5kh3ph1', '--strategy', 'reference'],\n"
        "                 ['show', 'mb1_ic2ih5oc3oh5kh3ph1', '--source', '--target', 'cuda']):\n"
        "        assert main(argv) == 0\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('numba_cuda', 'cuda')\n"
        "             or name.startswith('numba.cuda.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": "", "CONVGEN_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
