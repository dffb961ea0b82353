"""The environment variables that steer convgen, read when asked for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from convgen.errors import OptionError

TUNE_MODES: tuple[str, ...] = ("off", "lookup", "on")
LOCK_NAME = "convgen.lock"
MAX_DEBUG_LEVEL = 5
# Levels of instruction sets, the highest first.
CPU_ISAS: tuple[str, ...] = ("amx", "avx512", "avx2", "generic")
# What steers choices: another process that chooses for this one must be given the same.
STEERING: tuple[str, ...] = (
    "CONVGEN_TUNE",
    "CONVGEN_DETERMINISTIC",
    "CONVGEN_FORBID",
    "CONVGEN_WORKSPACE_LIMIT",
    "CONVGEN_MAX_CPU_ISA",
)


def cache_dir() -> Path:
    """The directory of kernels and the database: CONVGEN_CACHE_DIR, else the user's cache directory; may not exist.

    Raises OptionError where the value is a file.
    """
    value = os.environ.get("CONVGEN_CACHE_DIR", "")
    if not value:
        return platformdirs.user_cache_path("convgen", appauthor=False)
    path = Path(value).expanduser()
    if path.exists() and not path.is_dir():
        raise OptionError(f"CONVGEN_CACHE_DIR={value!r} is not a directory")
    return path.absolute()


def debug_level() -> int:
    """How much is printed, CONVGEN_DEBUG: 0 nothing, 1 plan, 2 timing, 3 IR per pass, 4 source, 5 LLVM or PTX."""
    allowed = f"an integer from 0 to {MAX_DEBUG_LEVEL}"
    value = _integer("CONVGEN_DEBUG", 0, allowed)
    if value > MAX_DEBUG_LEVEL:
        raise OptionError(f"CONVGEN_DEBUG={value} is not allowed; allowed: {allowed}")
    return value


def tune_mode() -> str:
    """CONVGEN_TUNE: "lookup" (default) reads what tuning has found and measures only in ``tune`` and ``autotune``; "on" tunes
    what is met for the first time; "off" does neither: heuristics alone."""
    value = os.environ.get("CONVGEN_TUNE") or "lookup"
    if value not in TUNE_MODES:
        raise OptionError(f"CONVGEN_TUNE={value!r} is not allowed; allowed: {', '.join(TUNE_MODES)}")
    return value


def tune_budget() -> float:
    """CONVGEN_TUNE_BUDGET: seconds that a process may tune for on its own accord (CONVGEN_TUNE=on), in total; default 300."""
    return _seconds("CONVGEN_TUNE_BUDGET", 300.0)


def tune_problem_budget() -> float:
    """CONVGEN_TUNE_PROBLEM_BUDGET: seconds of that for one problem; default 10."""
    return _seconds("CONVGEN_TUNE_PROBLEM_BUDGET", 10.0)


def is_deterministic() -> bool:
    """CONVGEN_DETERMINISTIC=1: choices come from the lockfile and the heuristic alone, so that the same inputs give the same."""
    return _flag("CONVGEN_DETERMINISTIC")


def lock_path() -> Path | None:
    """The lockfile in force: CONVGEN_LOCK, else convgen.lock in the working directory if it is there; CONVGEN_LOCK=off: None."""
    if is_lock_off():
        return None
    value = os.environ.get("CONVGEN_LOCK", "").strip()
    if value:
        return Path(value).expanduser().absolute()
    path = Path(LOCK_NAME).absolute()
    return path if path.is_file() else None


def is_lock_off() -> bool:
    """CONVGEN_LOCK=off: no lockfile is wanted."""
    return os.environ.get("CONVGEN_LOCK", "").strip() == "off"


def is_lock_strict() -> bool:
    """CONVGEN_LOCK_STRICT=1: what the lockfile lacks is an error, not the heuristic's choice and a warning; so is its absence."""
    return _flag("CONVGEN_LOCK_STRICT")


def forbidden_strategies() -> tuple[str, ...]:
    """CONVGEN_FORBID: names of strategies, separated by commas, that are chosen only where a caller asks for them by name."""
    return tuple(name.strip() for name in os.environ.get("CONVGEN_FORBID", "").split(",") if name.strip())


def workspace_limit() -> int | None:
    """CONVGEN_WORKSPACE_LIMIT: bytes of scratch memory that a call may use where its caller sets no limit; default any."""
    if not os.environ.get("CONVGEN_WORKSPACE_LIMIT", "").strip():
        return None
    return _integer("CONVGEN_WORKSPACE_LIMIT", 0, "bytes, 0 or more", digits=15)


def max_cpu_isa() -> str:
    """CONVGEN_MAX_CPU_ISA: the most that kernels may use, of CPU_ISAS; "" for all that the machine has."""
    value = os.environ.get("CONVGEN_MAX_CPU_ISA", "").strip()
    if value and value not in CPU_ISAS:
        raise OptionError(f"CONVGEN_MAX_CPU_ISA={value!r} is not allowed; allowed: {', '.join(CPU_ISAS)}")
    return value


def lower_isa(first: str, second: str) -> str:
    """The lower of two levels of CPU_ISAS, of which "" is the highest."""
    return max(filter(None, (first, second)), key=CPU_ISAS.index, default="")


def steering() -> dict[str, str]:
    """The variables of STEERING as they are in force here, "" for those that are not set; raises OptionError."""
    found = {name: os.environ.get(name, "").strip() for name in STEERING}
    return found | {"CONVGEN_MAX_CPU_ISA": max_cpu_isa()}


def num_threads() -> int:
    """CONVGEN_NUM_THREADS, else the number of processors that this process may use."""
    allowed = "a positive integer"
    value = _integer("CONVGEN_NUM_THREADS", _processors(), allowed)
    if value < 1:
        raise OptionError(f"CONVGEN_NUM_THREADS={value} is not allowed; allowed: {allowed}")
    return value


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _integer(variable: str, default: int, allowed: str, *, digits: int = 9) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not re.fullmatch(rf"[0-9]{{1,{digits}}}", text):
        raise OptionError(f"{variable}={text!r} is not allowed; allowed: {allowed}")
    return int(text)


def _seconds(variable: str, default: float) -> float:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise OptionError(f"{variable}={text!r} is not allowed; allowed: seconds, 0 or more")
    return float(text)


def _flag(variable: str) -> bool:
    value = os.environ.get(variable, "").strip()
    if value not in ("", "0", "1"):
        raise OptionError(f"{variable}={value!r} is not allowed; allowed: 0, 1")
    return value == "1"
