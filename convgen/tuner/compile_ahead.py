"""Helper processes that fill the kernel cache while this process compiles too, as Numba compiles under one lock a process, and
that examine kernels before this process runs them."""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

from convgen.driver import Plan
from convgen.errors import WaitWarning
from convgen.tuner.examination import Gate, Verdict
from convgen.tuner.helper_process import HelperProcess, can_help, request_line, start_helper

# A helper that takes longer than this over one request is taken for stuck.
PATIENCE_SECONDS = 120.0
# More helpers than this would only wait for memory.
MAX_HELPERS = 7


class Helpers:
    """Up to ``count`` helper processes, started when first needed and ended on leaving the context.

    A helper that cannot be started, dies or gets stuck is done without: what it has not compiled, the caller compiles. A
    WaitWarning says which one was waited for in vain. ``threads`` is how many threads the kernels are for.
    """

    def __init__(self, count: int, threads: int = 1) -> None:
        self._most = min(count, MAX_HELPERS) if can_help() else 0
        self._threads = threads
        self._helpers: list[HelperProcess] = []

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
            threading.Thread(target=self._feed, args=(helper, waiting, done, deadline), daemon=True)
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

    def examine(self, plan: Plan, gate: Gate) -> Verdict | None:
        """A helper's verdict on a kernel; None where there is no helper to ask.

        A kernel that ends its process by a fault is wrong. One that has no verdict in time, or whose process is gone twice, could
        not be examined.
        """
        for _ in range(2):
            is_stuck = False
            self._start(1)
            if not self._helpers:
                return None
            helper = self._helpers[0]
            try:
                answer = helper.is_there(PATIENCE_SECONDS) and helper.ask(
                    request_line(plan, self._threads, gate), PATIENCE_SECONDS
                )
                if answer:
                    return Verdict.from_json(answer)
                death = helper.death()
            except TimeoutError:
                death, is_stuck = "", True
            except (OSError, ValueError, TypeError):
                death = helper.death()
            helper.end()
            self._helpers.remove(helper)
            if not helper.is_ready:  # another one would not be there either
                self._most = len(self._helpers)
                if is_stuck:
                    _warn(helper)
                return None
            if death:
                return Verdict(False, f"{gate}: it ended its process by {death}")
            if is_stuck:
                return Verdict(False, f"{gate}: no verdict after {PATIENCE_SECONDS:g} s", examined=False)
        return Verdict(False, f"{gate}: its process was gone twice", examined=False)

    def _start(self, most: int) -> None:
        while len(self._helpers) < min(self._most, most):
            helper = start_helper()
            if helper is None:
                self._most = len(self._helpers)
                return
            self._helpers.append(helper)

    def _feed(self, helper: HelperProcess, waiting: deque[Plan], done: set[Plan], deadline: float) -> None:
        """Gives a helper one plan after another until none is left; the one it dies of is left to others."""
        plan: Plan | None = None
        try:
            while helper.is_there(PATIENCE_SECONDS) and waiting and time.perf_counter() < deadline:
                plan = waiting.pop()
                helper.doing = f"compiling {plan.strategy} {plan.config} for {plan.spec}"
                if not helper.ask(request_line(plan, self._threads), PATIENCE_SECONDS):
                    waiting.append(plan)
                    return
                done.add(plan)
        except IndexError:  # another one was quicker
            return
        except (OSError, ValueError):
            if plan is not None and plan not in done:
                waiting.append(plan)

    def _await(self, threads: list[threading.Thread]) -> None:
        kept: list[HelperProcess] = []
        for helper, thread in zip(self._helpers, threads, strict=True):
            thread.join(PATIENCE_SECONDS)
            if not thread.is_alive() and helper.process.poll() is None:
                kept.append(helper)
                continue
            if thread.is_alive() or helper.is_late:
                _warn(helper)
            # Its thread sees it end before the pipes are closed.
            helper.kill()
            thread.join(PATIENCE_SECONDS)
            helper.end()
        self._most -= len(self._helpers) - len(kept)
        self._helpers = kept

    def _end_all(self) -> None:
        helpers, self._helpers = self._helpers, []
        for helper in helpers:
            helper.end()


def _compile(waiting: deque[Plan], done: set[Plan], here: Callable[[Plan], None], deadline: float) -> None:
    while waiting and time.perf_counter() < deadline:
        try:
            plan = waiting.popleft()
        except IndexError:
            return
        here(plan)
        done.add(plan)


def _warn(helper: HelperProcess) -> None:
    warnings.warn(
        f"a helper process gave no sign for {PATIENCE_SECONDS:g} s, {helper.doing}; it is ended and done without",
        WaitWarning,
        stacklevel=4,
    )
