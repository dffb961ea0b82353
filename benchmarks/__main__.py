"""`python -m benchmarks SUITE`: convgen's layers against PyTorch's, interleaved in one process.

Weights are packed beforehand on convgen's side and in channels_last memory format on PyTorch's; times are medians of rounds in
which every contender runs once. A ratio above 1 means that convgen is faster.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from convgen.choices import TunedPlan
from convgen.machine import Machine
from convgen.operator import Array, CompiledConv
from convgen.planning import compile_spec
from convgen.spec import ConvSpec
from convgen.suites import suite, suite_names
from convgen.tuner import tune
from convgen.tuning.measure import measure


@dataclass(frozen=True)
class Row:
    """One layer: medians in seconds, and PyTorch's over convgen's."""

    layer: str
    problem: str
    config: str
    heuristic: float
    tuned: float | None
    torch: float
    gflop: float

    @property
    def ratio(self) -> float:
        return self.torch / (self.heuristic if self.tuned is None else self.tuned)


def torch_call(spec: ConvSpec, image: Array, weight: Array, threads: int) -> Callable[[], object]:
    """PyTorch's convolution on the same numbers, everything in channels_last."""
    import torch

    torch.set_num_threads(threads)
    function = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}[spec.ndim]
    x = torch.from_numpy(image).movedim(-1, 1)
    w = torch.from_numpy(weight)
    if spec.ndim == 2:
        w = w.to(memory_format=torch.channels_last)

    def call() -> object:
        with torch.inference_mode():
            return function(
                x,
                w,
                stride=spec.stride,
                padding=[lo for lo, _ in spec.padding],
                dilation=spec.dilation,
                groups=spec.groups,
            )

    return call


def convgen_call(op: CompiledConv, image: Array, weight: Array) -> Callable[[], object]:
    packed = op.pack(weight)
    return lambda: op(image, packed)


def measure_layer(name: str, spec: ConvSpec, threads: int, tuned: bool, seconds: float) -> Row:
    rng = np.random.default_rng(0)
    image = rng.standard_normal(spec.input_shape).astype(np.float32)
    weight = rng.standard_normal(spec.weight_shape).astype(np.float32)
    plain = compile_spec(spec, strategy="direct", threads=threads)
    calls = [torch_call(spec, image, weight, threads), convgen_call(plain, image, weight)]
    config = str(plain.plan.config)
    if tuned:
        found = tune(spec, seconds, threads=threads)
        assert isinstance(found, TunedPlan)
        best = compile_spec(spec, strategy=found.plan.strategy, config=found.plan.config, threads=threads)
        calls.append(convgen_call(best, image, weight))
        config = str(found.plan.config)
    medians = [sample.median for sample in measure(calls, budget=1.0, rounds_min=15)]
    return Row(name, str(spec), config, medians[1], medians[2] if tuned else None, medians[0], spec.flops / 1e9)


def is_selected(spec: ConvSpec, which: str) -> bool:
    """``dense1``: pointwise and 3×3 layers of stride 1, those that vendor libraries do best."""
    if spec.transposed:
        return False
    return which == "all" or (set(spec.stride) == {1} and set(spec.kernel_size) in ({1}, {3}) and spec.groups == 1)


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def table(rows: list[Row], threads: int) -> str:
    """The rows as Markdown."""
    lines = [
        f"{Machine.host().describe()}; {threads} thread(s); Python {platform.python_version()}, "
        f"numba {version('numba')}, torch {version('torch')}",
        "",
        "| layer | problem | config | torch GF/s | heuristic GF/s | tuned GF/s | torch / convgen |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        tuned = "–" if row.tuned is None else f"{row.gflop / row.tuned:.0f}"
        lines.append(
            f"| {row.layer} | {row.problem} | {row.config} | {row.gflop / row.torch:.0f} | {row.gflop / row.heuristic:.0f} "
            f"| {tuned} | {row.ratio:.2f} |"
        )
    ratios = [row.ratio for row in rows]
    lines.append(f"\nGeometric mean {geometric_mean(ratios):.2f}, worst {min(ratios):.2f}.")
    losses = [row.tuned / row.heuristic for row in rows if row.tuned is not None]
    if losses:
        lines.append(
            f"The heuristic's choice reaches {geometric_mean(losses):.2f} of the tuned one's speed in the geometric mean, "
            f"{min(losses):.2f} at worst."
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suite", choices=suite_names())
    parser.add_argument("--layers", choices=("dense1", "all"), default="dense1")
    parser.add_argument("--against", default="torch", choices=("torch",))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--tuned", action="store_true", help="tune every layer first")
    parser.add_argument("--seconds", type=float, default=15.0, help="tuning budget of a layer")
    parser.add_argument("-o", "--output", type=Path, help="write PATH.md and PATH.json")
    options = parser.parse_args()
    rows = []
    for layer in suite(options.suite, batch=options.batch, layout="channels_last"):
        if is_selected(layer.spec, options.layers):
            rows.append(measure_layer(layer.name, layer.spec, options.threads, options.tuned, options.seconds))
    text = table(rows, options.threads)
    print(text)
    if options.output is not None:
        options.output.with_suffix(".md").write_text(text, encoding="utf-8")
        records = [asdict(row) | {"ratio": row.ratio} for row in rows]
        options.output.with_suffix(".json").write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
