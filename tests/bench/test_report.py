"""Ratios and their summary from fixed numbers, and what is written of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from convgen.bench.report import as_json, markdown, refusal_lines, summary_lines
from convgen.bench.results import summarise
from tests.bench.samples import layer, report, timing


def test_the_best_peer_is_the_fastest_of_all_variants() -> None:
    won, lost, alone = report().layers
    assert won.best is not None
    assert (won.best.peer, won.best.variant, won.ratio) == ("torch", "channels_first", 2.0)
    assert lost.best is not None
    assert (lost.best.peer, lost.ratio) == ("jax", 0.5)
    assert alone.best is None
    assert alone.ratio is None


def test_summary_counts_problems_once_and_the_network_with_repetition() -> None:
    summary = report().summary()
    assert summary is not None
    assert summary.geometric_mean == pytest.approx(1.0)
    assert (summary.worst, summary.worst_layer, summary.losses, summary.compared) == (0.5, "lost", 1, 2)
    assert summary.network_ratio == pytest.approx((2 * 4 + 2) / (2 * 2 + 4))
    assert summarise([report().layers[2]]) is None


def test_roofline_fraction_takes_the_bound_that_binds() -> None:
    won, lost, _ = report().layers
    assert (won.roofline_fraction, won.is_bound_by_memory) == (0.5, False)
    assert (lost.roofline_fraction, lost.is_bound_by_memory) == (0.5, True)


def test_markdown_table() -> None:
    lines = markdown(report()).splitlines()
    assert lines[:4] == ["# tiny", "", "- date: 2000-01-01", "- threads: 1"]
    rows = [line for line in lines if line.startswith("|")]
    assert rows[0] == (
        "| layer | × | problem | strategy, config | convgen GF/s | torch GF/s | jax GF/s | best peer | ratio | roofline | error |"
    )
    problem = "mb1_ic4oc8_ih5oh5kh3ph1 | direct, pixels=6"
    assert rows[2:] == [
        f"| won | 2 | {problem} | 50 | 25 | 12 | torch channels_first | 2.00 | 0.50 peak | 2.0e-07 |",
        f"| lost | 1 | {problem} | 25 | 25 | 50 | jax channels_last | 0.50 | 0.50 copy | 2.0e-07 |",
        f"| alone | 1 | {problem} | 100 | - | - | - | - | 1.00 peak | 2.0e-07 |",
    ]
    assert "geometric mean 1.00, worst 0.50 (lost), 1 of 2 problems lost" in "\n".join(lines)


def test_who_is_missing_is_said() -> None:
    assert refusal_lines(report()) == [
        "openvino is missing: openvino cannot be imported",
        "torch took no part in 1 of 3 (alone): it has no such thing",
    ]
    assert all(line in markdown(report()) for line in refusal_lines(report()))


def test_json_holds_everything() -> None:
    record = json.loads(as_json(report()))
    assert record["summary"]["losses"] == 1
    assert [each["ratio"] for each in record["layers"]] == [2.0, 0.5, None]
    assert record["layers"][0]["best_peer"] == "torch channels_first"
    assert len(record["layers"][0]["peers"]) == 3
    assert record["setting"]["copies"] == [[1 << 15, 6e10], [1 << 26, 1e10]]


def test_what_packing_on_every_call_would_cost_is_said() -> None:
    assert summary_lines(report())[-1] == "Packing the weights takes 0.5% of a call (median)."
    kept = tuple(dataclasses.replace(each, packing_seconds=None) for each in report().layers)
    assert not any("Packing" in line for line in summary_lines(dataclasses.replace(report(), layers=kept)))


def test_nothing_to_compare_with() -> None:
    alone = dataclasses.replace(report(), layers=(layer("alone", 1e-3),))
    assert summary_lines(alone) == ["Nothing to compare with: 1 problems."]
    assert json.loads(as_json(alone))["summary"] is None


def test_plot_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from convgen.bench.plot import save_plot

    save_plot(report(), tmp_path / "tiny.png")
    assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")
    save_plot(dataclasses.replace(report(), layers=(layer("alone", 1e-3),)), tmp_path / "alone.png")


def test_small_figures_keep_a_decimal() -> None:
    slow = dataclasses.replace(report(), layers=(layer("slow", 1.0, timing("torch", 0.02)),))
    assert "| 0.1 | 5.0 | - |" in markdown(slow)
