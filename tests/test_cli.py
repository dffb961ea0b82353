"""The command line: what it prints and writes, its exit status, and its errors."""

from __future__ import annotations

import ast
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convgen import doctor
from convgen.cli import main, tune_command, verify_command
from convgen.cli.problems import read_source, read_spec
from convgen.cli.report import PLAIN_WIDTH, progress
from convgen.cuda.kernels import CudaConv
from convgen.descriptor import parse_descriptor
from convgen.operator import CompiledConv
from convgen.oracle import reference
from convgen.planning import plan_for
from convgen.strategies.cuda.registry import GPU_STRATEGIES
from convgen.suites import suite, suite_names
from convgen.tuner.laboratory import KernelLab
from convgen.verify import integer_operands
from tests.onnx_models import CONV, IMAGE, constants, node, save

ROOT = Path(__file__).resolve().parent.parent
TINY = "mb1_ic2ih5oc3oh5kh3ph1"
Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A model of three convolutions, two of them equal, with a batch of 1."""
    nodes = [CONV, node("Conv y w2 -> z"), node("Conv z w2 -> t")]
    weights = {"w": constants()["w"], "w2": np.ones((4, 4, 1, 1), np.float32)}
    return str(save(tmp_path / "three.onnx", nodes, IMAGE, weights, ["t"]))


def run(capsys: Output, *argv: str, status: int = 0) -> str:
    """Runs a command that must end with ``status`` and say nothing on stderr; returns stdout."""
    capsys.readouterr()
    assert main(argv) == status
    captured = capsys.readouterr()
    assert captured.err == ""
    assert not re.search(r"[^\n\x20-\x7e]", captured.out), "control characters"
    return captured.out


def run_raw(capsys: Output, *argv: str) -> str:
    """Runs a command whose output is a program's text, which may hold tabs."""
    assert main(argv) == 0
    return capsys.readouterr().out


def fail(capsys: Output, *argv: str) -> str:
    """Runs a command that must be refused; returns the one line it says on stderr."""
    capsys.readouterr()
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("convgen: error: ")
    return captured.err


def no_measurement(*arguments: object, **options: object) -> None:
    raise AssertionError("measured again")


def chosen(descriptor: str) -> str:
    """The strategy of what was tuned for a problem: without a budget that of the untuned choice."""
    return plan_for(parse_descriptor(descriptor), threads=1).strategy


def test_tune_measures_once_and_writes_once(capsys: Output, monkeypatch: pytest.MonkeyPatch, cache_dir: Path) -> None:
    first = run(capsys, "tune", TINY, "--budget", "0", "--threads", "1", "--force")
    assert "mb1_ic2i5x5_oc3o5x5_k3x3_p1x1" in first
    assert chosen(TINY) in first
    assert "1 measured, 0 found" in first
    assert f"convgen-out/{TINY} (1 written, 0 unchanged)" in first
    assert str(cache_dir) in first
    (file,) = Path("convgen-out", TINY).iterdir()
    os.utime(file, (1, 1))

    monkeypatch.setattr(KernelLab, "round", no_measurement)
    second = run(capsys, "tune", TINY, "--budget", "0", "--threads", "1")
    assert "0 measured, 1 found" in second
    assert "(0 written, 1 unchanged)" in second
    assert file.stat().st_mtime == 1
    file.write_text("something else")
    assert "(1 written, 0 unchanged)" in run(capsys, "tune", TINY, "--threads", "1")


def test_tune_counts_the_layers_of_a_model(capsys: Output, model: str) -> None:
    out = run(capsys, "tune", model, "--budget", "0", "-o", "here", "--layout", "channels_first", "--batch", "2")
    assert "three: 3 layers, 2 distinct problems" in out
    table = out[: out.index("three: ")].splitlines()
    assert max(map(len, table)) <= PLAIN_WIDTH
    rows = [line.split() for line in table if line.startswith("mb2_")]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("mb2_ic3i5x6_oc4o5x6_k3x3_p1x1", "1", "measured"),
        ("mb2_ic4i5x6_oc4o5x6_k1x1", "2", "measured"),
    ]
    assert len(list(Path("here").iterdir())) == 2


def test_tune_without_emit_writes_nothing(capsys: Output) -> None:
    assert "sources   not written" in run(capsys, "tune", TINY, "--budget", "0", "--threads", "1", "--no-emit")
    assert list(Path().iterdir()) == []


def test_tune_keeps_to_a_workspace_limit(capsys: Output) -> None:
    out = run(capsys, "tune", TINY, "--budget", "0", "--threads", "1", "--no-emit", "--workspace-limit", "0")
    assert "reference" in out
    message = fail(capsys, "tune", TINY, "--no-emit", "--workspace-limit", "-1")
    assert "workspace_limit=-1" in message


def test_tune_looks_at_the_folder_first(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_command, "tune", no_measurement)
    assert "output='/dev/null/out' cannot be written" in fail(capsys, "tune", TINY, "-o", "/dev/null/out")


@pytest.mark.parametrize("strategy", ["auto", "reference"])
def test_emit_writes_a_file_that_runs(capsys: Output, strategy: str) -> None:
    path = Path(run(capsys, "emit", TINY, "-o", "out", "--strategy", strategy).strip())
    assert path.parent == Path("out")
    spec = parse_descriptor(TINY)
    operands = integer_operands(spec, np.random.default_rng(0)).main
    assert np.array_equal(runpy.run_path(str(path))["run"](*operands), reference(spec, *operands))


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("ir", "program conv"),
        ("source", "strategy  reference"),
        ("llvm", "target triple"),
        ("asm", ".globl"),
    ],
)
def test_show_prints_a_stage(capsys: Output, stage: str, expected: str) -> None:
    assert expected in run_raw(capsys, "show", TINY, f"--{stage}", "--strategy", "reference")


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("ir", ["thread for thread in", "parallel for block"]),
        ("source", ["for GPUs of compute capability 8.0", "@cuda.jit(", "strategy  reference"]),
        ("ptx", [".target sm_80", ".visible .entry conv("]),
        ("sass", ["// conv: ", " registers, 0 bytes shared, 0 bytes spilled, occupancy ", "EXIT"]),
    ],
)
def test_show_prints_a_stage_for_gpus(capsys: Output, stage: str, expected: list[str]) -> None:
    options = ("--target", "cuda", "--capability", "8.0", "--strategy", "reference")
    text = run_raw(capsys, "show", TINY, f"--{stage}", *options)
    for part in expected:
        assert part in text


def test_ptx_and_machine_code_are_of_gpus(capsys: Output) -> None:
    """--target cuda goes without saying."""
    assert ".target sm_90" in run_raw(capsys, "show", TINY, "--ptx", "--strategy", "reference")
    spec = run(capsys, "show", TINY, "--spec", "--target", "cuda")
    assert spec == run(capsys, "show", TINY, "--spec")


def test_emit_writes_a_file_for_gpus(capsys: Output) -> None:
    options = ("--target", "cuda", "--capability", "8.6", "--strategy", "direct", "--config", "pixels=2 lanes=1")
    path = Path(run(capsys, "emit", TINY, "-o", "out", *options).strip())
    assert path.parent == Path("out")
    assert path.stem.endswith("_cuda")
    source = path.read_text()
    banner = ast.get_docstring(ast.parse(source)) or ""
    title, *facts = banner.splitlines()
    assert title == "convgen: mb1_ic2oc3_ih5oh5kh3ph1"
    assert "for GPUs of compute capability 8.6" in facts
    assert "strategy  direct, pixels=2 lanes=1" in facts
    # The command in the banner writes the same file.
    again = shlex.split(next(fact for fact in facts if fact.startswith("again")))
    assert again[1] == "convgen"
    run(capsys, *again[2:-1], "again")
    (other,) = Path("again").iterdir()
    assert (other.name, other.read_text()) == (path.name, source)


@pytest.mark.slow
def test_verify_for_gpus(capsys: Output) -> None:
    out = run(capsys, "verify", TINY, "--target", "cuda", "--capability", "8.0", "--seed", "2")
    rows = {line.split()[1]: line.split()[2:] for line in out.splitlines() if line.startswith("mb1_")}
    assert list(rows) == [strategy.name for strategy in GPU_STRATEGIES]
    assert (rows["implicit_gemm"][:3], rows["implicit_gemm"][-1]) == (["pass"] * 3, "pass")
    # It has no weight gradient, and so no adjoint identity.
    assert (rows["direct"][:3], rows["direct"][-1]) == (["pass", "pass", "-"], "pass")
    assert rows["depthwise"][:3] == ["-"] * 3
    assert ", 0 failed" in out


def test_verify_finds_one_wrong_element_for_gpus(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(op: CudaConv, *main_operands: np.ndarray, **options: Any) -> np.ndarray:
        result = right(op, *main_operands, **options)
        result.flat[7] += 1
        return result

    right = CudaConv.interpret
    monkeypatch.setattr(CudaConv, "interpret", wrong)
    out = run(capsys, "verify", TINY, "--strategy", "reference", "--target", "cuda", status=1)
    assert "1 verified, 0 passed, 1 failed" in out
    assert "gate A: 1 of 75 elements are wrong" in out


def test_show_spec_is_a_problem_file(capsys: Output, tmp_path: Path) -> None:
    text = f"{TINY} layout=channels_last epilogue=bias+relu"
    file = tmp_path / "problem.json"
    file.write_text(run(capsys, "show", text, "--spec"))
    assert read_spec(str(file)) == parse_descriptor(text)
    assert read_source(str(file), batch=3, layout=None, dtype="float64").problems[0].spec == parse_descriptor(
        text
    ).replace(batch=3, dtype="float64")


def test_verify_passes(capsys: Output) -> None:
    out = run(capsys, "verify", TINY, "--seed", "3")
    rows = {line.split()[1]: line.split()[2:] for line in out.splitlines() if line.startswith("mb1_")}
    for name in ("direct", "reference"):
        assert (rows[name][:3], rows[name][-1]) == (["pass"] * 3, "pass")
    assert rows["pointwise"][:3] == ["-"] * 3
    assert ", 0 failed" in out


def test_verify_has_no_gate_c_for_an_epilogue(capsys: Output) -> None:
    out = run(capsys, "verify", f"{TINY} epilogue=relu", "--strategy", "reference")
    assert re.search(r"reference +pass +pass +- ", out)


def test_verify_finds_one_wrong_element(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(op: CompiledConv, *main_operands: np.ndarray, **epilogue: np.ndarray) -> np.ndarray:
        result = right(op, *main_operands, **epilogue)
        result.flat[7] += 1
        return result

    right = CompiledConv.__call__
    monkeypatch.setattr(CompiledConv, "__call__", wrong)
    out = run(capsys, "verify", TINY, "--strategy", "reference", status=1)
    assert "1 verified, 0 passed, 1 failed" in out
    assert "gate A: 1 of 75 elements are wrong" in out


def test_verify_reduces_a_model_and_says_so(capsys: Output, tmp_path: Path) -> None:
    weights = {"w": constants()["w"]}
    path = save(tmp_path / "wide.onnx", [CONV], {"x": (1, 3, 5, 40)}, weights, ["y"])
    assert "reduced to 9" in (out := run(capsys, "verify", str(path), "--strategy", "reference"))
    assert "mb1_ic3i5x9_" in out
    full = run(capsys, "verify", str(path), "--strategy", "reference", "--full")
    assert "mb1_ic3i5x40_" in full
    assert "reduced" not in full


@pytest.mark.parametrize("name", suite_names())
def test_a_suite_is_a_source(name: str) -> None:
    source = read_source(name, batch=2, layout=None, dtype="float64")
    layers = suite(name, batch=2, layout="channels_last", dtype="float64")
    assert source.name == name
    assert [(problem.spec, problem.count) for problem in source.problems] == [
        (each.spec, each.count) for each in layers
    ]
    for problem in source.problems:
        small = verify_command._reduced(problem.spec)
        axes = zip(problem.spec.kernel_size, problem.spec.dilation, strict=True)
        reach = [dilation * (kernel - 1) + 1 for kernel, dilation in axes]
        assert max(small.spatial_size) <= max(verify_command.REDUCED_SIZE, *reach)
        assert small.replace(spatial_size=problem.spec.spatial_size) == problem.spec


def test_db_list(capsys: Output, cache_dir: Path, tmp_path: Path) -> None:
    run(capsys, "tune", TINY, "--budget", "0", "--threads", "1", "--no-emit")
    out = run(capsys, "db", "list")
    assert re.search(rf"^mb1_ic2i5x5_oc3o5x5_k3x3_p1x1 +1 {chosen(TINY)}.* this *$", out, re.MULTILINE)
    assert run(capsys, "db", "list", "--path", str(cache_dir / "tuning.sqlite")).startswith("problem")
    other = tmp_path / "notes.txt"
    other.write_text("not a database, and not to be renamed")
    assert "is not an SQLite database" in fail(capsys, "db", "list", "--path", str(other))
    assert other.exists()


def test_doctor_finds_everything(capsys: Output) -> None:
    out = run(capsys, "doctor")
    topics = [line.split()[:2] for line in out.splitlines() if not line.startswith(" ")]
    for topic in (
        "versions",
        "machine",
        "features",
        "threads",
        "choices",
        "CUDA",
        "templates",
        "cache",
        "database",
        "self-test",
    ):
        assert [topic, "ok"] in topics
    assert "convgen works on this machine" in out


def test_doctor_reports_what_fails(capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(doctor, "parallel_entry", lambda: None)
    out = run(capsys, "doctor", status=1)
    assert re.search(r"^cache +failed +OptionError:", out, re.MULTILINE)
    assert re.search(r"^OpenMP +warning ", out, re.MULTILINE)
    assert re.search(r"^templates +ok ", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ([], "required: COMMAND"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["tune", "resnet"], "source='resnet' is not known; allowed: an ONNX file, a suite (resnet50, "),
        (["tune", "missing.onnx"], "model 'missing.onnx' cannot be read"),
        (["tune", "mb1_zz"], "descriptor 'mb1_zz' cannot be read from 'zz' on"),
        (["tune", TINY, "--budget", "-1"], "argument --budget: '-1' is not allowed"),
        (["tune", TINY, "--budget", "abc"], "argument --budget: 'abc' is not allowed; allowed: seconds, 0 or more"),
        (["tune", TINY, "--budget", "nan"], "argument --budget: 'nan' is not allowed"),
        (["tune", TINY, "--threads", "0"], "threads=0 is not valid"),
        (["tune", TINY, "--batch", "-1"], "batch=-1 is too small"),
        (["tune", "vgg16", "--layout", "nchw"], "layout='nchw' is unknown"),
        (["tune", TINY, "--dtype", "float8"], "dtype='float8' is not supported"),
        (["emit", TINY], "required: -o/--output"),
        (["emit", "resnet50", "-o", "out"], "spec='resnet50' is not known; allowed: a descriptor"),
        (["emit", "missing.json", "-o", "out"], "spec='missing.json' cannot be read: No such file"),
        (["emit", TINY, "-o", "/dev/null/out"], "output='/dev/null/out' cannot be written: Not a directory"),
        (["show", TINY], "one of the arguments --spec --ir --source"),
        (["show", TINY, "--ir", "--asm"], "not allowed with argument"),
        (["show", TINY, "--ptx", "--capability", "6.1"], "capability='6.1' is unknown; allowed: 7.5, "),
        (
            ["emit", TINY, "-o", "o", "--target", "cuda", "--capability", "9"],
            "capability='9' is unknown; allowed: 7.5, ",
        ),
        (["verify", TINY, "--target", "cuda", "--capability", "x"], "capability='x' is unknown"),
        (["show", TINY, "--ir", "--target", "rocm"], "invalid choice: 'rocm'"),
        (["show", TINY, "--llvm", "--target", "cuda"], "--llvm is of the target cpu; allowed for cuda: --spec, --ir"),
        (["show", TINY, "--asm", "--target", "cuda"], "--asm is of the target cpu"),
        (["show", TINY, "--ptx", "--strategy", "depthwise"], "strategy='depthwise' does not apply: groups=1"),
        (["show", TINY, "--ptx", "--strategy", "magic"], "strategy='magic' is unknown for GPUs; allowed: auto, "),
        (["verify", TINY, "--target", "cuda", "--strategy", "magic"], "strategy='magic' is unknown for GPUs; allowed"),
        (
            ["show", TINY, "--ptx", "--strategy", "direct", "--config", "pixels=3 lanes=1"],
            "config='pixels=3 lanes=1' is not one of direct's; allowed: ",
        ),
        (["show", TINY, "--ptx", "--config", "pixels=1 lanes=1"], "needs a strategy of its own, not strategy='auto'"),
        (["show", TINY, "--ir", "--strategy", "magic"], "strategy='magic' is unknown; allowed: auto, "),
        (["verify", TINY, "--strategy", "magic"], "strategy='magic' is unknown; allowed: auto, "),
        (["verify", TINY, "--seed", "-1"], "argument --seed: '-1' is not allowed"),
        (["db", "list", "--path", "missing"], "path='missing' cannot be read"),
        (["db"], "required: ACTION"),
        (["db", "pin", TINY], "required: --strategy"),
        (["db", "export", "--format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_bad_requests_are_one_line(capsys: Output, argv: list[str], part: str) -> None:
    assert part in fail(capsys, *argv)


@pytest.mark.parametrize("content", [b"", b"no model", b"\xff\xfe\x00"])
def test_a_file_that_is_no_problem(capsys: Output, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "resnet50"
    file.write_bytes(content)
    assert f"model {str(file)!r} " in fail(capsys, "tune", str(file))
    file.rename(tmp_path / "problem.json")
    assert "JSON" in (line := fail(capsys, "show", "problem.json", "--spec")) or "not UTF-8" in line


def test_the_batch_of_a_model_is_replaced(model: str) -> None:
    assert {problem.spec.batch for problem in read_source(model, batch=5, layout=None, dtype=None).problems} == {5}


def test_debug_shows_the_traceback(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVGEN_DEBUG", "1")
    assert main(["show", "mb1_zz", "--spec"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("convgen: error: descriptor 'mb1_zz'")


def test_interrupted(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify_command, "gate_a", interrupt)
    assert main(["verify", TINY, "--strategy", "reference"]) == 130
    assert capsys.readouterr().err == "convgen: interrupted\n"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, is_drawn in ((_Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress("tuning [red]", 2) as advance:
            advance("one")
        assert ("tuning [red]" in stream.getvalue(), "1/2" in stream.getvalue()) == (is_drawn, is_drawn)


def test_help_is_quick() -> None:
    program = (
        "import sys\nfrom convgen.__main__ import main\ntry:\n    main(['--help'])\nexcept SystemExit as end:\n"
        "    heavy = {'numba', 'llvmlite', 'numpy', 'rich', 'onnx'} & set(sys.modules)\n    print(end.code, heavy)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, check=True)
    assert done.stdout.startswith("usage: convgen")
    assert done.stdout.splitlines()[-1] == "0 set()"


def test_a_reader_that_stops_early_is_no_error() -> None:
    command = f"{sys.executable} -m convgen show {TINY} --spec | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
