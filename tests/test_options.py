from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from convgen import options
from convgen.errors import OptionError

VARIABLES = (
    "CONVGEN_CACHE_DIR",
    "CONVGEN_DEBUG",
    "CONVGEN_TUNE",
    "CONVGEN_TUNE_BUDGET",
    "CONVGEN_TUNE_PROBLEM_BUDGET",
    "CONVGEN_DETERMINISTIC",
    "CONVGEN_LOCK",
    "CONVGEN_LOCK_STRICT",
    "CONVGEN_FORBID",
    "CONVGEN_WORKSPACE_LIMIT",
    "CONVGEN_NUM_THREADS",
)


@pytest.mark.parametrize("value", [None, ""])
def test_defaults(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    for variable in VARIABLES:
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    assert options.cache_dir() == Path(platformdirs.user_cache_dir("convgen", appauthor=False))
    assert options.debug_level() == 0
    assert options.tune_mode() == "lookup"
    assert (options.tune_budget(), options.tune_problem_budget()) == (300.0, 10.0)
    assert (options.is_deterministic(), options.is_lock_strict()) == (False, False)
    assert (options.lock_path(), options.workspace_limit(), options.forbidden_strategies()) == (None, None, ())
    assert options.num_threads() == len(os.sched_getaffinity(0))


def test_values_are_read_at_each_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for level, mode, threads in [("0", "off", "1"), ("5", "lookup", "12"), (" 3 ", "on", "3")]:
        monkeypatch.setenv("CONVGEN_DEBUG", level)
        monkeypatch.setenv("CONVGEN_TUNE", mode)
        monkeypatch.setenv("CONVGEN_NUM_THREADS", threads)
        monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path / threads))
        assert options.debug_level() == int(level)
        assert options.tune_mode() == mode
        assert options.num_threads() == int(threads)
        assert options.cache_dir() == tmp_path / threads


def test_control_of_tuning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable, value in [
        ("TUNE_BUDGET", "0.5"),
        ("TUNE_PROBLEM_BUDGET", " 2 "),
        ("DETERMINISTIC", "1"),
        ("LOCK_STRICT", "1"),
        ("FORBID", "fft, winograd,"),
        ("WORKSPACE_LIMIT", "10000000000"),
    ]:
        monkeypatch.setenv(f"CONVGEN_{variable}", value)
    assert (options.tune_budget(), options.tune_problem_budget()) == (0.5, 2.0)
    assert (options.is_deterministic(), options.is_lock_strict()) == (True, True)
    assert (options.workspace_limit(), options.forbidden_strategies()) == (10**10, ("fft", "winograd"))


def test_the_lockfile_in_force(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert options.lock_path() is None
    (tmp_path / "convgen.lock").touch()
    assert options.lock_path() == tmp_path / "convgen.lock"
    monkeypatch.setenv("CONVGEN_LOCK", "other.lock")
    assert options.lock_path() == tmp_path / "other.lock"
    monkeypatch.setenv("CONVGEN_LOCK", "off")
    assert options.lock_path() is None


def test_cache_dir_is_absolute_and_knows_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CONVGEN_CACHE_DIR", "here")
    assert options.cache_dir() == tmp_path / "here"
    monkeypatch.setenv("CONVGEN_CACHE_DIR", "~/there")
    assert options.cache_dir() == tmp_path / "there"


@pytest.mark.parametrize(
    ("variable", "read", "values"),
    [
        ("CONVGEN_DEBUG", options.debug_level, ["6", "-1", "yes", "1.0", "²"]),
        ("CONVGEN_TUNE", options.tune_mode, ["ON", "never", "1"]),
        ("CONVGEN_TUNE_BUDGET", options.tune_budget, ["-1", "nan", "inf", "1e3"]),
        ("CONVGEN_TUNE_PROBLEM_BUDGET", options.tune_problem_budget, ["soon"]),
        ("CONVGEN_DETERMINISTIC", options.is_deterministic, ["yes", "2"]),
        ("CONVGEN_LOCK_STRICT", options.is_lock_strict, ["true"]),
        ("CONVGEN_WORKSPACE_LIMIT", options.workspace_limit, ["-1", "1M"]),
        ("CONVGEN_NUM_THREADS", options.num_threads, ["0", "-2", "two", "9" * 5000]),
        ("CONVGEN_CACHE_DIR", options.cache_dir, [__file__]),
    ],
)
def test_bad_values_are_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, read: Callable[[], object], values: list[str]
) -> None:
    for value in values:
        monkeypatch.setenv(variable, value)
        with pytest.raises(OptionError, match=variable) as caught:
            read()
        assert value in str(caught.value)
