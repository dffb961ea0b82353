"""``convgen bench``: the layers of a suite against other libraries, side by side."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from convgen.bench.own import Choice
from convgen.bench.peers import check_peer_names
from convgen.bench.report import (
    as_json,
    markdown,
    ratio_cell,
    refusal_lines,
    roofline_cell,
    speed_cell,
    summary_lines,
)
from convgen.bench.results import LayerResult, Report
from convgen.bench.run import BenchOptions, Layer, run_benchmark
from convgen.cli.problems import read_source
from convgen.cli.report import Column, choice, print_line, print_table, progress
from convgen.driver import thread_count
from convgen.errors import MissingDependencyError, OptionError
from convgen.source_files import make_folder, unwritable
from convgen.tuning.space import Config

Plot = Callable[[Report, Path], None]


def run_bench(arguments: argparse.Namespace) -> int:
    """Measures, prints a table, writes PATH.json, PATH.md and PATH.png; returns 0. Raises what reading and measuring raise."""
    against = tuple(name for name in arguments.against.split(",") if name)
    check_peer_names(against)
    options = BenchOptions(
        against=against,
        threads=thread_count(arguments.threads),
        choice=Choice(arguments.strategy, arguments.tune),
        seconds=arguments.seconds,
        same_layout=arguments.same_layout,
        clock=arguments.clock,
    )
    name, layers = _layers(arguments)
    plot = _prepare(arguments.output)  # what cannot be written is better known before minutes of measuring
    with progress(f"measuring {name}", len(layers)) as advance:
        report = run_benchmark(name, layers, options, lambda layer: advance(layer.layer))
    _print(report)
    if plot is not None:
        _write(report, Path(arguments.output), plot)
    return 0


def _layers(arguments: argparse.Namespace) -> tuple[str, list[Layer]]:
    """The problems that the options select, in their direction and accuracy."""
    source = read_source(arguments.source, batch=arguments.batch, layout=arguments.layout, dtype=arguments.dtype)
    changes = {
        name: value
        for name, value in (("direction", arguments.direction), ("accuracy", _accuracy(arguments.accuracy)))
        if value is not None
    }
    if "direction" in changes:
        changes["epilogue"] = ()
    layers = [Layer(p.name or str(p.spec), p.count, p.spec.replace(**changes)) for p in source.problems]
    pattern = _pattern(arguments.layers)
    chosen = [layer for layer in layers if pattern.search(layer.name) or pattern.search(str(layer.spec))]
    return source.name, chosen[: arguments.limit]


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise OptionError(f"layers={text!r} is not a regular expression: {error}") from error


def _accuracy(text: str | None) -> str | float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _prepare(output: str | None) -> Plot | None:
    """Makes the output's folder and loads what draws; None without an output."""
    if output is None:
        return None
    make_folder(Path(output).absolute().parent)
    try:
        from convgen.bench.plot import save_plot
    except ImportError as error:
        raise MissingDependencyError(
            f"output={output!r} needs matplotlib, which is not installed: pip install matplotlib"
        ) from error
    return save_plot


def _write(report: Report, path: Path, plot: Plot) -> None:
    names = [path.with_name(path.name + suffix) for suffix in (".json", ".md", ".png")]
    try:
        names[0].write_text(as_json(report), encoding="utf-8")
        names[1].write_text(markdown(report), encoding="utf-8")
        plot(report, names[2])
    except OSError as error:
        raise unwritable(path, error) from error
    for name in names:
        print_line(f"written {name}")


def _print(report: Report) -> None:
    peers = report.setting.peers
    numbers = ("x", "convgen", *peers, "ratio", "roofline")
    columns: list[Column] = [("layer, problem", "left"), ("strategy, best peer", "left")]
    columns += [(name, "right") for name in numbers]
    for name, value in report.setting.facts:
        print_line(f"{name}: {value}")
    print_table(columns, [_row(layer, peers) for layer in report.layers])
    for line in (*summary_lines(report), *refusal_lines(report)):
        print_line(line)


def _row(layer: LayerResult, peers: tuple[str, ...]) -> tuple[str, ...]:
    best = f"\n{layer.best.peer} {layer.best.variant}" if layer.best else ""
    return (
        f"{layer.layer}\n{layer.problem}",
        choice(layer.strategy, Config.parse(layer.config)) + best,
        str(layer.count),
        speed_cell(layer, layer.own),
        *(speed_cell(layer, layer.of_peer(name)) for name in peers),
        ratio_cell(layer),
        roofline_cell(layer),
    )
