"""The environment variables that steer convgen, read when asked for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from convgen.errors import OptionError

TUNE_MODES: tuple[str, ...] = ("on", "lookup", "off")
MAX_DEBUG_LEVEL = 5
# Levels of instruction sets, the highest first.
CPU_ISAS: tuple[str, ...] = ("amx", "avx512", "avx2", "generic")


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
    """CONVGEN_TUNE: "on" (default) measures when asked to, "lookup" only reads the database, "off" does neither."""
    value = os.environ.get("CONVGEN_TUNE") or "on"
    if value not in TUNE_MODES:
        raise OptionError(f"CONVGEN_TUNE={value!r} is not allowed; allowed: {', '.join(TUNE_MODES)}")
    return value


def max_cpu_isa() -> str:
    """CONVGEN_MAX_CPU_ISA: the most that kernels may use, of CPU_ISAS; "" for all that the machine has."""
    value = os.environ.get("CONVGEN_MAX_CPU_ISA", "").strip()
    if value and value not in CPU_ISAS:
        raise OptionError(f"CONVGEN_MAX_CPU_ISA={value!r} is not allowed; allowed: {', '.join(CPU_ISAS)}")
    return value


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


def _integer(variable: str, default: int, allowed: str) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise OptionError(f"{variable}={text!r} is not allowed; allowed: {allowed}")
    return int(text)
