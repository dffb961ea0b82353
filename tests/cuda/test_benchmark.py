"""The benchmark for GPUs: whole on the driver without a device, cuDNN's part on PyTorch's CPU, what is said without either."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.gpu_peer import Cudnn
from benchmarks.gpu_report import Row, Table, markdown, roofline_seconds
from convgen.cuda.measure import Clock
from convgen.cuda.questions import Question, integer_question
from convgen.errors import MissingDependencyError, NotApplicable
from convgen.gpu import gpu_of
from convgen.spec import ConvSpec
from convgen.suites import Layer
from convgen.targets.cuda import driver
from convgen.tuning.measure import Sample
from tests.cuda.operators import operator

if TYPE_CHECKING:
    from tests.cuda.fake_driver import FakeDriver

Output = pytest.CaptureFixture[str]
SPEC = operator().spec.replace(batch=3)


@dataclass(frozen=True)
class _Small:
    title = "small"

    def layers(self) -> tuple[Layer, ...]:
        return (Layer("first", 2, SPEC),)


class _Peer:
    """In cuDNN's place: an agreeable library that does nothing."""

    def __init__(self, device: int) -> None:
        self.agreeable = True

    def version(self) -> str:
        return "nothing 1.0"

    def calls(self, spec: ConvSpec, main: tuple[np.ndarray, ...]) -> dict[str, Any]:
        return {"one": lambda: None, "other": lambda: None}

    def agrees(self, spec: ConvSpec, result: object, question: Question) -> bool:
        return self.agreeable


def test_everything_is_built_verified_timed_and_written(
    learning: FakeDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Output
) -> None:
    monkeypatch.setattr(gpu, "GROUPS", (_Small(),))
    monkeypatch.setattr(gpu, "Cudnn", _Peer)
    monkeypatch.setattr(gpu, "_TIMED", 0.0)
    assert gpu.main(["--processes", "1", "-o", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("gpu_Fake_GPU_*.json")
    (group,) = json.loads(path.read_text())["groups"]
    (row,) = group["rows"]
    assert (row["layer"], row["count"], row["flaw"]) == ("first", 2, "")
    # The fake events are all as far apart.
    assert row["seconds"] == pytest.approx(0.25e-3)
    assert row["ratio"] == group["geometric_mean"] == pytest.approx(1.0)
    text = path.with_suffix(".md").read_text()
    assert "driver13010" in text
    assert "against: nothing 1.0" in text
    assert "layouts: channels_last; cuDNN's also contiguous_format for float32" in text
    assert "geometric mean 1.00, worst 1.00 (first)" in capsys.readouterr().out


def test_the_peers_fastest_layout_counts(
    learning: FakeDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Output
) -> None:
    def measure(self: Clock, calls: Sequence[object], *, budget: float) -> tuple[Sample, ...]:
        return tuple(Sample(seconds, seconds, seconds, 1) for seconds in (1.0, 4.0, 2.0)[: len(calls)])

    monkeypatch.setattr(gpu, "GROUPS", (_Small(),))
    monkeypatch.setattr(gpu, "Cudnn", _Peer)
    monkeypatch.setattr(Clock, "measure", measure)
    assert gpu.main(["--processes", "1", "-o", str(tmp_path)]) == 0
    assert "geometric mean 2.00" in capsys.readouterr().out


def test_a_wrong_kernel_is_not_timed(
    learning: FakeDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Output
) -> None:
    monkeypatch.setattr(gpu, "GROUPS", (_Small(),))
    monkeypatch.setattr(Question, "flaw", lambda self, result: "the element (0,) is wrong")
    assert gpu.main(["--processes", "1", "-o", str(tmp_path)]) == 1
    assert "1 not right or not compiled" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.md")
    assert "wrong: the element (0,) is wrong" in path.read_text()


def test_no_time_is_said(learning: FakeDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Output) -> None:
    monkeypatch.setattr(gpu, "GROUPS", (_Small(),))
    assert gpu.main(["--processes", "1", "--budget", "0", "-o", str(tmp_path)]) == 0
    assert "1 not measured, because the time was over" in capsys.readouterr().out


def test_without_a_device_that_is_said(fake: FakeDriver, capsys: Output, tmp_path: Path) -> None:
    fake.devices = 0
    assert gpu.main(["-o", str(tmp_path)]) == 2
    assert (
        "nothing can be measured here: this machine has NVIDIA's driver but no CUDA device" in capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_compiles(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    pytest.importorskip("cuda.core")
    monkeypatch.setattr(gpu, "GROUPS", (_Small(),))
    assert gpu.main(["--dry-run", "--capability", "8.0", "--processes", "1"]) == 0
    assert "small: 1 problems compile for 8.0, no spills" in capsys.readouterr().out


def test_a_dry_run_says_what_does_not_lower(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    pytest.importorskip("cuda.core")

    def refused(plan: object, kind: object) -> None:
        raise NotApplicable("there is no schedule")

    monkeypatch.setattr(gpu, "GROUPS", (_Small(),))
    monkeypatch.setattr(gpu, "CudaConv", refused)
    assert gpu.main(["--dry-run", "--processes", "1"]) == 1
    assert "first: NotApplicable: there is no schedule" in capsys.readouterr().out


@pytest.mark.parametrize("at_once", [False, True])
def test_a_process_that_dies_is_said(monkeypatch: pytest.MonkeyPatch, capsys: Output, at_once: bool) -> None:
    pytest.importorskip("cuda.core")

    class Dying:
        def __init__(self, processes: int, context: object) -> None:
            pass

        def submit(self, *task: object) -> Future[str]:
            if at_once:
                raise BrokenProcessPool("a process died")
            lost: Future[str] = Future()
            lost.set_exception(BrokenProcessPool("a process died"))
            return lost

        def shutdown(self, *, cancel_futures: bool) -> None:
            pass

    monkeypatch.setattr(gpu, "GROUPS", (_Small(),))
    monkeypatch.setattr(gpu, "ProcessPoolExecutor", Dying)
    assert gpu.main(["--dry-run", "--processes", "2"]) == 1
    assert "first: BrokenProcessPool: a process died" in capsys.readouterr().out


def test_after_long_tuning_there_is_time_to_measure(
    learning: FakeDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [0.0]

    def tune(spec: ConvSpec, seconds: float, *, device: int) -> None:
        now[0] += 60.0

    monkeypatch.setattr(gpu, "GROUPS", (_Small(),))
    monkeypatch.setattr(gpu, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(gpu, "tune", tune)
    how = ["--processes", "1", "--no-peer", "--complete", "--tune", "60", "--budget", "100", "-o", str(tmp_path)]
    assert gpu.main(how) == 0
    assert now == [60.0]


def test_the_sanitizer_sees_convgens_kernels_alone(
    learning: FakeDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Output
) -> None:
    started: list[list[str]] = []

    def run(command: list[str], *, check: bool) -> SimpleNamespace:
        started.append(command)
        return SimpleNamespace(
            returncode=gpu.main([*command[command.index("benchmarks.gpu") + 1 :], "--processes", "1"])
        )

    def peer(device: int) -> None:
        raise AssertionError("there is a peer")

    monkeypatch.setattr(gpu, "GROUPS", (_Small(),))
    monkeypatch.setattr(gpu, "Cudnn", peer)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    assert gpu.main(["--sanitize", "-o", str(tmp_path)]) == 0
    assert [command[2] for command in started] == ["memcheck", "racecheck", "synccheck", "initcheck"]
    said = capsys.readouterr()
    assert "initcheck: clean" in said.out
    assert "against: nothing, as asked" in said.out
    assert gpu.main(["--sanitize", "--budget", "0", "-o", str(tmp_path)]) == 1
    assert "small: nothing was measured" in capsys.readouterr().err


def test_the_groups_are_what_they_say() -> None:
    titles = [group.title for group in gpu.GROUPS]
    assert len(set(titles)) == len(titles)
    assert "resnet50 forward float32 strict, batch 256" in titles
    for group in gpu.GROUPS:
        layers = group.layers()
        assert layers
        assert {layer.spec.direction for layer in layers} == {group.direction}
        if group.depthwise:
            assert all(layer.spec.groups == layer.spec.in_channels for layer in layers)


@pytest.mark.parametrize("direction", ["forward", "backward_data", "backward_weights"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_peer_computes_the_same_problem(direction: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    # PyTorch's own tests, which may have run in this process, freeze the flags.
    monkeypatch.setitem(torch.backends.flags_frozen.__globals__, "__allow_nonbracketed_mutation_flag", True)
    peer = Cudnn(0)
    monkeypatch.setattr(peer, "_device", "cpu")
    spec = ConvSpec(
        batch=3, in_channels=4, out_channels=6, spatial_size=(7, 6), kernel_size=3, padding=1, stride=2, groups=2,
        layout="channels_last", dtype=dtype,
    ).replace(direction=direction)  # fmt: skip
    question = integer_question(spec, np.random.default_rng(0))
    calls = peer.calls(spec, question.operands.main)
    assert list(calls) == ["channels_last", "contiguous_format"][: 2 if dtype == "float32" else 1]
    for layout, call in calls.items():
        result = call()
        assert peer.agrees(spec, result, question)
        assert not peer.agrees(spec, result + 1, question)
        if direction != "backward_weights":
            assert result.is_contiguous(memory_format=getattr(torch, layout))


def test_without_a_device_there_is_no_peer() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    with pytest.raises(MissingDependencyError, match="sees no CUDA device"):
        Cudnn(0)


def test_tables_and_rooflines(fake: FakeDriver) -> None:
    facts = driver.driver().facts(0)
    large = ConvSpec(batch=64, in_channels=512, out_channels=512, spatial_size=(64, 64), kernel_size=3, padding=1)
    strict, fast = (
        roofline_seconds(large.replace(accuracy=accuracy), gpu_of("9.0"), facts) for accuracy in ("strict", 2e-3)
    )
    assert strict == pytest.approx(large.flops / (2 * 128 * 132 * 1.98e9))
    assert strict / fast == pytest.approx(8.0)
    thin = ConvSpec(batch=64, in_channels=1, out_channels=1, spatial_size=(64, 64), kernel_size=1)
    assert roofline_seconds(thin, gpu_of("9.0"), facts) == pytest.approx(thin.bytes_moved / facts.bandwidth)
    rows = [
        Row("a", 1, "p", "s", 1.0, 2.0, 0.5),
        Row("b", 1, "p", "s", 1.0, 0.5, 0.5),
        Row("c", 1, "p", "s", flaw="x|y"),
    ]
    table = Table("t", rows, left_out=2)
    assert table.geometric_mean() == pytest.approx(1.0)
    assert "worst 0.50 (b)" in table.summary()
    assert "mean part of the roofline 50%" in table.summary()
    assert "2 not measured" in table.summary()
    assert "| c | 1 | p | s |  |  | x/y |  | 0, 0 |" in markdown("title", [("date", "today")], [table])
