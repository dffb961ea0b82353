"""Recorded measurements in the place of a machine: a search that is replayed needs no kernel, no clock and no time.

A recording is a JSON document: ``problem``, ``first`` (the position of the heuristic's choice) and ``trials``, each with
``strategy``, ``config`` as tables print it, ``predicted`` seconds, ``compile_seconds`` and ``seconds``, a list of what a call
took, empty for a candidate that was wrong.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from convgen.errors import OptionError
from convgen.tuning.search import Choice
from convgen.tuning.space import Config

# A timed run takes at least this long, as a TimedCall's does.
_RUN_SECONDS = 200e-6


@dataclass(frozen=True)
class Trial:
    """What was recorded of a candidate: seconds of calls, none for one that was wrong, and of its compilation."""

    choice: Choice
    seconds: tuple[float, ...]
    compile_seconds: float = 1.0

    @property
    def median(self) -> float:
        """The recorded median, or infinity for a wrong candidate."""
        return statistics.median(self.seconds) if self.seconds else math.inf


@dataclass(frozen=True)
class Recording:
    """All trials of a problem, in the order of its choices; ``first`` is the position of the heuristic's choice."""

    problem: str
    first: int
    trials: tuple[Trial, ...]

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All candidates."""
        return tuple(trial.choice for trial in self.trials)

    @property
    def best_seconds(self) -> float:
        """What exhaustive search finds."""
        return min(trial.median for trial in self.trials)

    def regret(self, choice: Choice) -> float:
        """How much longer a choice takes than the best of all: 0 for the best, 0.03 for 3% more."""
        found = next(trial for trial in self.trials if trial.choice == choice)
        return found.median / self.best_seconds - 1 if self.best_seconds else 0.0

    def to_record(self) -> dict[str, object]:
        """The recording as data for JSON."""
        trials = [
            {
                "strategy": trial.choice.strategy,
                "config": str(trial.choice.config),
                "predicted": trial.choice.predicted,
                "compile_seconds": trial.compile_seconds,
                "seconds": list(trial.seconds),
            }
            for trial in self.trials
        ]
        return {"problem": self.problem, "first": self.first, "trials": trials}

    @classmethod
    def from_record(cls, record: object) -> Recording:
        """The recording that such data describes; raises OptionError for any other."""
        match record:
            case {"problem": str(problem), "first": int(first), "trials": [*trials]} if 0 <= first < len(trials):
                return cls(problem, first, tuple(map(_trial, trials)))
            case _:
                raise OptionError("recording is not valid; allowed: problem, first and trials")


def read_recordings(text: str) -> tuple[Recording, ...]:
    """The recordings in a JSON list; raises OptionError."""
    try:
        records = json.loads(text)
    except ValueError as error:
        raise OptionError(f"recordings are not JSON: {error}") from error
    if not isinstance(records, list):
        raise OptionError("recordings are not a list")
    return tuple(map(Recording.from_record, records))


def _trial(record: object) -> Trial:
    match record:
        case {
            "strategy": str(strategy),
            "config": str(config),
            "predicted": float(predicted),
            "compile_seconds": float(compile_seconds),
            "seconds": [*seconds],
        }:
            choice = Choice(strategy, Config.parse(config), predicted)
            return Trial(choice, tuple(map(float, seconds)), compile_seconds)
        case _:
            raise OptionError(f"trial={record!r} is not valid; allowed: what Recording.to_record returns")


class Replay:
    """A Lab that answers from a recording, on a clock of its own.

    A round takes one recorded time of each candidate, drawn by a generator of that ``seed``, times a factor that is
    log-normal with a standard deviation of ``noise`` and, for whole rounds alike, one of ``drift``; with a chance of
    ``disturbed`` another program doubles a time. ``unfit`` are candidates that do not qualify for a final.
    """

    def __init__(
        self,
        recording: Recording,
        budget: float,
        *,
        seed: int = 0,
        noise: float = 0.0,
        drift: float = 0.0,
        disturbed: float = 0.0,
        unfit: Collection[Choice] = (),
    ) -> None:
        self._trials = {trial.choice: trial for trial in recording.trials}
        self._left = budget
        self._random = random.Random(seed)
        self._noise, self._drift, self._disturbed = noise, drift, disturbed
        self._longest = 0.0
        self._unfit = frozenset(unfit)
        self.admitted: list[Choice] = []

    def admit(self, choices: Sequence[Choice], reserve: float) -> Mapping[Choice, bool]:
        """Spends the time of compiling each."""
        answers: dict[Choice, bool] = {}
        for choice in choices:
            if answers and not self.has_time(reserve):
                break
            trial = self._trials[choice]
            self._left -= trial.compile_seconds
            self._longest = max(self._longest, trial.compile_seconds)
            answers[choice] = bool(trial.seconds)
            self.admitted.append(choice)
        return answers

    def qualify(self, choice: Choice) -> bool:
        """Whether it is not one of those that were named unfit."""
        return choice not in self._unfit

    def release(self, choices: Collection[Choice]) -> None:
        """Nothing is held."""

    def round(self, choices: Sequence[Choice]) -> tuple[float, ...]:
        """Draws a time for each."""
        drift = self._factor(self._drift)
        times = []
        for choice in choices:
            time = self._random.choice(self._trials[choice].seconds) * drift * self._factor(self._noise)
            times.append(2 * time if self._random.random() < self._disturbed else time)
        self._left -= sum(max(time, _RUN_SECONDS) for time in times)
        return tuple(times)

    def left(self) -> float:
        """Seconds of the recording's time."""
        return self._left

    def has_time(self, reserve: float) -> bool:
        """Whether the longest compilation so far fits."""
        return self._left - self._longest > reserve

    def _factor(self, deviation: float) -> float:
        return math.exp(self._random.gauss(0.0, deviation)) if deviation else 1.0
