"""Results that convgen is shipped with: exports in ``tuning/defaults``, one for a kind of machine, named by its fingerprint.

They are read-only and asked after the user's own database. `make defaults` measures and writes one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

from convgen.tuning.exchange import read_records
from convgen.tuning.record import Record

DEFAULTS = Path(__file__).parent / "defaults"


def shipped_records(fingerprint: str) -> Mapping[str, tuple[Record, ...]]:
    """Returns problem → its records for a kind of machine; empty where none are shipped. Raises ExchangeError."""
    return _read(DEFAULTS / f"{fingerprint}.jsonl")


@functools.cache
def _read(path: Path) -> Mapping[str, tuple[Record, ...]]:
    if not path.is_file():
        return {}
    found: dict[str, tuple[Record, ...]] = {}
    for record in read_records(path):
        shipped = dataclasses.replace(record, origin="shipped", source=path.name)
        found[record.problem] = (*found.get(record.problem, ()), shipped)
    return found
