"""The page: facts and figures in templates/report.html.j2, without any file beside it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from convgen import __version__
from convgen.bench.roofline import Roofline
from convgen.machine import Machine
from convgen.render import render
from convgen.report.figures import Figure, ratio_figure, roofline_figure, speedup_figure
from convgen.report.layers import ReportedLayer, totals


def figures_of(layers: Sequence[ReportedLayer], roofline: Roofline) -> dict[str, Figure]:
    """The figures that there is something to draw in, by a name that a file may have."""
    found = {
        "peers": ratio_figure(layers),
        "tuning": speedup_figure(layers),
        "roofline": roofline_figure(layers, roofline),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def render_page(
    title: str, layers: Sequence[ReportedLayer], machine: Machine, threads: int, roofline: Roofline, bench: str | None
) -> str:
    """The HTML text; ``bench`` names the file that the comparisons come from, if there is one. Raises CompileError."""
    return render(
        "report.html.j2",
        title=title,
        layers=layers,
        totals=totals(layers),
        machine=machine.describe(),
        threads=threads,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        version=__version__,
        bench=bench,
        figures=tuple(figures_of(layers, roofline).values()),
    )
