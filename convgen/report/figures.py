"""The figures of a report as shapes with coordinates, which a template only has to draw."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from convgen.bench.roofline import Roofline
from convgen.report.layers import ReportedLayer

Kind = Literal["win", "loss", "roof", "own", "peer"]

_WIDTH = 860.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 190.0, 70.0, 14.0, 44.0
_ROW = 18.0
_ROOF_HEIGHT = 430.0
_ROOF_LEFT = 64.0


@dataclass(frozen=True)
class Bar:
    """A horizontal bar with a label before and a value behind it; ``title`` is shown to a pointer."""

    x: float
    y: float
    width: float
    height: float
    label: str
    value: str
    title: str
    kind: Kind


@dataclass(frozen=True)
class Dot:
    """A point."""

    x: float
    y: float
    title: str
    kind: Kind


@dataclass(frozen=True)
class Line:
    """Corners of a line, and its label at the last."""

    points: str
    label: str
    kind: Kind


@dataclass(frozen=True)
class Tick:
    """A place on an axis and its label; ``along`` is the axis."""

    along: Literal["x", "y"]
    at: float
    label: str


@dataclass(frozen=True)
class Figure:
    """A drawing of a size, with the frame of its axes."""

    title: str
    width: float
    height: float
    frame: tuple[float, float, float, float]
    x_label: str
    y_label: str
    ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()
    dots: tuple[Dot, ...] = ()


@dataclass(frozen=True)
class _Scale:
    """Values from ``low`` to ``high`` on the way from ``begin`` to ``end``; logarithmic where asked for."""

    low: float
    high: float
    begin: float
    end: float
    is_logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.is_logarithmic else v for v in (self.low, self.high, value))
        return round(self.begin + (self.end - self.begin) * (at - low) / (high - low), 1)


def ratio_figure(layers: Sequence[ReportedLayer]) -> Figure | None:
    """The best peer's time over convgen's, a bar a layer; None where nothing was compared."""
    compared = [(layer, layer.comparison) for layer in layers if layer.comparison is not None]
    if not compared:
        return None
    values = [
        (layer.name, found.ratio, f"{found.peers[0].name} takes {1e3 * found.peers[0].seconds:.4f} ms")
        for layer, found in compared
    ]
    return _bars("Best peer's time over convgen's", "above 1 convgen is faster", values)


def speedup_figure(layers: Sequence[ReportedLayer]) -> Figure | None:
    """What tuning brought over the heuristic's choice, a bar a layer; None where nothing was measured."""
    values = [
        (layer.name, record.baseline_seconds / record.seconds, f"{1e3 * record.seconds:.4f} ms")
        for layer in layers
        if (record := layer.explanation.record) is not None and record.seconds and record.baseline_seconds
    ]
    return _bars("The heuristic's time over the tuned one", "1: the heuristic was right", values) if values else None


def roofline_figure(layers: Sequence[ReportedLayer], roofline: Roofline) -> Figure:
    """Every layer's rate over its operations a byte, under the roofs of the fastest copy and of memory."""
    points = [(layer.name, layer.position) for layer in layers if layer.position is not None and layer.position.rate]
    intensities = [position.intensity for _, position in points if position.intensity]
    low, high = min([0.5, *intensities]) / 2, 2 * max([100.0, *intensities])
    memory, cache = roofline.copies[-1][1], max(rate for _, rate in roofline.copies)
    rates = [position.rate / 1e9 for _, position in points]
    top = 2 * max([roofline.peak / 1e9, *rates])
    bottom = min([memory * low / 1e9, *rates]) / 2
    frame = (_ROOF_LEFT, _TOP, _WIDTH - _RIGHT, _ROOF_HEIGHT - _BOTTOM)
    x = _Scale(low, high, frame[0], frame[2], is_logarithmic=True)
    y = _Scale(bottom, top, frame[3], frame[1], is_logarithmic=True)
    lines = [
        _roof(f"{name} {rate / 1e9:.0f} GB/s", rate, roofline.peak, x, y)
        for name, rate in (("memory", memory), ("cache", cache))
    ]
    dots = [
        Dot(x(place.intensity), y(place.rate / 1e9), f"{name}: {place.rate / 1e9:.0f} GF/s", "own")
        for name, place in points
        if place.intensity
    ]
    ticks = [Tick("x", x(value), f"{value:g}") for value in _decades(low, high)]
    ticks += [Tick("y", y(value), f"{value:g}") for value in _decades(bottom, top)]
    return Figure(
        f"Roofline: peak {roofline.peak / 1e9:.0f} GF/s",
        _WIDTH,
        _ROOF_HEIGHT,
        frame,
        "floating-point operations of the direct algorithm for each byte moved",
        "GF/s",
        tuple(ticks),
        lines=tuple(lines),
        dots=tuple(dots),
    )


def _roof(label: str, rate: float, peak: float, x: _Scale, y: _Scale) -> Line:
    """From where the bandwidth's slope leaves the frame to the peak and along it."""
    left = max(x.low, y.low * 1e9 / rate)
    ridge = min(max(peak / rate, left), x.high)
    corners = [(left, left * rate), (ridge, min(peak, ridge * rate)), (x.high, min(peak, x.high * rate))]
    return Line(" ".join(f"{x(at)},{y(value / 1e9)}" for at, value in corners), label, "roof")


def _bars(title: str, x_label: str, values: Sequence[tuple[str, float, str]]) -> Figure:
    height = _TOP + _ROW * len(values) + _BOTTOM
    frame = (_LEFT, _TOP, _WIDTH - _RIGHT, height - _BOTTOM)
    scale = _Scale(0.0, 1.05 * max(1.0, *(value for _, value, _ in values)), frame[0], frame[2])
    bars = tuple(
        Bar(
            frame[0],
            _TOP + _ROW * place + 2,
            round(scale(value) - frame[0], 1),
            _ROW - 4,
            name,
            f"{value:.2f}",
            told,
            "win" if value >= 1 else "loss",
        )
        for place, (name, value, told) in enumerate(values)
    )
    ticks = tuple(Tick("x", scale(value), f"{value:g}") for value in _steps(scale.high))
    one = Line(f"{scale(1.0)},{frame[1]} {scale(1.0)},{frame[3]}", "", "roof")
    return Figure(title, _WIDTH, height, frame, x_label, "", ticks, bars, (one,))


def _decades(low: float, high: float) -> Iterator[float]:
    """Powers of ten within bounds."""
    for exponent in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1):
        yield 10.0**exponent


def _steps(high: float) -> Iterator[float]:
    """Up to eight round steps from 0 on."""
    step = next(s for s in (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, math.inf) if high / s <= 8)
    value = 0.0
    while value <= high:
        yield value
        value += step
