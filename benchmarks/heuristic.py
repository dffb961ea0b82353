"""`python -m benchmarks.heuristic PATH`: the untuned choice against the tuned one over all suites; PATH.json and PATH.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import convgen
from convgen.choices import TunedPlan
from convgen.descriptor import format_descriptor
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.suites import suite, suite_names


@dataclass(frozen=True)
class Problem:
    """A problem of a suite: the tuned choice, its median seconds, and those of the heuristic's choice in the same run."""

    suite: str
    problem: str
    choice: str
    seconds: float
    untuned_seconds: float

    @property
    def ratio(self) -> float:
        """The untuned choice's time over the tuned one's."""
        return self.untuned_seconds / self.seconds


def measured(name: str, layout: str, threads: int, budget: float, seen: set[ConvSpec]) -> list[Problem]:
    """Tunes the problems of a suite that no suite before it had, in about ``budget`` seconds each."""
    found: list[Problem] = []
    for layer in suite(name, layout=layout):
        if layer.spec in seen:
            continue
        seen.add(layer.spec)
        result = convgen.tune(layer.spec, budget=budget, threads=threads, force=True)
        assert isinstance(result, TunedPlan)
        choice = f"{result.plan.strategy}, {result.plan.config}"
        text = format_descriptor(layer.spec)
        found.append(Problem(name, text, choice, result.seconds, result.baseline_seconds))
        print(f"{name:14} {text:60} {found[-1].ratio:5.2f}  {choice}", flush=True)
    return found


def table(problems: list[Problem], setting: str) -> str:
    """Markdown: the mean and the worst of each suite, and of all."""
    lines = ["# The heuristic's choice against the tuned one", "", setting, ""]
    lines += [
        "The time of the untuned choice over that of the tuned one, measured side by side.",
        "",
        "| suite | problems | geometric mean | worst | its problem | its tuned choice |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in (*suite_names(), "all"):
        part = [p for p in problems if name in (p.suite, "all")]
        if part:
            mean, worst = statistics.geometric_mean(p.ratio for p in part), max(part, key=lambda p: p.ratio)
            lines.append(
                f"| {name} | {len(part)} | {mean:.3f} | {worst.ratio:.2f} | {worst.problem} | {worst.choice} |"
            )
    lines += ["", "A problem that several suites have is counted where it is met first."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--layout", default="channels_last")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=4.0, help="seconds a problem")
    arguments = parser.parse_args()
    problems: list[Problem] = []
    seen: set[ConvSpec] = set()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["CONVGEN_CACHE_DIR"] = cache
        for name in suite_names():
            problems += measured(name, arguments.layout, arguments.threads, arguments.budget, seen)
    setting = (
        f"{datetime.date.today()}, {Machine.host().describe()}, threads {arguments.threads}, float32, batch 1,"
        f" {arguments.layout}, {arguments.budget:g} s a problem"
    )
    arguments.path.with_suffix(".md").write_text(table(problems, setting), encoding="utf-8")
    data = {"setting": setting, "problems": [asdict(p) for p in problems]}
    arguments.path.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
