"""A benchmark's results as Markdown, as JSON, and as the cells of a terminal's table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict

from convgen.bench.results import LayerResult, Report, Summary, Timing


def markdown(report: Report) -> str:
    """The header, one row a distinct problem, the summary, and who is missing and why."""
    peers = report.setting.peers
    lines = [f"# {report.setting.suite}", ""]
    lines += [f"- {name}: {value}" for name, value in report.setting.facts]
    speeds = [f"{name} GF/s" for name in ("convgen", *peers)]
    header = ["layer", "×", "problem", "strategy, config", *speeds, "best peer", "ratio", "roofline", "error"]
    lines += ["", _row(header), _row(["---"] * len(header))]
    lines += [_row(_cells(layer, peers)) for layer in report.layers]
    lines += ["", *summary_lines(report), "", *_legend(), *_notes(report)]
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> str:
    """Everything, with the derived figures of each layer and the summary."""
    summary = report.summary()
    record = {
        "setting": asdict(report.setting),
        "missing": [asdict(refusal) for refusal in report.missing],
        "summary": None if summary is None else asdict(summary),
        "layers": [_record(layer) for layer in report.layers],
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def summary_lines(report: Report) -> list[str]:
    """What the ratios come to, in sentences."""
    summary = report.summary()
    if summary is None:
        return [f"Nothing to compare with: {len(report.layers)} problems."]
    packed = [layer.packing_seconds / layer.own.seconds for layer in report.layers if layer.packing_seconds is not None]
    packing = [f"Packing the weights takes {statistics.median(packed):.1%} of a call (median)."] if packed else []
    return [
        f"Best peer's time over convgen's: geometric mean {summary.geometric_mean:.2f}, worst {summary.worst:.2f} "
        f"({summary.worst_layer}), {_losses(summary)}.",
        f"The network's convolutions, repeated ones included, each by its best peer: {summary.network_ratio:.2f}.",
        *packing,
    ]


def refusal_lines(report: Report) -> list[str]:
    """One line for each peer that is missing, and for each reason that peers gave, with how many problems it holds for."""
    lines = [f"{refusal.peer} is missing: {refusal.reason}" for refusal in report.missing]
    reasons: dict[tuple[str, str], list[str]] = {}
    for layer in report.layers:
        for refusal in layer.refusals:
            reasons.setdefault((refusal.peer, refusal.reason), []).append(layer.layer)
    for (peer, reason), layers in reasons.items():
        lines.append(f"{peer} took no part in {len(layers)} of {len(report.layers)} ({layers[0]}): {reason}")
    return lines


def roofline_cell(layer: LayerResult) -> str:
    """The fraction of the roofline and what bounds it."""
    return f"{layer.roofline_fraction:.2f} {'copy' if layer.is_bound_by_memory else 'peak'}"


def ratio_cell(layer: LayerResult) -> str:
    """The best peer's time over convgen's."""
    return "-" if layer.ratio is None else f"{layer.ratio:.2f}"


def speed_cell(layer: LayerResult, timing: Timing | None) -> str:
    """GF/s with as many decimals as small figures need."""
    if timing is None:
        return "-"
    speed = layer.gflops(timing)
    return f"{speed:.1f}" if speed < 10 else f"{speed:.0f}"


def _cells(layer: LayerResult, peers: tuple[str, ...]) -> Iterator[str]:
    yield from (layer.layer, str(layer.count), layer.problem, ", ".join(filter(None, (layer.strategy, layer.config))))
    yield speed_cell(layer, layer.own)
    yield from (speed_cell(layer, layer.of_peer(name)) for name in peers)
    yield f"{layer.best.peer} {layer.best.variant}" if layer.best else "-"
    yield from (ratio_cell(layer), roofline_cell(layer), f"{layer.own.error:.1e}")


def _row(cells: Iterator[str] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _losses(summary: Summary) -> str:
    return f"{summary.losses} of {summary.compared} problems lost"


def _legend() -> list[str]:
    return [
        "×: how often the problem occurs; measured once. GF/s: of the direct algorithm, each library in its fastest form. "
        "ratio: the best peer's time over convgen's. roofline: the fraction of the measured multiply-add peak, or, for problems "
        "bound by memory, of the measured bandwidth of copying as many bytes. error: convgen's relative L2 error.",
    ]


def _notes(report: Report) -> list[str]:
    lines = refusal_lines(report)
    return ["", *(f"- {line}" for line in lines)] if lines else []


def _record(layer: LayerResult) -> dict[str, object]:
    best = layer.best
    derived = {
        "gflops": layer.gflops(layer.own),
        "best_peer": None if best is None else f"{best.peer} {best.variant}",
        "ratio": layer.ratio,
        "roofline_fraction": layer.roofline_fraction,
        "bound_by": "memory" if layer.is_bound_by_memory else "arithmetic",
    }
    return asdict(layer) | derived
