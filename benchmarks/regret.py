"""`python -m benchmarks.regret PATH`: how near the tuner and the untuned choice come to exhaustive search; PATH.json and PATH.md.

A sample of problems of all suites is measured exhaustively, every configuration of every strategy that is not predicted to be
hopeless; then the tuner's way of searching, and others, are replayed on what was recorded: all are judged by the same times.
PATH.json is a list of recordings (see tuning/replay.py); with ``--replay`` it is read, and nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from convgen.descriptor import format_descriptor
from convgen.driver import heuristic_plan
from convgen.machine import Machine
from convgen.options import num_threads
from convgen.runtime.host_lock import alone_on_this_host
from convgen.spec import ConvSpec
from convgen.suites import suite, suite_names
from convgen.tuner.compile_ahead import Helpers
from convgen.tuner.laboratory import KernelLab
from convgen.tuner.session import candidates_of
from convgen.tuning.replay import Recording, Replay, Trial, read_recordings
from convgen.tuning.tactics import Tactic, at_random, by_prediction, guided

# Seconds that an exhaustive measurement may take, and rounds that each candidate is timed for, in blocks beside others.
ENDLESS = 1e6
ROUNDS = 9
BLOCK = 6
# Predicted to be so many times slower than the best: the reference, mostly.
HOPELESS = 6.0
BUDGETS = (4.0, 10.0)
SEEDS = 5
NOISE = 0.02

TACTICS: Mapping[str, Tactic] = {"the tuner": guided, "by prediction alone": by_prediction, "at random": at_random(0)}


def sample(count: int, seed: int) -> list[ConvSpec]:
    """Distinct forward problems of all suites, drawn by a seed."""
    specs = list(dict.fromkeys(layer.spec for name in suite_names() for layer in suite(name)))
    return random.Random(seed).sample(specs, min(count, len(specs)))


def record(spec: ConvSpec, machine: Machine, threads: int) -> Recording:
    """Compiles, verifies and times every candidate; each block beside the first choice, which ties blocks together."""
    choices = candidates_of(spec, machine, threads, None)
    baseline = heuristic_plan(spec, machine, None, threads)
    first = next(c for c in choices if (c.strategy, c.config) == (baseline.strategy, baseline.config))
    least = min(choice.predicted for choice in choices)
    tried = [choice for choice in choices if choice == first or choice.predicted <= HOPELESS * least]
    trials: dict[object, Trial] = {}
    with Helpers(max(1, num_threads() - 1), threads) as helpers, alone_on_this_host():
        lab = KernelLab(spec, machine, threads, helpers, ENDLESS, "warm")
        reference = 0.0
        others = [choice for choice in tried if choice != first]
        for start in range(0, max(1, len(others)), BLOCK):
            block = [first, *others[start : start + BLOCK]]
            begin = time.perf_counter()
            admitted = lab.admit([choice for choice in block if choice not in trials], 0.0)
            compiled = (time.perf_counter() - begin) / max(1, len(admitted))
            right = [choice for choice in block if choice in trials or admitted.get(choice)]
            rounds = [lab.round(right) for _ in range(ROUNDS)]
            now = statistics.median(times[0] for times in rounds)
            reference = reference or now
            for place, choice in enumerate(right):
                if choice not in trials:
                    seconds = tuple(times[place] / times[0] * reference for times in rounds)
                    trials[choice] = Trial(choice, seconds, compiled)
            for choice in block:
                trials.setdefault(choice, Trial(choice, (), compiled))
            lab.release([choice for choice in block if choice != first])
    return Recording(
        format_descriptor(spec),
        tried.index(first),
        tuple(trials[choice] for choice in tried),
    )


def regrets(recordings: list[Recording], tactic: Tactic, budget: float) -> tuple[float, float]:
    """The geometric mean of chosen over best seconds, over recordings and seeds of noise, less 1; and the mean of trials."""
    ratios, tried = [], []
    for recording in recordings:
        for seed in range(SEEDS):
            lab = Replay(recording, budget, seed=seed, noise=NOISE)
            winner = tactic(recording.choices, recording.choices[recording.first], lab).winner
            assert winner is not None
            ratios.append(1 + recording.regret(winner))
            tried.append(len(lab.admitted))
    return statistics.geometric_mean(ratios) - 1, statistics.fmean(tried)


def table(recordings: list[Recording], setting: str) -> str:
    """Markdown: every way of searching by budget, and the untuned choice."""
    untuned = [1 + recording.regret(recording.choices[recording.first]) for recording in recordings]
    candidates = statistics.fmean(len(recording.trials) for recording in recordings)
    lines = ["# Choices against exhaustive search", "", setting, ""]
    lines += [
        f"{len(recordings)} problems, {candidates:.0f} candidates each. Regret: how much longer the choice takes than the best "
        f"of all that were measured, geometric mean. The ways to search are replayed with {NOISE:.0%} of noise, {SEEDS} times.",
        "",
        "| choice | seconds a problem | candidates compiled | regret |",
        "| --- | --- | --- | --- |",
        f"| untuned | 0 | 1 | {statistics.geometric_mean(untuned) - 1:.1%} |",
    ]
    for name, tactic in TACTICS.items():
        for budget in BUDGETS:
            regret, tried = regrets(recordings, tactic, budget)
            lines.append(f"| {name} | {budget:g} | {tried:.1f} | {regret:.1%} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--problems", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--replay", action="store_true", help="read PATH.json instead of measuring")
    parser.add_argument(
        "--seconds", type=float, default=ENDLESS, help="begin no problem after so long; run again to go on"
    )
    arguments = parser.parse_args()
    path = arguments.path.with_suffix(".json")
    recordings = list(read_recordings(path.read_text())) if path.exists() else []
    known = {recording.problem for recording in recordings}
    begin = time.perf_counter()
    for spec in [] if arguments.replay else sample(arguments.problems, arguments.seed):
        if format_descriptor(spec) in known or time.perf_counter() - begin > arguments.seconds:
            continue
        start = time.perf_counter()
        recordings.append(record(spec, Machine.host(), arguments.threads))
        text = json.dumps([recording.to_record() for recording in recordings], indent=1)
        path.write_text(text + "\n", encoding="utf-8")
        print(
            f"{recordings[-1].problem}: {len(recordings[-1].trials)}, {time.perf_counter() - start:.1f} s", flush=True
        )
    setting = f"{Machine.host().describe()}, threads {arguments.threads}, float32, batch 1, channels_last"
    arguments.path.with_suffix(".md").write_text(table(recordings, setting), encoding="utf-8")


if __name__ == "__main__":
    main()
