"""A process of its own that compiles and examines kernels for another: requests a line, answers a line, until its input ends or
the other is gone.

It is ``python -m convgen.tuner.helper_process`` and never imports the caller's main module. A request is a JSON list of a
problem, a strategy, a configuration, a number of threads and a gate of ``convgen.tuner.examination``. Without a gate ("") the
plan is compiled alone, into the cache on disk, and the answer is an empty line, as is the first one, which says that the process
is there.
With a gate the answer is a Verdict: a fault that ends the process instead is the kernel's.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from convgen.driver import Plan
from convgen.machine import Machine
from convgen.operator import CompiledConv
from convgen.options import cache_dir
from convgen.runtime.parent import end_with
from convgen.spec import ConvSpec
from convgen.tuner.examination import GATES, Gate, Verdict, examine
from convgen.tuning.space import Config

# What a helper runs, with the number of the process that starts it; its input and output are pipes.
COMMAND: tuple[str, ...] = ("-P", "-m", "convgen.tuner.helper_process")
# Operators that are kept between being compiled and being examined.
_KEPT = 16
# The system takes no longer than this to end a process that is killed, unless it is waiting for a device.
_KILL_SECONDS = 10.0


@dataclass
class HelperProcess:
    """The caller's end of a helper: whether it has said that it is there, what it is doing, and whether an answer was waited for
    in vain."""

    process: subprocess.Popen[str]
    is_ready: bool = False
    doing: str = "starting"
    is_late: bool = False

    def is_there(self, seconds: float) -> bool:
        """Whether it has said, or says within so many seconds, that it is there; raises TimeoutError if it does not."""
        self.is_ready = self.is_ready or bool(self._line(seconds))
        return self.is_ready

    def ask(self, request: str, seconds: float) -> str:
        """The line that a helper that is there answers a request with; empty if it is no more.

        Raises TimeoutError, and ends it, if it has not answered after so many seconds, and OSError and ValueError where it does
        not listen.
        """
        stdin = self.process.stdin
        assert stdin is not None
        stdin.write(request)
        stdin.flush()
        return self._line(seconds)

    def kill(self) -> int:
        """Ends it and returns its exit status."""
        if self.process.poll() is None:
            self.process.kill()
        try:
            return self.process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL

    def end(self) -> int:
        """Ends it and returns its exit status, negative for the signal that it had died of."""
        status = self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return status

    def death(self) -> str:
        """What it died of, or "" if it lives, or was ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self.process.wait(timeout=1.0)
            if status < 0 and -status in _FAULTS:
                return signal.Signals(-status).name
        return ""

    def _line(self, seconds: float) -> str:
        stdout = self.process.stdout
        assert stdout is not None
        end = time.monotonic() + seconds
        line = b""
        # One answer to one request: nothing comes after the end of a line before the next one is asked for.
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([stdout], [], [], max(0.0, end - time.monotonic()))
            if not readable:
                self.is_late = True
                self.kill()
                raise TimeoutError(f"no answer after {seconds:g} s")
            part = os.read(stdout.fileno(), 1 << 16)
            if not part:
                return ""  # half an answer is none
            line += part
        return line.decode("utf-8", "replace")


# Signals that say that the program itself is at fault.
_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)


def can_help() -> bool:
    """Whether another process could compile for this one: it is a Python's, and the cache can be shared."""
    if not Path(sys.executable or "").name.startswith("python"):
        return False
    place = cache_dir()
    while not place.exists() and place != place.parent:
        place = place.parent
    return os.access(place, os.W_OK | os.X_OK)


def start_helper() -> HelperProcess | None:
    """A new helper; None where there can be none."""
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "PYTHONPATH": path, "CONVGEN_DEBUG": "0"}
    try:
        process = subprocess.Popen(
            [sys.executable, *COMMAND, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            # An interrupt from the keyboard is the parent's to deal with.
            start_new_session=True,
        )
    except OSError:
        return None
    return HelperProcess(process)


def request_line(plan: Plan, threads: int, gate: Gate | None = None) -> str:
    """A request to compile a plan, or to examine it."""
    return json.dumps([plan.spec.to_json(), plan.strategy, str(plan.config), threads, gate or ""]) + "\n"


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Compiles and examines the plans that come in, until no more come."""
    answers.write("\n")
    answers.flush()
    for line in requests:
        problem, strategy, config, threads, gate = json.loads(line)
        plan = Plan(ConvSpec.from_json(problem), strategy, Config.parse(config), "measured")
        answers.write(_answer(plan, threads, gate) + "\n")
        answers.flush()


def _answer(plan: Plan, threads: int, gate: str) -> str:
    if gate not in GATES:
        # What cannot be compiled is the parent's to report.
        with contextlib.suppress(Exception):
            _compiled(plan, threads)
        return ""
    try:
        verdict = examine(_compiled(plan, threads), gate, fenced=True)
    except Exception as error:
        # Short memory, a kernel that cannot be compiled, an oracle that failed: none says that the numbers are wrong.
        verdict = Verdict(False, f"{gate}: {type(error).__name__}: {error}", examined=False)
    return verdict.to_json()


@functools.lru_cache(maxsize=_KEPT)
def _compiled(plan: Plan, threads: int) -> CompiledConv:
    return CompiledConv(plan, Machine.host(), threads)


def main() -> None:
    """Serves the standard input and output for the process whose number is the first argument."""
    end_with(int(sys.argv[1]))
    # What takes longest of a first compilation, while the parent is busy with something else.
    import convgen.targets.cpu.numba_pipeline  # noqa: F401

    # Nothing that is printed on the way may be taken for an answer.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
