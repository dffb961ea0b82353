"""The measured machine: figures that any machine exceeds, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from convgen.bench import roofline
from convgen.bench.cores import choose
from convgen.bench.roofline import Roofline, measure_roofline
from convgen.machine import Machine, machine_named
from convgen.runtime import host_lock
from convgen.spec import ConvSpec


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int8"])
@pytest.mark.parametrize("machine", [Machine.host(), machine_named("generic")])
def test_measurement_is_plausible(machine: Machine, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "_PEAK_SECONDS", 0.01)
    monkeypatch.setattr(roofline, "_COPY_SECONDS", 0.001)
    monkeypatch.setattr(roofline, "_BEYOND_CACHES", 0)
    measured = measure_roofline(machine, 1, dtype)
    assert 1e8 < measured.peak < 1e13
    assert [size for size, _ in measured.copies] == [32 << 10]
    assert all(1e8 < rate < 1e13 for _, rate in measured.copies)


def test_nobody_else_measures_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "_PEAK_SECONDS", 0.0)
    monkeypatch.setattr(roofline, "_COPY_SECONDS", 0.0)
    monkeypatch.setattr(roofline, "_BEYOND_CACHES", 0)
    fastest = roofline._fastest
    held: list[bool] = []

    def observed(function: Callable[[], object], budget: float) -> float:
        held.append(host_lock._threads[0].locked())
        return min(1.0, fastest(function, budget))

    monkeypatch.setattr(roofline, "_fastest", observed)
    measure_roofline(Machine.host(), 1, "float32")
    assert held == [True] * len(held) != []


def test_bandwidth_lies_between_the_measured_sizes() -> None:
    roof = Roofline(1e11, ((1 << 10, 8e10), (1 << 12, 2e10)))
    assert roof.bandwidth(1 << 10) == roof.bandwidth(1) == 8e10
    assert roof.bandwidth(1 << 11) == pytest.approx(5e10)
    assert roof.bandwidth(1 << 30) == 2e10


def test_times_at_the_roof() -> None:
    roof = Roofline(1e11, ((1 << 10, 8e10), (1 << 12, 2e10)))
    spec = ConvSpec(batch=1, in_channels=16, out_channels=16, spatial_size=(8, 8), kernel_size=1)
    assert roof.flop_seconds(spec) == 2 * 16 * 16 * 64 / 1e11
    assert roof.byte_seconds(spec) == (2 * 16 * 64 + 256) * 4 / 2e10


def test_two_measurements_keep_the_better_figures() -> None:
    first = Roofline(1e11, ((1 << 10, 8e10), (1 << 12, 1e10)))
    second = Roofline(2e11, ((1 << 10, 7e10), (1 << 12, 2e10)))
    assert first.merged(second) == Roofline(2e11, ((1 << 10, 8e10), (1 << 12, 2e10)))


def test_first_processors_of_cores_come_first(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert choose({0, 1, 2, 3}, 1, tmp_path) == {1}
    assert choose({0, 1, 2, 3}, 2, tmp_path) == {0, 1}
    assert choose({0, 1, 2, 3}, 3, tmp_path) == {0, 1, 3}
    assert choose({4, 5}, 1, tmp_path) == {5}  # a system that does not say
