"""The search replayed on tables of seconds: what it tries, in which order, and when it stops."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from convgen.tuning import search
from convgen.tuning.search import Choice, Search
from convgen.tuning.space import Config


def choice(strategy: str, number: int, predicted: float) -> Choice:
    return Choice(strategy, Config.of(number=number), predicted)


def replay(
    choices: list[Choice], seconds: Mapping[Choice, float | None], first: Choice | None = None
) -> tuple[list[tuple[Choice, ...]], Choice | None]:
    """All batches, and who leads in the end."""
    found = Search(choices, first or choices[0])
    batches = []
    while batch := found.batch():
        batches.append(batch)
        for tried in batch:
            found.record(tried, seconds[tried])
    return batches, found.leader


def test_the_first_choice_and_the_best_of_every_strategy_come_first() -> None:
    choices = [
        choice("a", 0, 1.1), choice("a", 1, 1.0), choice("b", 0, 2.0), choice("b", 1, 1.5), choice("slow", 0, 100.0),
    ]  # fmt: skip
    found = Search(choices, choices[0])
    assert found.batch() == (choices[0], choices[1], choices[3])
    assert found.leader is None


def test_a_first_batch_of_few_strategies_is_filled_with_what_is_similar() -> None:
    similar, worse = choice("a", 1, 1.0), choice("a", 2, search.HOPE * 1.01)
    choices = [choice("a", 0, 1.0), worse, similar, choice("b", 0, 1.2), choice("a", 3, 1.1), choice("b", 1, 1.05)]
    assert search.BATCH == 3
    assert Search(choices[:2], choices[0]).batch() == (choices[0], worse)
    only_a = [c for c in choices if c.strategy == "a"]
    assert Search(only_a, choices[0]).batch() == (choices[0], similar, choices[4])
    assert Search(choices, choices[0]).batch() == (choices[0], similar, choices[5])


def test_what_is_hopeless_is_never_tried() -> None:
    choices = [choice("a", 0, 1.0), choice("b", 0, search.HOPELESS * 1.01), choice("a", 1, search.HOPE * 1.01)]
    batches, leader = replay(choices, dict.fromkeys(choices, 1.0) | {choices[1]: 0.1})
    assert batches == [(choices[0], choices[2])] or batches == [(choices[0],)]
    assert leader == choices[0]


def test_a_strategy_that_measured_well_gets_its_runners_up_tried() -> None:
    """b is predicted to be slower than a, and is twice as fast: all that is tried then is b's."""
    a = [choice("a", i, 1.0 + i / 100) for i in range(20)]
    b = [choice("b", i, 2.0 + i / 100) for i in range(6)]
    seconds: dict[Choice, float | None] = {c: c.predicted for c in a}
    seconds |= {c: c.predicted / 4 - i / 50 for i, c in enumerate(b)}
    batches, leader = replay([*a, *b], seconds)
    assert {c.strategy for batch in batches[1:] for c in batch} == {"b"}
    assert leader == b[5]


def test_a_strategy_that_measured_badly_is_left() -> None:
    a = [choice("a", i, 1.0) for i in range(9)]
    b = choice("b", 0, 1.5)
    seconds: dict[Choice, float | None] = dict.fromkeys(a, 4.0)
    batches, leader = replay([*a, b], seconds | {b: 1.0})
    assert sum(map(len, batches)) == 3
    assert leader == b


def test_the_search_ends_when_nothing_improves() -> None:
    choices = [choice("a", i, 1.0) for i in range(100)]
    batches, leader = replay(choices, dict.fromkeys(choices, 1.0))
    assert 1 + search.BATCH <= sum(map(len, batches)) <= 2 + search.BATCH * (search.PATIENCE + 1)
    assert leader == choices[0]


def test_the_search_goes_on_while_it_improves() -> None:
    choices = [choice("a", i, 1.0) for i in range(12)]
    seconds: dict[Choice, float | None] = {c: 1.0 - i / 50 for i, c in enumerate(choices)}
    batches, leader = replay(choices, seconds)
    assert leader == choices[-1]
    tried = [c for batch in batches for c in batch]
    assert sorted(tried, key=choices.index) == choices


def test_what_was_not_measured_is_offered_again() -> None:
    choices = [choice("a", 0, 1.0), choice("b", 0, 1.0), choice("c", 0, 1.0)]
    found = Search(choices, choices[0])
    assert len(found.batch()) == 3
    found.record(choices[0], 1.0)
    assert found.batch() == (choices[1], choices[2])


def test_a_strategy_that_is_wrong_is_given_up_and_another_found() -> None:
    wrong = [choice("wrong", i, 1.0) for i in range(30)]
    right = choice("right", 0, 50.0)
    batches, leader = replay([*wrong, right], dict.fromkeys(wrong, None) | {right: 50.0})
    assert leader == right
    assert sum(c.strategy == "wrong" for batch in batches for c in batch) <= search.FAILURES + search.BATCH


@pytest.mark.parametrize("seconds", [0.0, 1e-6])
def test_an_empty_problem_is_no_problem(seconds: float) -> None:
    choices = [choice("a", 0, 0.0), choice("b", 0, 3e-7)]
    _, leader = replay(choices, dict.fromkeys(choices, seconds))
    assert leader == choices[0]
