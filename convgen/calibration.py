"""What was measured of a machine itself: its roofline, once for a number of threads, kept beside the database.

A file for each machine fingerprint holds, by threads and data type, the peak and the bandwidths by size that
``bench/roofline.py`` measures. What cannot be read counts as absent, what cannot be written is measured again.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from convgen.bench.roofline import Roofline, measure_roofline
from convgen.machine import Machine
from convgen.options import cache_dir


def calibration_path(machine: Machine) -> Path:
    """The file of a machine."""
    return cache_dir() / "machines" / f"{machine.fingerprint()}.json"


def known_roofline(machine: Machine, threads: int, dtype: str) -> Roofline | None:
    """What has been measured; None if nothing has."""
    match _read(calibration_path(machine)).get(_key(threads, dtype)):
        case {"peak": float(peak), "copies": [*copies]} if copies:
            with contextlib.suppress(TypeError, ValueError):
                return Roofline(peak, tuple((int(nbytes), float(rate)) for nbytes, rate in copies))
    return None


def calibrated_roofline(machine: Machine, threads: int, dtype: str) -> Roofline:
    """What has been measured, else what is measured now, in about two seconds, and kept; raises CompileError."""
    found = known_roofline(machine, threads, dtype)
    if found is None:
        found = measure_roofline(machine, threads, dtype)
        path = calibration_path(machine)
        record = {"peak": found.peak, "copies": [list(pair) for pair in found.copies]}
        _write(path, {**_read(path), _key(threads, dtype): record})
    return found


def _key(threads: int, dtype: str) -> str:
    return f"{dtype}, {threads} threads"


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: dict[str, object]) -> None:
    """Replaces the file at once, so that others read all of it or what was there before."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")
        os.replace(name, path)
