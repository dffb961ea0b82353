"""Recordings are read and written; a replay spends the recording's time."""

from __future__ import annotations

import json
import math

import pytest

from convgen.errors import OptionError
from convgen.tuning.replay import Recording, Replay, Trial, read_recordings
from convgen.tuning.search import Choice
from convgen.tuning.space import Config

FAST, SLOW, WRONG = (Choice("s", Config.of(number=number), 1e-3 * (1 + number)) for number in range(3))
RECORDING = Recording("p", 1, (Trial(FAST, (1e-3, 3e-3, 1e-3), 2.0), Trial(SLOW, (1.5e-3,), 1.0), Trial(WRONG, ())))


def test_a_recording_comes_back_from_json() -> None:
    text = json.dumps([RECORDING.to_record()])
    assert read_recordings(text) == (RECORDING,)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '[{"problem": "p", "first": 1, "trials": []}]', '[{"problem": "p", "first": 0, "trials": [{}]}]'],
)
def test_other_data_are_refused(text: str) -> None:
    with pytest.raises(OptionError):
        read_recordings(text)


def test_regret_is_relative_to_the_best_of_all() -> None:
    assert RECORDING.best_seconds == 1e-3
    assert [RECORDING.regret(choice) for choice in RECORDING.choices] == pytest.approx([0.0, 0.5, math.inf])


def test_compilations_and_rounds_take_the_recorded_time() -> None:
    lab = Replay(RECORDING, 10.0)
    assert lab.admit((FAST, WRONG), 0.0) == {FAST: True, WRONG: False}
    assert lab.left() == 7.0
    assert lab.round((SLOW, SLOW)) == (1.5e-3, 1.5e-3)
    assert lab.left() == pytest.approx(7.0 - 3e-3)
    assert lab.has_time(4.9)
    assert not lab.has_time(5.0)


def test_the_first_is_tried_whatever_is_left() -> None:
    lab = Replay(RECORDING, 1.0)
    assert lab.admit((FAST, SLOW), 0.5) == {FAST: True}


def test_the_same_seed_draws_the_same_times() -> None:
    def times(seed: int) -> list[tuple[float, ...]]:
        lab = Replay(RECORDING, 10.0, seed=seed, noise=0.1, drift=0.1, disturbed=0.1)
        return [lab.round((FAST, SLOW)) for _ in range(5)]

    assert times(1) == times(1)
    assert times(1) != times(2)
