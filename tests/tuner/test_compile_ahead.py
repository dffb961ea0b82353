"""Helpers share the work, and whatever becomes of them everything is compiled and nobody is left."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from convgen.driver import Plan
from convgen.errors import WaitWarning
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.direct import Direct
from convgen.tuner import compile_ahead
from convgen.tuner.compile_ahead import Helpers
from convgen.tuner.examination import Verdict
from convgen.tuner.helper_process import HelperProcess, can_help, request_line, serve

SPEC = ConvSpec(batch=1, in_channels=3, out_channels=5, spatial_size=6, kernel_size=3)
PLANS = [Plan(SPEC, "direct", config, "measured") for config in Direct().space(SPEC, Machine.host())]
# A helper that answers everything, and says to a file what it was asked.
ECHO = """
import sys
print(flush=True)
for line in sys.stdin:
    open(sys.argv[1], "a").write(line)
    print(flush=True)
"""
# One that answers nothing, or not to the end.
HANG = """
import sys, time
print(flush=True)
open(sys.argv[1], "a").write(sys.stdin.readline())
print({answer!r}, end="", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[subprocess.Popen[str]]:
    """The processes that take a helper's place; their code is in ``tmp_path``/helper.py."""
    processes: list[subprocess.Popen[str]] = []

    def start() -> HelperProcess:
        command = [sys.executable, "-S", str(tmp_path / "helper.py"), str(tmp_path / "asked")]
        processes.append(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        )
        return HelperProcess(processes[-1])

    monkeypatch.setattr(compile_ahead, "start_helper", start)
    (tmp_path / "helper.py").write_text(ECHO)
    return processes


def asked(folder: Path) -> list[str]:
    path = folder / "asked"
    return path.read_text().splitlines() if path.exists() else []


def test_everything_is_compiled_once(started: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    here: list[Plan] = []
    deadline = time.perf_counter() + 30

    def slowly(plan: Plan) -> None:
        here.append(plan)
        while len(here) == 1 and not asked(tmp_path) and time.perf_counter() < deadline:
            time.sleep(0.01)

    with Helpers(1) as helpers:
        assert helpers.share(PLANS, slowly, math.inf) == set(PLANS)
        # The same helper serves the next batch.
        assert helpers.share(PLANS, here.append, math.inf) == set(PLANS)
    assert here[0] == PLANS[0]
    assert asked(tmp_path)
    assert len(here) + len(asked(tmp_path)) == 2 * len(PLANS)
    assert [process.returncode is not None for process in started] == [True]


@pytest.mark.parametrize(
    "code",
    ["raise SystemExit", "print(flush=True)\ninput()", "print(flush=True)\nimport sys\nsys.stdin.close()", "1/0"],
    ids=["at once", "when asked", "deaf", "broken"],
)
def test_a_helper_that_dies_leaves_its_work_to_the_caller(
    code: str, started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "helper.py").write_text(code)
    here: list[Plan] = []
    with Helpers(2) as helpers:
        for _ in range(2):
            here.clear()
            assert helpers.share(PLANS, here.append, math.inf) == set(PLANS)
            assert sorted(map(str, here)) == sorted(map(str, PLANS))
    assert all(process.returncode is not None for process in started)


@pytest.mark.parametrize("answer", ["", "half an answer"])
def test_a_helper_that_is_stuck_is_ended_and_named(
    answer: str, started: list[subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_ahead, "PATIENCE_SECONDS", 1.0)
    (tmp_path / "helper.py").write_text(HANG.format(answer=answer))
    here: list[Plan] = []
    deadline = time.perf_counter() + 30

    def slowly(plan: Plan) -> None:
        here.append(plan)
        while not asked(tmp_path) and time.perf_counter() < deadline:
            time.sleep(0.01)

    with (
        Helpers(1) as helpers,
        pytest.warns(WaitWarning, match=r"no sign for 1 s, compiling direct .* for mb1_ic3"),
    ):
        assert helpers.share(PLANS, slowly, math.inf) == set(PLANS)
    assert started[0].returncode is not None
    assert sorted(map(str, here)) == sorted(map(str, PLANS))


def test_a_helper_that_does_not_start_is_ended_and_named(
    started: list[subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_ahead, "PATIENCE_SECONDS", 0.3)
    (tmp_path / "helper.py").write_text("import time\ntime.sleep(1000)")
    with Helpers(1) as helpers, pytest.warns(WaitWarning, match=r"no sign for 0.3 s, starting"):
        assert helpers.share(PLANS, lambda plan: None, math.inf) == set(PLANS)
    with Helpers(1) as helpers, pytest.warns(WaitWarning, match=r"no sign for 0.3 s, starting"):
        assert helpers.examine(PLANS[0], "integers") is None
    assert all(process.returncode is not None for process in started)


def test_an_error_ends_the_helpers(started: list[subprocess.Popen[str]]) -> None:
    def fail(plan: Plan) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), Helpers(1) as helpers:
        helpers.share(PLANS, fail, math.inf)
    assert started[0].returncode is not None
    for _ in range(500):
        if threading.active_count() <= before:
            return
        time.sleep(0.01)
    raise AssertionError("a thread is left")


def test_after_the_deadline_only_the_first_is_compiled() -> None:
    here: list[Plan] = []
    with Helpers(0) as helpers:
        assert helpers.share(PLANS, here.append, 0.0) == {PLANS[0]}
        assert helpers.share([], here.append, math.inf) == set()
    assert here == [PLANS[0]]


def test_no_helper_where_the_cache_cannot_be_shared_or_python_is_not_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert can_help()
    monkeypatch.setenv("CONVGEN_CACHE_DIR", "/dev/null/below")
    assert not can_help()
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path / "not" / "made"))
    assert can_help()
    monkeypatch.setattr(sys, "executable", "/usr/bin/blender")
    assert not can_help()
    monkeypatch.setattr(sys, "executable", None)
    assert not can_help()


def test_what_is_served_is_in_the_cache(cache_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path))
    bad = Plan(SPEC, "nothing", PLANS[0].config, "measured")
    requests = [json.dumps([plan.spec.to_json(), plan.strategy, str(plan.config), 1, ""]) for plan in (bad, PLANS[0])]
    monkeypatch.setattr("convgen.targets.cpu.build._addresses", {})
    answers = io.StringIO()
    serve(io.StringIO("\n".join(requests) + "\n"), answers)
    assert answers.getvalue() == "\n\n\n"
    assert list((tmp_path / "kernels").glob("*.obj"))


def test_what_cannot_be_examined_is_not_called_wrong() -> None:
    bad = Plan(SPEC, "nothing", PLANS[0].config, "measured")
    answers = io.StringIO()
    serve(io.StringIO(request_line(bad, 1, "integers")), answers)
    verdict = Verdict.from_json(answers.getvalue().splitlines()[1])
    assert (verdict.ok, verdict.examined) == (False, False)
    assert verdict.reason.startswith("integers: NotApplicable: ")


VERDICT = """
import json, sys
print(flush=True)
for line in sys.stdin:
    print(json.dumps({"ok": json.loads(line)[-1] == "integers", "reason": "r", "error": 0.5}), flush=True)
"""


def test_a_helper_gives_its_verdict(started: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text(VERDICT)
    with Helpers(1) as helpers:
        assert helpers.examine(PLANS[0], "integers") == Verdict(True, "r", 0.5)
        assert helpers.examine(PLANS[0], "random") == Verdict(False, "r", 0.5)
    assert len(started) == 1


@pytest.mark.parametrize(
    ("code", "reason", "examined", "processes"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "random: it ended its process by SIGSEGV", True, 1),
        ("os.abort()", "random: it ended its process by SIGABRT", True, 1),
        ("sys.exit(3)", "random: its process was gone twice", False, 2),
        ("time.sleep(1000)", "random: no verdict after 0.3 s", False, 1),
        ("print('no verdict', flush=True)", "random: its process was gone twice", False, 2),
    ],
)
def test_a_kernel_that_ends_its_process_by_a_fault_is_wrong_and_others_without_a_verdict_are_not_examined(
    code: str,
    reason: str,
    examined: bool,
    processes: int,
    started: list[subprocess.Popen[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compile_ahead, "PATIENCE_SECONDS", 5.0)
    helper = "import os, signal, sys, time\nprint(flush=True)\nsys.stdin.readline()\n"
    (tmp_path / "helper.py").write_text(helper + code)
    with Helpers(1) as helpers:
        assert helpers.share(PLANS[:1], lambda plan: None, math.inf)
        if "sleep" in code:
            helpers.start()
            while not helpers._helpers[0].is_there(5.0):
                pass
            monkeypatch.setattr(compile_ahead, "PATIENCE_SECONDS", 0.3)
        assert helpers.examine(PLANS[0], "random") == Verdict(False, reason, examined=examined)
        assert len(started) == processes
        # The next kernel gets a process of its own.
        (tmp_path / "helper.py").write_text(VERDICT)
        monkeypatch.setattr(compile_ahead, "PATIENCE_SECONDS", 5.0)
        assert helpers.examine(PLANS[1], "integers") == Verdict(True, "r", 0.5)


def test_without_helpers_nobody_is_asked(started: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    with Helpers(0) as helpers:
        assert helpers.examine(PLANS[0], "integers") is None
    (tmp_path / "helper.py").write_text("raise SystemExit")
    with Helpers(1) as helpers:
        assert helpers.examine(PLANS[0], "integers") is None
        assert helpers.examine(PLANS[0], "integers") is None
    assert len(started) == 1


@pytest.mark.slow
def test_a_real_helper_fills_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path))
    with Helpers(1) as helpers:

        def wait(plan: Plan) -> None:
            for _ in range(600):
                if list(tmp_path.glob("kernels/*.obj")):
                    return
                time.sleep(0.1)

        assert helpers.share(PLANS[:2], wait, math.inf) == set(PLANS[:2])
    assert list(tmp_path.glob("kernels/*.obj"))
