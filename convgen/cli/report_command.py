"""``convgen report``: what is chosen for a network, and why, as one page of HTML, and its figures as PNG."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from convgen.bench.roofline import Roofline
from convgen.cli.problems import Source, read_source
from convgen.cli.report import print_line, progress
from convgen.driver import thread_count
from convgen.errors import MissingDependencyError
from convgen.machine import Machine
from convgen.report.figures import Figure
from convgen.report.layers import Comparison, ReportedLayer, read_comparisons, report_layer
from convgen.report.page import figures_of, render_page
from convgen.source_files import make_folder, unwritable
from convgen.tuner.calibration import calibrated_roofline


def run_report(arguments: argparse.Namespace) -> int:
    """Writes the page and the figures; returns 0. Raises what reading, choosing and writing raise."""
    source = read_source(arguments.source, batch=arguments.batch, layout=arguments.layout, dtype=arguments.dtype)
    threads = thread_count(arguments.threads)
    comparisons = read_comparisons(Path(arguments.bench)) if arguments.bench else {}
    save = _saver(arguments.png)
    path = Path(arguments.output)
    make_folder(path.absolute().parent)
    machine = Machine.host()
    roofline = calibrated_roofline(machine, threads, source.problems[0].spec.dtype)
    layers = _layers(source, machine, threads, roofline, comparisons)
    page = render_page(source.name, layers, machine, threads, roofline, arguments.bench)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
    print_line(f"written {path}")
    if save is not None:
        _save_all(figures_of(layers, roofline), make_folder(arguments.png), save)
    return 0


def _layers(
    source: Source, machine: Machine, threads: int, roofline: Roofline, comparisons: dict[str, Comparison]
) -> list[ReportedLayer]:
    layers = []
    with progress(f"reporting {source.name}", len(source.problems)) as advance:
        for problem in source.problems:
            layers.append(
                report_layer(problem.name, problem.count, problem.spec, machine, threads, roofline, comparisons)
            )
            advance(problem.name)
    return layers


def _saver(folder: str | None) -> Callable[[Figure, Path], None] | None:
    if folder is None:
        return None
    try:
        from convgen.report.plot import save_figure
    except ImportError as error:
        raise MissingDependencyError(
            f"png={folder!r} needs matplotlib, which is not installed: pip install matplotlib"
        ) from error
    return save_figure


def _save_all(figures: dict[str, Figure], folder: Path, save: Callable[[Figure, Path], None]) -> None:
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        try:
            save(figure, path)
        except OSError as error:
            raise unwritable(path, error) from error
        print_line(f"written {path}")
