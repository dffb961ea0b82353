"""The figures of a report as PNG, by matplotlib, from the same shapes that the page draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from convgen.report.figures import Figure

_COLOURS = {"win": "#2a7f62", "loss": "#b5483a", "roof": "#555555", "own": "#2a7f62", "peer": "#8a8a8a"}
_POINTS_AN_INCH = 96.0


def save_figure(figure: Figure, path: Path) -> None:
    """Writes one PNG file; raises OSError."""
    matplotlib.use("Agg")
    canvas = Canvas(figsize=(figure.width / _POINTS_AN_INCH, (figure.height + 24) / _POINTS_AN_INCH))
    axes = canvas.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, figure.width)
    # Downwards, as on the page; the title has its place above.
    axes.set_ylim(figure.height, -24)
    axes.axis("off")
    _draw(axes, figure)
    canvas.savefig(path, dpi=2 * _POINTS_AN_INCH, format="png")


def _draw(axes: Any, figure: Figure) -> None:
    left, top, right, bottom = figure.frame
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="#cccccc"))
    axes.text(left, -6, figure.title, fontsize=10, weight="bold")
    axes.text((left + right) / 2, bottom + 36, figure.x_label, ha="center", fontsize=8)
    axes.text(left - 50, (top + bottom) / 2, figure.y_label, va="center", rotation=90, fontsize=8)
    for tick in figure.ticks:
        if tick.along == "x":
            axes.plot([tick.at, tick.at], [top, bottom], color="#eeeeee", linewidth=0.8, zorder=0)
            axes.text(tick.at, bottom + 14, tick.label, ha="center", fontsize=7)
        else:
            axes.plot([left, right], [tick.at, tick.at], color="#eeeeee", linewidth=0.8, zorder=0)
            axes.text(left - 5, tick.at, tick.label, ha="right", va="center", fontsize=7)
    for bar in figure.bars:
        axes.add_patch(Rectangle((bar.x, bar.y), bar.width, bar.height, color=_COLOURS[bar.kind]))
        middle = bar.y + bar.height / 2
        axes.text(bar.x - 5, middle, bar.label, ha="right", va="center", fontsize=7)
        axes.text(bar.x + bar.width + 4, middle, bar.value, va="center", fontsize=7)
    for line in figure.lines:
        corners = [tuple(map(float, point.split(","))) for point in line.points.split()]
        axes.plot(*zip(*corners, strict=True), color=_COLOURS[line.kind], linewidth=1)
        axes.text(corners[0][0] + 6, corners[0][1] - 6, line.label, fontsize=7, color=_COLOURS[line.kind])
    for dot in figure.dots:
        axes.plot([dot.x], [dot.y], "o", color=_COLOURS[dot.kind], markersize=4)
