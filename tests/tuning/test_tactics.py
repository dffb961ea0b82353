"""Ways to search replayed on tables of seconds: regret, what it costs, and that noise does not change the choice."""

from __future__ import annotations

import random
import statistics
from collections import Counter

import pytest

from convgen.tuning.replay import Recording, Replay, Trial
from convgen.tuning.search import Choice
from convgen.tuning.space import Config
from convgen.tuning.tactics import Tactic, at_random, by_prediction, exhaustive, guided, rank_of

BUDGET = 60.0


def recording(seed: int, *, wrong: int = 0, candidates: int = 30) -> Recording:
    """Three strategies whose predictions are off by a factor of their own, and of each configuration by 10%."""
    generator = random.Random(seed)
    trials = []
    for strategy in ("a", "b", "c"):
        factor = generator.uniform(0.7, 1.6)
        for number in range(candidates // 3):
            predicted = generator.uniform(1e-3, 3e-3)
            seconds = predicted * factor * generator.lognormvariate(0.0, 0.1)
            trials.append(Trial(Choice(strategy, Config.of(number=number), predicted), (seconds,)))
    for place in generator.sample(range(1, len(trials)), wrong):
        trials[place] = Trial(trials[place].choice, ())
    return Recording(f"made by seed {seed}", 0, tuple(trials))


RECORDINGS = [recording(seed) for seed in range(30)]


def found(tactic: Tactic, recorded: Recording, budget: float = BUDGET, **options: float) -> tuple[Choice, Replay]:
    lab = Replay(recorded, budget, **options)  # type: ignore[arg-type]
    winner = tactic(recorded.choices, recorded.choices[recorded.first], lab).winner
    assert winner is not None
    return winner, lab


def mean_regret(tactic: Tactic, budget: float = BUDGET, **options: float) -> float:
    regrets = [recorded.regret(found(tactic, recorded, budget, **options)[0]) for recorded in RECORDINGS]
    return statistics.geometric_mean(1 + regret for regret in regrets) - 1


def test_exhaustive_search_has_no_regret_but_ties() -> None:
    for recorded in RECORDINGS:
        winner, lab = found(exhaustive, recorded)
        assert recorded.regret(winner) <= 0.01
        assert set(lab.admitted) == set(recorded.choices)


def test_the_guided_search_comes_near_the_exhaustive_one_with_a_third_of_its_compilations() -> None:
    assert mean_regret(guided) < 0.03
    compiled = [len(found(guided, recorded)[1].admitted) for recorded in RECORDINGS]
    assert statistics.fmean(compiled) < len(RECORDINGS[0].trials) / 2


def test_with_little_time_it_is_better_than_an_order_of_chance_and_than_the_predictions_alone() -> None:
    assert mean_regret(guided, 12.0) < mean_regret(by_prediction, 12.0)
    assert mean_regret(guided, 12.0) < mean_regret(at_random(0), 12.0)


@pytest.mark.parametrize("tactic", [guided, by_prediction, at_random(1), exhaustive])
def test_the_budget_is_kept(tactic: Tactic) -> None:
    for recorded in RECORDINGS[:5]:
        for budget in (5.0, 10.0):
            lab = Replay(recorded, budget)
            tactic(recorded.choices, recorded.choices[0], lab)
            assert lab.left() >= 0


@pytest.mark.parametrize("noise", [dict(noise=0.05, drift=0.2), dict(noise=0.02, disturbed=0.25)])
def test_noise_gives_the_same_choice_nine_times_of_ten_and_never_a_bad_one(noise: dict[str, float]) -> None:
    """Where the candidates differ by more than 3%; elsewhere one that is as good."""
    for recorded in RECORDINGS[:10]:
        seconds = sorted(trial.median for trial in recorded.trials)
        winners = [found(exhaustive, recorded, 1e6, seed=seed, **noise)[0] for seed in range(10)]
        assert max(map(recorded.regret, winners)) < 0.03
        if seconds[1] > 1.03 * seconds[0]:
            assert Counter(winners).most_common(1)[0][1] >= 9


def test_what_is_wrong_is_never_chosen() -> None:
    for seed in range(10):
        recorded = recording(seed, wrong=15)
        winner, _ = found(guided, recorded)
        assert next(trial for trial in recorded.trials if trial.choice == winner).seconds


def test_a_finalist_that_does_not_qualify_is_not_chosen_and_others_come_into_the_final() -> None:
    for recorded in RECORDINGS[:5]:
        ordered = sorted(recorded.trials, key=lambda trial: trial.median)
        unfit = [trial.choice for trial in ordered[:3]]
        lab = Replay(recorded, 1e6, unfit=unfit)
        finding = exhaustive(recorded.choices, recorded.choices[0], lab)
        assert finding.winner is not None
        assert recorded.regret(finding.winner) <= ordered[3].median / ordered[0].median * 1.02 - 1
        assert not set(unfit) & finding.estimates.keys()


def test_nothing_right_has_no_winner() -> None:
    recorded = Recording("p", 0, (Trial(Choice("a", Config(), 1.0), ()),))
    for tactic in (guided, exhaustive):
        assert tactic(recorded.choices, recorded.choices[0], Replay(recorded, 10.0)).winner is None


def test_without_time_the_first_choice_is_tried_and_wins() -> None:
    recorded = RECORDINGS[0]
    winner, lab = found(guided, recorded, 0.0)
    assert winner == recorded.choices[0]
    assert lab.admitted == [winner]


def test_simplicity_is_the_order_of_strategies_and_then_the_first_choice() -> None:
    a0, a1, b0, b1 = (Choice(name, Config.of(number=number), 1.0) for name in "ab" for number in range(2))
    rank = rank_of((a0, a1, b0, b1), b1)
    assert sorted((b0, a1, b1, a0), key=rank) == [a0, a1, b1, b0]
