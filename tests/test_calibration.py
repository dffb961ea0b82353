"""A machine is measured once, and what is kept is what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from convgen import calibration
from convgen.bench.roofline import Roofline
from convgen.calibration import calibrated_roofline, calibration_path, known_roofline
from convgen.machine import Machine

HOST = Machine.host()
ROOFLINE = Roofline(1e11, ((1 << 15, 2e11), (1 << 26, 1e10)))


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """What was measured, in a cache of its own."""
    calls: list[tuple[int, str]] = []

    def measure(machine: Machine, threads: int, dtype: str) -> Roofline:
        calls.append((threads, dtype))
        return ROOFLINE

    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(calibration, "measure_roofline", measure)
    return calls


def test_each_setting_is_measured_once(measured: list[tuple[int, str]]) -> None:
    assert known_roofline(HOST, 1, "float32") is None
    for threads, dtype in ((1, "float32"), (2, "float32"), (1, "int8"), (1, "float32"), (2, "float32")):
        assert calibrated_roofline(HOST, threads, dtype) == ROOFLINE
        assert known_roofline(HOST, threads, dtype) == ROOFLINE
    assert measured == [(1, "float32"), (2, "float32"), (1, "int8")]


@pytest.mark.parametrize("content", ["", "[]", '{"float32, 1 threads": 3}', '{"float32, 1 threads": {"peak": 1.0}}'])
def test_a_damaged_file_is_as_none(content: str, measured: list[tuple[int, str]]) -> None:
    path = calibration_path(HOST)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert known_roofline(HOST, 1, "float32") is None
    assert calibrated_roofline(HOST, 1, "float32") == ROOFLINE
    assert known_roofline(HOST, 1, "float32") == ROOFLINE


def test_where_nothing_can_be_written_it_is_measured_again(
    measured: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVGEN_CACHE_DIR", "/dev/null/below")
    for _ in range(2):
        assert calibrated_roofline(HOST, 1, "float32") == ROOFLINE
    assert len(measured) == 2
