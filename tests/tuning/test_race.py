"""Races on a machine of tables: who wins, who is dropped when, and what noise does not decide."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from convgen.tuning.race import FIRST_ROUNDS, MOST_ROUNDS, TIE, Standing, run_race
from convgen.tuning.replay import Recording, Replay, Trial
from convgen.tuning.search import Choice
from convgen.tuning.space import Config

A, B, C, D = (Choice("s", Config.of(number=number), 1.0) for number in range(4))


def lab(seconds: Mapping[Choice, float], budget: float = 1000.0, **options: float) -> Replay:
    trials = tuple(Trial(choice, (time,)) for choice, time in seconds.items())
    return Replay(Recording("p", 0, trials), budget, **options)  # type: ignore[arg-type]


def rank(choice: Choice) -> int:
    return choice.config["number"]


def race(seconds: Mapping[Choice, float], budget: float = 1000.0, limit: float = 100.0, **options: float) -> Standing:
    return run_race(list(seconds), lab(seconds, budget, **options), rank, seconds=limit)


def test_a_clear_leader_ends_the_race_after_the_first_stage() -> None:
    found = race({A: 2e-3, B: 1e-3, C: 3e-3})
    assert (found.winner, found.certain) == (B, True)
    assert {choice: estimate.rounds for choice, estimate in found.estimates.items()} == dict.fromkeys(
        (A, B, C), FIRST_ROUNDS
    )
    assert found.estimates[A].seconds == pytest.approx(2e-3)


def test_one_contender_wins_after_the_first_stage() -> None:
    found = race({C: 1e-3})
    assert (found.winner, found.certain, found.estimates[C].rounds) == (C, True, FIRST_ROUNDS)


@pytest.mark.parametrize("order", [(A, B), (B, A)])
def test_ties_go_to_the_simpler_whoever_is_a_little_faster(order: tuple[Choice, ...]) -> None:
    seconds = {A: 1e-3 * (1 + TIE / 2), B: 1e-3}
    assert race({choice: seconds[choice] for choice in order}).winner == A
    assert race({A: 1e-3 * (1 + 1.5 * TIE), B: 1e-3}).winner == B


def test_drifts_of_whole_rounds_decide_nothing_and_cost_nothing() -> None:
    found = race({A: 1.04e-3, B: 1e-3}, drift=0.5, seed=3)
    assert (found.winner, found.certain) == (B, True)
    assert found.estimates[B].rounds == FIRST_ROUNDS


def test_noise_takes_more_rounds_and_gives_the_same_choice() -> None:
    winners, rounds = [], []
    for seed in range(40):
        found = race({A: 1.04e-3, B: 1e-3, C: 1.3e-3}, noise=0.05, seed=seed)
        winners.append(found.winner)
        rounds.append(found.estimates[B].rounds)
    assert winners.count(B) >= 36
    assert max(rounds) > FIRST_ROUNDS


def test_a_second_program_that_doubles_times_does_not_change_the_choice() -> None:
    winners = [race({A: 1.04e-3, B: 1e-3}, disturbed=0.3, noise=0.02, seed=seed).winner for seed in range(40)]
    assert winners.count(B) >= 36


def test_the_race_ends_in_time_and_says_that_it_is_not_certain() -> None:
    found = race({A: 1.03e-3, B: 1e-3}, budget=0.05, limit=0.04, noise=0.5, seed=1)
    assert not found.certain
    assert found.noise > 0.1
    assert found.estimates[B].rounds <= 40


def test_a_noisy_machine_gets_three_times_as_long() -> None:
    quiet = race({A: 1e-3, B: 1e-3}, limit=0.05, noise=0.06, seed=5)
    noisy = race({A: 1e-3, B: 1e-3}, limit=0.05, noise=0.4, seed=5)
    assert quiet.noise < 0.1 < noisy.noise
    assert noisy.estimates[B].rounds > quiet.estimates[B].rounds


def test_a_stage_there_is_whatever_the_time() -> None:
    found = race({A: 1.0, B: 2.0}, budget=0.0, limit=0.0)
    assert (found.winner, found.estimates[A].rounds) == (A, FIRST_ROUNDS)


def test_rounds_end_where_no_time_would_decide() -> None:
    found = race({A: 0.0, B: 0.0}, noise=0.0)
    assert (found.winner, found.certain) == (A, True)
    endless = race({A: 1e-9, B: 1e-9}, limit=1e9, budget=1e9, noise=1.0)
    assert MOST_ROUNDS <= endless.estimates[endless.winner].rounds < 4 * MOST_ROUNDS


def test_of_many_the_slower_half_goes_though_nobody_is_sure() -> None:
    """Sixteen candidates in noise: eight are timed in the first stage alone."""
    many = {Choice("s", Config.of(number=number), 1.0): 1e-3 * (1 + number / 20) for number in range(16)}
    found = race(many, noise=0.5, seed=2)
    assert sum(estimate.rounds == FIRST_ROUNDS for estimate in found.estimates.values()) >= 8


def test_halving_keeps_ties_with_the_leader() -> None:
    """Four alike: none is dropped as one of the slower half, so the simplest can win."""
    found = race({D: 1.000e-3, C: 1.001e-3, B: 1.002e-3, A: 1.003e-3})
    assert found.winner == A
