"""A machine is measured once, and what is kept is what was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from convgen.bench.roofline import Roofline
from convgen.machine import Machine
from convgen.tuner import calibration
from convgen.tuner.calibration import calibrate, calibrated_roofline, known_roofline
from convgen.tuning import rates
from convgen.tuning.rates import forget_measurements, measured_rates, measurements_path, rates_of

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
    path = measurements_path(HOST)
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


@pytest.fixture
def unknown(measured: list[tuple[int, str]]) -> Iterator[Machine]:
    """A machine of a kind that nobody knows."""
    forget_measurements()
    yield dataclasses.replace(HOST, core="of a new kind")
    forget_measurements()


def test_an_unknown_kind_is_calibrated_once_and_the_cost_model_takes_it(
    unknown: Machine, measured: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rates_of(unknown)
    for _ in range(2):
        calibrate(unknown)
    assert measured == [(1, "float32")]
    after = rates_of(unknown)
    assert after == measured_rates(unknown, ROOFLINE.peak, ROOFLINE.copies) != before
    assert after.clock == pytest.approx(1e11 / (4 * unknown.vector_bytes // 4))
    assert (after.cache, after.memory) == (2e11, 1e10)
    monkeypatch.setenv("CONVGEN_DETERMINISTIC", "1")
    assert rates_of(unknown) == before


def test_a_known_kind_needs_no_calibration(measured: list[tuple[int, str]]) -> None:
    known = next(iter(rates._KNOWN))
    calibrate(dataclasses.replace(HOST, core=known))
    assert measured == []


def test_what_is_measured_of_a_known_kind_gives_back_what_is_known_of_it() -> None:
    """Rates that were measured of one kind are taken to be most like it."""
    for kind in (*rates._KNOWN.values(), rates._OTHERS):
        peak = kind.clock * 4 * (HOST.vector_bytes // 4)
        copies = ((1 << 10, kind.cache), (HOST.l2_bytes // 2 + 1, kind.last), (HOST.l3_bytes, kind.memory))
        assert measured_rates(HOST, peak, copies) == kind
