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
from convgen.tuning.rates import (
    forget_measurements,
    is_known,
    measurement_key,
    measurements_path,
    read_measurements,
)


def known_roofline(machine: Machine, threads: int, dtype: str) -> Roofline | None:
    """What has been measured; None if nothing has."""
    match read_measurements(measurements_path(machine)).get(measurement_key(threads, dtype)):
        case {"peak": float(peak), "copies": [*copies]} if copies:
            with contextlib.suppress(TypeError, ValueError):
                return Roofline(peak, tuple((int(nbytes), float(rate)) for nbytes, rate in copies))
    return None


def calibrated_roofline(machine: Machine, threads: int, dtype: str) -> Roofline:
    """What has been measured, else what is measured now, in about two seconds, and kept; raises CompileError."""
    found = known_roofline(machine, threads, dtype)
    if found is None:
        found = measure_roofline(machine, threads, dtype)
        path = measurements_path(machine)
        record = {"peak": found.peak, "copies": [list(pair) for pair in found.copies]}
        _write(path, {**read_measurements(path), measurement_key(threads, dtype): record})
        forget_measurements()
    return found


def calibrate(machine: Machine) -> None:
    """Measures what the cost model needs to know of a kind of core that it does not know, once."""
    if not is_known(machine):
        calibrated_roofline(machine, 1, "float32")


def _write(path: Path, content: dict[str, object]) -> None:
    """Replaces the file at once, so that others read all of it or what was there before."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")
        os.replace(name, path)
