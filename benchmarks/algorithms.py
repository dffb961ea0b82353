"""`python -m benchmarks.algorithms PATH`: the algorithms against each other by kernel size; PATH.json, PATH.md and PATH.png."""

from __future__ import annotations

import argparse
import datetime
import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from convgen.bench.cores import pinned
from convgen.machine import Machine
from convgen.oracle import reference
from convgen.planning import compile_spec
from convgen.runtime.workspace import aligned_empty
from convgen.spec import ConvSpec
from convgen.strategies.base import Strategy
from convgen.strategies.registry import applicable
from convgen.tuning.measure import measure
from convgen.tuning.space import Config
from convgen.verify import computes_the_same, normal_operands, relative_l2

KERNELS = (1, 3, 5, 7, 9, 11, 15)
FAMILIES = {
    "direct": ("direct",),
    "GEMM": ("pointwise", "im2col_gemm", "implicit_gemm"),
    "Winograd": ("winograd",),
    "FFT": ("fft",),
}
# Configurations of a strategy that are measured: its default, and those predicted to be the fastest.
TRIED = 2
SECONDS = 0.5


@dataclass(frozen=True)
class Point:
    """One family's fastest configuration for a kernel size, and its median time."""

    kernel: int
    family: str
    strategy: str
    config: str
    seconds: float
    error: float


def problem(kernel: int) -> ConvSpec:
    """64 to 64 channels on 56×56 pixels, as many results as pixels."""
    return ConvSpec(
        batch=1,
        in_channels=64,
        out_channels=64,
        spatial_size=(56, 56),
        kernel_size=kernel,
        padding=kernel // 2,
        layout="channels_last",
    )


def measured(kernel: int, machine: Machine) -> list[Point]:
    """The best of every family that applies, all timed in turn."""
    spec = problem(kernel)
    x, weight = normal_operands(spec, np.random.default_rng(0)).main
    source = aligned_empty(x.shape, x.dtype)
    source[...] = x
    expected = reference(spec, x, weight)
    calls: list[Callable[[], object]] = []
    points: list[Point] = []
    for family, names in FAMILIES.items():
        for strategy in (found for found in applicable(spec, machine) if found.name in names):
            for config in _promising(strategy, spec, machine):
                op = compile_spec(spec, strategy.name, 1, config=config)
                call = functools.partial(op, source, op.pack(weight), out=aligned_empty(spec.result_shape, x.dtype))
                result = call()
                error = relative_l2(result, expected)
                if not computes_the_same(error, spec):
                    raise SystemExit(f"{strategy.name} {config} is wrong for {spec}: relative L2 error {error:.1e}")
                calls.append(call)
                points.append(Point(kernel, family, strategy.name, str(config), 0.0, error))
    samples = measure(calls, budget=SECONDS * len(calls), rounds_min=5)
    timed = [Point(**{**asdict(p), "seconds": s.median}) for p, s in zip(points, samples, strict=True)]
    return [min((p for p in timed if p.family == family), key=lambda p: p.seconds) for family in _families(timed)]


def _promising(strategy: Strategy, spec: ConvSpec, machine: Machine) -> list[Config]:
    ranked = sorted(strategy.space(spec, machine), key=lambda c: strategy.predicted_seconds(spec, c, machine))
    return list(dict.fromkeys((strategy.default(spec, machine), *ranked)))[:TRIED]


def _families(points: list[Point]) -> list[str]:
    return list(dict.fromkeys(point.family for point in points))


def _rate(point: Point) -> float:
    """GF/s of the direct algorithm, whatever the algorithm."""
    return problem(point.kernel).flops / point.seconds / 1e9


def table(points: list[Point], facts: str) -> str:
    """Markdown: a row for each kernel size."""
    lines = [f"{facts}\n", f"| kernel | {' | '.join(FAMILIES)} | fastest |", "|---" * (len(FAMILIES) + 2) + "|"]
    for kernel in KERNELS:
        found = {p.family: p for p in points if p.kernel == kernel}
        best = min(found.values(), key=lambda p: p.seconds)
        cells = [f"{_rate(found[family]):.0f}" if family in found else "" for family in FAMILIES]
        lines.append(f"| {kernel}×{kernel} | {' | '.join(cells)} | {best.strategy}, {best.config} |")
    return "\n".join(lines) + "\n"


def draw(points: list[Point], path: Path) -> None:
    """Rates by kernel size, one line a family."""
    matplotlib.use("Agg")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for family in FAMILIES:
        mine = [p for p in points if p.family == family]
        axes.plot([p.kernel for p in mine], [_rate(p) for p in mine], marker="o", label=family)
    axes.set_yscale("log")
    axes.set_xticks(KERNELS)
    axes.set_xlabel("kernel size (k × k), 64 to 64 channels, 56 × 56 pixels, float32, one thread")
    axes.set_ylabel("GF/s of the direct algorithm")
    axes.legend()
    figure.savefig(path, dpi=110, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    path = parser.parse_args().path
    machine = Machine.host()
    points: list[Point] = []
    with pinned(1):
        for kernel in KERNELS:
            points += measured(kernel, machine)
            print(", ".join(f"{p.family} {_rate(p):.0f}" for p in points if p.kernel == kernel), f"GF/s at {kernel}")
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    facts = (
        f"GF/s of the direct algorithm, 64 to 64 channels, 56×56 pixels, float32, batch 1, channels_last, one thread, "
        f"accuracy fast, weights packed; the faster of {TRIED} configurations each; {machine.describe()}; {day}."
    )
    path.with_suffix(".json").write_text(json.dumps([asdict(p) for p in points], indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(table(points, facts), encoding="utf-8")
    draw(points, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
