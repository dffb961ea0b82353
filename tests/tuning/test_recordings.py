"""The tuner's way of searching on what a machine was measured to take: problems of all suites, every candidate."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path

import pytest

from convgen.tuning.replay import Recording, Replay, Trial, read_recordings
from convgen.tuning.tactics import Tactic, at_random, guided

RECORDINGS = read_recordings((Path(__file__).parents[1] / "data" / "recordings.json").read_text())
SEEDS = range(2)


def chosen(tactic: Tactic, recording: Recording, budget: float, **noise: float) -> list[float]:
    """The regrets of some runs, which differ in what is drawn."""
    regrets = []
    for seed in SEEDS:
        lab = Replay(recording, budget, seed=seed, **noise)  # type: ignore[arg-type]
        winner = tactic(recording.choices, recording.choices[recording.first], lab).winner
        assert winner is not None
        regrets.append(recording.regret(winner))
    return regrets


def mean(tactic: Tactic, budget: float, **noise: float) -> float:
    ratios = [1 + regret for each in RECORDINGS for regret in chosen(tactic, each, budget, **noise)]
    return statistics.geometric_mean(ratios) - 1


@pytest.mark.parametrize("noise", [{}, dict(noise=0.03, drift=0.3), dict(disturbed=0.2)])
def test_the_choice_is_within_three_percent_of_exhaustive_search(noise: dict[str, float]) -> None:
    assert mean(guided, 10.0, **noise) < 0.03


def test_it_needs_few_compilations_and_beats_chance() -> None:
    assert mean(guided, 4.0) < 0.03 < mean(at_random(0), 4.0)
    compiled = 0
    for recording in RECORDINGS:
        lab = Replay(recording, 10.0)
        guided(recording.choices, recording.choices[recording.first], lab)
        compiled += len(lab.admitted)
    assert compiled < sum(len(recording.trials) for recording in RECORDINGS) / 2


def test_noise_does_not_change_a_choice_that_matters() -> None:
    """Of two that differ by more than 3% the better one wins at least nine times of ten."""
    for recording in RECORDINGS:
        ordered = sorted(recording.trials, key=lambda trial: trial.median)
        better, worse = ordered[0], next((t for t in ordered if t.median > 1.03 * ordered[0].median), None)
        if worse is None:
            continue
        pair = Recording(recording.problem, 0, tuple(Trial(t.choice, (t.median,)) for t in (worse, better)))
        winners = Counter(
            guided(pair.choices, worse.choice, Replay(pair, 100.0, seed=seed, noise=0.03, drift=0.3)).winner
            for seed in range(10)
        )
        assert winners[better.choice] >= 9, recording.problem
