"""The samples in ``generated/`` are what convgen emits, are short, and run with numpy and numba alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convgen.driver import algorithms_of_plan, given_plan, lower, source_of
from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.oracle import reference
from convgen.planning import emit_source
from convgen.spec import ConvSpec
from convgen.transforms.split import Algorithms
from convgen.verify import expect_integers, integer_operands
from tests.samples import (
    CUDA_GENERATED,
    CUDA_SAMPLES,
    GENERATED,
    MACHINE,
    MACHINES,
    SAMPLES,
    cuda_sample,
    sample_plan,
    sample_source,
)

# To turn squares of vectors, which channels_first needs, takes 40 lines.
MAX_LINES_CUDA = 400
MAX_LINES_3X3 = {"channels_last": 150, "channels_first": 175}

_RUN = """
import importlib.util, sys
import numpy as np
spec = importlib.util.spec_from_file_location("kernel", sys.argv[1])
kernel = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernel)
operands = np.load(sys.argv[2])
np.save(sys.argv[3], kernel.run(*(operands[name] for name in operands.files)))
assert not [name for name in sys.modules if name.split(".")[0] == "convgen"]
"""


def run_alone(kernel: Path, spec: ConvSpec, folder: Path, algorithms: Algorithms = ()) -> np.ndarray:
    """The result of an emitted file in a process of its own, outside the checkout."""
    operands = integer_operands(spec, np.random.default_rng(0), algorithms)
    given = dict(zip(spec.operand_shapes, (*operands.main, *operands.epilogue.values()), strict=True))
    # NumPy's files know no bfloat16: kernels take its bits.
    arrays = {name: array.view(np.uint16) if array.dtype.name == "bfloat16" else array for name, array in given.items()}
    np.savez(folder / "operands.npz", allow_pickle=False, **arrays)
    command = [sys.executable, "-c", _RUN, str(kernel), "operands.npz", "result.npy"]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    result: np.ndarray = np.load(folder / "result.npy")
    if spec.result_dtype == "bfloat16":
        result = result.view(DTYPES["bfloat16"].numpy)
    comparison = expect_integers(spec, operands, algorithms).check(result)
    assert comparison.ok, comparison.reason
    return result


def test_there_is_a_file_for_each_sample_and_no_other() -> None:
    assert {path.stem for path in GENERATED.glob("*.py")} == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_rendered_again_byte_for_byte(name: str) -> None:
    assert (GENERATED / f"{name}.py").read_bytes() == sample_source(name).encode()


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_run_with_numpy_and_numba_alone(name: str, tmp_path: Path) -> None:
    machine, spec = MACHINES.get(name, MACHINE), SAMPLES[name][1]
    missing = [item for item in machine.features.split(",") if item and not Machine.host().has(item[1:])]
    if missing:
        pytest.skip(f"this processor has no {', '.join(missing)}")
    algorithms = algorithms_of_plan(sample_plan(name))
    assert run_alone(GENERATED / f"{name}.py", spec, tmp_path, algorithms).shape == spec.result_shape


def test_there_is_a_file_for_each_sample_for_gpus_and_no_other() -> None:
    assert {path.stem for path in CUDA_GENERATED.glob("*")} == set(CUDA_SAMPLES)


@pytest.mark.parametrize("name", CUDA_SAMPLES)
def test_samples_for_gpus_are_rendered_again_byte_for_byte(name: str) -> None:
    assert (CUDA_GENERATED / f"{name}.py").read_bytes() == cuda_sample(name).source.encode()


@pytest.mark.parametrize("name", CUDA_SAMPLES)
def test_samples_for_gpus_are_loaded_with_numba_cuda_alone(name: str) -> None:
    """Python that needs neither convgen nor a device until ``run`` is called; numba-cuda brings the driver's bindings."""
    source = (CUDA_GENERATED / f"{name}.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < MAX_LINES_CUDA
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports}
    assert {module.split(".")[0] for module in modules} - {"cuda"} == {"inspect", "llvmlite", "numba", "numpy"}
    run = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run")
    assert [argument.arg for argument in run.args.args] == list(CUDA_SAMPLES[name][1].operand_shapes)
    # With a decorator that compiles nothing, all that stands outside of functions can be run.
    space: dict[str, object] = {}
    launched = re.sub(r"@cuda\.jit\(.*\)\n", "", source)
    exec(compile(launched, name, "exec"), space)
    assert callable(space["run"])


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_source_of_a_3x3_layer_is_short(layout: str, stride: int) -> None:
    spec = SAMPLES["forward_3x3"][1].replace(layout=layout, stride=stride, spatial_size=(112, 112), epilogue=())
    plan = given_plan(spec, "direct", None, MACHINE)
    assert len(source_of(plan, lower(plan, MACHINE)).splitlines()) < MAX_LINES_3X3[layout]


def test_emit_writes_a_file_that_runs_alone(tmp_path: Path) -> None:
    spec = ConvSpec(batch=2, in_channels=3, out_channels=5, spatial_size=(6, 7), kernel_size=3, padding=1)
    kernel = emit_source(spec, tmp_path / "out")
    run_alone(kernel, spec, tmp_path)


def test_an_emitted_bfloat16_kernel_takes_bfloat16_arrays(tmp_path: Path) -> None:
    spec = ConvSpec(batch=1, in_channels=3, out_channels=4, spatial_size=(5, 5), kernel_size=3, dtype="bfloat16")
    kernel = emit_source(spec, tmp_path)
    operands = integer_operands(spec, np.random.default_rng(0))
    arrays = {name: array.view(np.uint16) for name, array in zip(spec.operand_shapes, operands.main, strict=True)}
    np.savez(tmp_path / "operands.npz", allow_pickle=False, **arrays)
    command = [sys.executable, "-c", _RUN, str(kernel), "operands.npz", "result.npy"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    result = np.load(tmp_path / "result.npy").view(operands.main[0].dtype)
    np.testing.assert_array_equal(result.astype(np.float64), reference(spec, *operands.main))
