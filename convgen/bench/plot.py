"""A benchmark's picture: each layer against the best peer, and the measured roofline with the layers on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from convgen.bench.results import Report

_WIN, _LOSS, _PEER, _ROOF = "#2a7f62", "#b5483a", "#8a8a8a", "#333333"
_INCHES_A_LAYER = 0.24


def save_plot(report: Report, path: Path) -> None:
    """Writes the picture to a PNG file; raises OSError."""
    matplotlib.use("Agg")
    height = max(5.0, 1.5 + _INCHES_A_LAYER * len(report.layers))
    figure = Figure(figsize=(14, height), layout="constrained")
    bars, roof = figure.subplots(1, 2)
    _draw_bars(bars, report)
    _draw_roofline(roof, report)
    facts = dict(report.setting.facts)
    figure.suptitle(f"{report.setting.suite}: {facts.get('problems', '')}, threads {report.setting.threads}")
    figure.savefig(path, dpi=110, format="png")


def _draw_bars(axes: Any, report: Report) -> None:
    layers = [layer for layer in report.layers if layer.ratio is not None]
    ratios = [layer.ratio or 0.0 for layer in layers]
    axes.barh(range(len(layers)), ratios, color=[_WIN if ratio >= 1 else _LOSS for ratio in ratios])
    for position, layer in enumerate(layers):
        axes.annotate(
            f" {layer.ratio:.2f} {layer.best.peer if layer.best else ''}",
            (layer.ratio or 0, position),
            va="center",
            fontsize=7,
        )
    axes.axvline(1, color=_ROOF, linewidth=1)
    axes.set_yticks(range(len(layers)), [layer.layer for layer in layers], fontsize=7)
    axes.set_ylim(max(1, len(layers)) - 0.5, -0.5)
    axes.set_xlim(0, 1.25 * max(ratios, default=1.0))
    axes.set_xlabel("best peer's time / convgen's")
    summary = report.summary()
    if summary is not None:
        axes.set_title(f"geometric mean {summary.geometric_mean:.2f}, worst {summary.worst:.2f}", fontsize=10)


def _draw_roofline(axes: Any, report: Report) -> None:
    """Both axes logarithmic. The slanted roofs are the fastest copy, which fits a cache, and the largest, which does not."""
    setting = report.setting
    points = [(layer, layer.flops / max(1, layer.bytes_moved)) for layer in report.layers]
    intensities = [intensity for _, intensity in points] or [1.0]
    reach = np.geomspace(min(0.5, *intensities) / 2, 2 * max(100.0, *intensities), 200)
    rates = [rate for _, rate in setting.copies]
    for rate, style, name in ((max(rates), "--", "cache"), (rates[-1], "-", "memory")):
        roof = np.minimum(setting.peak, rate * reach) / 1e9
        axes.plot(reach, roof, style, color=_ROOF, linewidth=1, label=f"{name}: {rate / 1e9:.1f} GB/s")
    compared = [(layer, at) for layer, at in points if layer.best is not None]
    axes.scatter(
        [at for _, at in compared],
        [layer.gflops(layer.best) for layer, _ in compared if layer.best is not None],
        marker="x", s=18, color=_PEER, linewidths=1, label="best peer",
    )  # fmt: skip
    axes.scatter(
        [at for _, at in points], [layer.gflops(layer.own) for layer, _ in points], s=18, color=_WIN, label="convgen"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("floating-point operations of the direct algorithm per byte moved")
    axes.set_ylabel("GF/s of the direct algorithm")
    axes.set_title(f"measured roofline: peak {setting.peak / 1e9:.0f} GF/s", fontsize=10)
    axes.legend(fontsize=7, loc="lower right")
