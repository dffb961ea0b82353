"""Helper processes that fill the kernel cache while this process compiles too: Numba compiles under one lock a process.

A helper is ``python -m convgen.compile_ahead``, a process of its own that never imports the caller's main module: it reads
one plan a line as JSON, compiles it into the cache on disk and answers with a line; one more line says that it is there. It ends
when its input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from convgen.driver import Plan, lower
from convgen.machine import Machine
from convgen.options import cache_dir
from convgen.spec import ConvSpec
from convgen.tuning.space import Config

# A helper that takes longer than this over one batch is taken for stuck.
PATIENCE_SECONDS = 120.0
# More helpers than this would only wait for memory.
MAX_HELPERS = 7


@dataclass
class _Helper:
    """A process, and whether it has said that it is there: until then it is busy with starting."""

    process: subprocess.Popen[str]
    is_ready: bool = False


class Helpers:
    """Up to ``count`` helper processes, started when first needed and ended on leaving the context.

    A helper that cannot be started, dies or gets stuck is done without: what it has not compiled, the caller compiles.
    """

    def __init__(self, count: int) -> None:
        self._most = min(count, MAX_HELPERS) if can_help() else 0
        self._helpers: list[_Helper] = []

    def __enter__(self) -> Helpers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end_all()

    def start(self) -> None:
        """Starts all helpers, so that they are there when ``share`` needs them."""
        self._start(self._most)

    def share(self, plans: Sequence[Plan], here: Callable[[Plan], None], deadline: float) -> set[Plan]:
        """Calls ``here`` for plans from the front while helpers take them from the back, and returns when nobody compiles: the
        plans that were compiled, the first in any case, no other begun after ``deadline``.

        Raises what ``here`` raises.
        """
        if not plans:
            return set()
        first, *others = plans
        waiting, done = deque(others), {first}
        self._start(len(others))
        threads = [
            threading.Thread(target=_feed, args=(helper, waiting, done, deadline), daemon=True)
            for helper in self._helpers
        ]
        for thread in threads:
            thread.start()
        try:
            here(first)
            _compile(waiting, done, here, deadline)
            self._await(threads)
            # What a helper that died left behind.
            _compile(waiting, done, here, deadline)
        except BaseException:
            self._end_all()
            raise
        return done

    def _start(self, most: int) -> None:
        while len(self._helpers) < min(self._most, most):
            process = _started()
            if process is None:
                self._most = len(self._helpers)
                return
            self._helpers.append(_Helper(process))

    def _await(self, threads: list[threading.Thread]) -> None:
        kept: list[_Helper] = []
        for helper, thread in zip(self._helpers, threads, strict=True):
            thread.join(PATIENCE_SECONDS)
            if thread.is_alive() or helper.process.poll() is not None:
                _end(helper.process)
                thread.join()
            else:
                kept.append(helper)
        self._most -= len(self._helpers) - len(kept)
        self._helpers = kept

    def _end_all(self) -> None:
        helpers, self._helpers = self._helpers, []
        for helper in helpers:
            _end(helper.process)


def _compile(waiting: deque[Plan], done: set[Plan], here: Callable[[Plan], None], deadline: float) -> None:
    while waiting and time.perf_counter() < deadline:
        try:
            plan = waiting.popleft()
        except IndexError:
            return
        here(plan)
        done.add(plan)


def _feed(helper: _Helper, waiting: deque[Plan], done: set[Plan], deadline: float) -> None:
    """Gives a helper one plan after another until none is left; the one it dies of is left to others."""
    plan: Plan | None = None
    try:
        helper.is_ready = helper.is_ready or bool(_answer(helper.process))
        while helper.is_ready and waiting and time.perf_counter() < deadline:
            plan = waiting.pop()
            if not _answer(helper.process, _line(plan)):
                waiting.append(plan)
                return
            done.add(plan)
    except IndexError:  # another one was quicker
        return
    except (OSError, ValueError):
        if plan is not None and plan not in done:
            waiting.append(plan)


def _answer(process: subprocess.Popen[str], request: str = "") -> str:
    """The line that a helper answers with; empty if it is no more."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(request)
    process.stdin.flush()
    return process.stdout.readline()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def can_help() -> bool:
    """Whether another process could compile for this one: it is a Python's, and the cache can be shared."""
    if not Path(sys.executable or "").name.startswith("python"):
        return False
    place = cache_dir()
    while not place.exists() and place != place.parent:
        place = place.parent
    return os.access(place, os.W_OK | os.X_OK)


def _started() -> subprocess.Popen[str] | None:
    package = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "PYTHONPATH": path, "CONVGEN_DEBUG": "0"}
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "convgen.compile_ahead"],
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


def _line(plan: Plan) -> str:
    return json.dumps([plan.spec.to_json(), plan.strategy, str(plan.config)]) + "\n"


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Compiles the plans that come in, until no more come."""
    machine = Machine.host()
    answers.write("\n")
    answers.flush()
    for line in requests:
        problem, strategy, config = json.loads(line)
        plan = Plan(ConvSpec.from_json(problem), strategy, Config.parse(config), "measured")
        # What cannot be compiled is the parent's to report.
        with contextlib.suppress(Exception):
            lower(plan, machine).calls()
        answers.write("\n")
        answers.flush()


if __name__ == "__main__":
    # What takes longest of a first compilation, while the parent is busy with something else.
    import convgen.targets.cpu.numba_pipeline  # noqa: F401

    # Nothing that is printed on the way may be taken for an answer.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)
