"""Processes end with the one that started them, whoever else has their pipes open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from convgen.runtime import parent

CHILD = """
import sys, time
{setup}
from convgen.runtime.parent import end_with
end_with(int(sys.argv[1]))
print("there", flush=True)
time.sleep(600)
"""
# Starts a child, says who it is, and forks another one that keeps all pipes open.
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
other = os.fork()
if other:
    print(child.pid, other, flush=True)
time.sleep(600)
"""
HELPER = """
import os, time
from convgen.tuner.helper_process import start_helper
helper = start_helper()
assert helper.is_there(60)
other = os.fork()
if other:
    print(helper.process.pid, other, flush=True)
time.sleep(600)
"""
# Stands for a system whose kernel tells nobody.
ELSEWHERE = "sys.platform = 'other'"


@pytest.fixture
def strays() -> Iterator[list[int]]:
    """Processes that are ended in any case."""
    numbers: list[int] = []
    yield numbers
    for number in numbers:
        if is_alive(number):
            os.kill(number, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def is_gone_in_time(pid: int) -> bool:
    end = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_alive(pid)


def child_of_killed(arguments: list[str], strays: list[int]) -> int:
    """The number of the child of a process that was killed when the child was there."""
    command = [sys.executable, "-c", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child, other = map(int, process.stdout.readline().split())
        strays += [child, other]
        assert is_alive(child)
        process.kill()
    return child


@pytest.mark.parametrize("setup", ["", ELSEWHERE], ids=["by the kernel", "by looking"])
def test_a_child_ends_with_its_parent(setup: str, strays: list[int]) -> None:
    assert is_gone_in_time(child_of_killed([PARENT, CHILD.format(setup=setup)], strays))


def test_a_helper_ends_with_its_parent(strays: list[int]) -> None:
    assert is_gone_in_time(child_of_killed([HELPER], strays))


def test_one_whose_parent_is_gone_already_ends_at_once() -> None:
    child = subprocess.run([sys.executable, "-c", CHILD.format(setup=""), "1"], timeout=60, check=False)
    assert child.returncode == 1


def test_one_whose_parent_lives_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "_asks_the_kernel", lambda: True)
    monkeypatch.setattr(parent, "_end", lambda: pytest.fail("its parent is there"))
    parent.end_with(os.getppid())
