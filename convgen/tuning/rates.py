"""How fast processors are, as far as choosing between configurations needs to know: measured once for each kind of core.

Of a kind that is not known the peak and the bandwidths count that ``tuner/calibration.py`` has measured, if it has, and the rest
is as of the kind that is most like it.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from convgen.machine import Machine
from convgen.options import cache_dir, is_deterministic


@dataclass(frozen=True, kw_only=True)
class Rates:
    """One core's speed; only ratios matter.

    ``clock`` is the clock in Hz that it keeps under wide vectors. Bytes a second, read plus written: ``cache`` within the
    second-level cache, ``last`` within the last one, ``memory`` beyond it; ``stream`` for weights of matrix products that
    come from beyond the second-level cache, beside their traffic, because few loads are in flight at a time (``short_rows``
    is how much more those in rows of a few vectors cost than in long ones); ``shared`` for the weights that a bilinear
    algorithm reads from there. ``line`` is cycles for one vector from the second-level cache; ``scattered`` the time to read
    vectors far apart from each other over that of whole rows; ``transform`` measured cycles of a transform over those that
    its instructions need: chains of few values, tests and addresses.
    """

    clock: float
    cache: float
    last: float
    memory: float
    stream: float
    short_rows: float
    shared: float
    line: float
    scattered: float
    transform: float


# By LLVM's name of the core.
_KNOWN = {
    # A server core of Zen 5 with 1 MiB of second-level cache, 32 MiB shared.
    "znver5": Rates(
        clock=4.1e9,
        cache=250e9,
        last=105e9,
        memory=65e9,
        stream=200e9,
        short_rows=0.1,
        shared=70e9,
        line=2.0,
        scattered=1.0,
        transform=1.0,
    ),
    # A server core of Zen 4 with 1 MiB of second-level cache, 32 MiB shared: a wide multiply-add takes both ports, as if the
    # clock were half of what it is.
    "znver4": Rates(
        clock=1.85e9,
        cache=109e9,
        last=90e9,
        memory=40e9,
        stream=170e9,
        short_rows=0.1,
        shared=100e9,
        line=1.0,
        scattered=1.0,
        transform=1.0,
    ),
    # A server core of Zen 3, without AVX-512, with 512 KiB of second-level cache, 16 MiB shared.
    "znver3": Rates(
        clock=3.3e9,
        cache=94e9,
        last=71e9,
        memory=37e9,
        stream=140e9,
        short_rows=0.1,
        shared=50e9,
        line=1.0,
        scattered=1.0,
        transform=1.0,
    ),
}
# A server core of Skylake with 1 MiB of second-level cache, whose shared cache lies behind a mesh.
_OTHERS = Rates(
    clock=2.3e9,
    cache=68e9,
    last=29.5e9,
    memory=29.5e9,
    stream=20e9,
    short_rows=0.55,
    shared=10e9,
    line=3.0,
    scattered=2.0,
    transform=4.0,
)


# Multiply-adds that a core begins in a cycle, and what each counts.
_FMA_PORTS, _FLOPS = 2, 2


def rates_of(machine: Machine) -> Rates:
    """The rates of a machine's core, whatever the feature level it is lowered to."""
    if machine.core in _KNOWN:
        return _KNOWN[machine.core]
    return _OTHERS if is_deterministic() else _measured(machine) or _OTHERS


def is_known(machine: Machine) -> bool:
    """Whether a machine's rates need no calibration."""
    return machine.core in _KNOWN


def measured_rates(machine: Machine, peak: float, copies: Sequence[tuple[int, float]]) -> Rates:
    """The rates of one thread that computes ``peak`` float32 operations a second; ``copies`` are pairs of bytes (read and
    written) and bytes a second, in ascending order of size."""
    lanes = machine.vector_bytes // 4
    clock = peak / (_FLOPS * _FMA_PORTS * lanes)
    cache, last = (_bandwidth(copies, size / 2) for size in (machine.l2_bytes, machine.l3_bytes))
    like = min((*_KNOWN.values(), _OTHERS), key=lambda rates: abs(math.log(rates.last / rates.clock / (last / clock))))
    scale = last / like.last
    return replace(
        like,
        clock=clock,
        cache=cache,
        last=last,
        memory=copies[-1][1],
        stream=like.stream * scale,
        shared=like.shared * scale,
    )


def measurements_path(machine: Machine) -> Path:
    """The file of what was measured of a machine itself."""
    return cache_dir() / "machines" / f"{machine.fingerprint()}.json"


def measurement_key(threads: int, dtype: str) -> str:
    """The name of a measurement in that file."""
    return f"{dtype}, {threads} threads"


def read_measurements(path: Path) -> dict[str, object]:
    """What the file holds; nothing where it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def forget_measurements() -> None:
    """Rates are read again: something was measured."""
    _measured.cache_clear()


@functools.cache
def _measured(machine: Machine) -> Rates | None:
    """The rates by the file; None if it does not have them."""
    match read_measurements(measurements_path(machine)).get(measurement_key(1, "float32")):
        case {"peak": float(peak), "copies": [*copies]} if peak > 0 and copies:
            try:
                return measured_rates(machine, peak, [(int(nbytes), float(rate)) for nbytes, rate in copies])
            except (TypeError, ValueError, ZeroDivisionError):
                return None
        case _:
            return None


def _bandwidth(copies: Sequence[tuple[int, float]], nbytes: float) -> float:
    """That of the largest copy that is no larger, or of the smallest."""
    return next((rate for size, rate in reversed(copies) if size <= nbytes), copies[0][1])
