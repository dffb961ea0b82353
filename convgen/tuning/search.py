"""Which candidates are worth compiling: the predictions, corrected by what has been measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convgen.tuning.space import Config

# A strategy whose best configuration is predicted to be so many times slower than the best of all is left out at first.
HOPELESS = 3.0
# A runner-up is tried if its corrected prediction is at most so many times the leader's time.
HOPE = 1.25
# Candidates that are compiled and measured together once every strategy has been seen.
BATCH = 3
# So many batches in a row that bring no improvement by more than GAIN end the search.
PATIENCE = 2
GAIN = 0.01
# A strategy that fails so often before it has been measured once is given up.
FAILURES = 2
# A prediction for an empty problem is 0, and ratios need more.
_LEAST_SECONDS = 1e-9


@dataclass(frozen=True)
class Choice:
    """A strategy's configuration and the seconds that the strategy predicts for it."""

    strategy: str
    config: Config
    predicted: float


class Search:
    """Hands out batches of choices and is told what became of them.

    First comes ``first``, with the most promising configuration of every strategy that is not hopeless, and others that are
    predicted to be about as good where that makes no batch. A cost model is better
    at ordering the configurations of one strategy than strategies: the other predictions are multiplied by measured over
    predicted seconds of what has been tried of the same strategy, and tried in that order until the leader is certain.
    """

    def __init__(self, choices: Sequence[Choice], first: Choice) -> None:
        self._first = first
        self._choices = tuple(choices)
        self._seconds: dict[Choice, float] = {}
        self._failed: list[Choice] = []
        self._best_before = math.inf
        self._stale = 0
        self._begun = False

    @property
    def leader(self) -> Choice | None:
        """The fastest so far, of equals the one tried first; None if nothing has been measured."""
        return min(self._seconds, key=self._seconds.__getitem__, default=None)

    def record(self, choice: Choice, seconds: float | None) -> None:
        """Tells what was measured; None for a choice that gave no right result."""
        if seconds is None:
            self._failed.append(choice)
        else:
            self._seconds[choice] = seconds

    def batch(self) -> tuple[Choice, ...]:
        """The next choices to try, the most deserving first, of those that no result has been recorded for; empty when more would
        not help."""
        if self._begun:
            return self._runners_up()
        self._begun = True
        return self._heads()

    def _heads(self) -> tuple[Choice, ...]:
        others = sorted((choice for choice in self._choices if choice != self._first), key=_predicted)
        best = min(map(_predicted, (self._first, *others)))
        heads: dict[str, Choice] = {}
        for choice in others:
            if choice.predicted <= HOPELESS * best:
                heads.setdefault(choice.strategy, choice)
        chosen = [self._first, *heads.values()]
        similar = [choice for choice in others if choice not in chosen and choice.predicted <= HOPE * best]
        return (*chosen, *similar[: max(0, BATCH - len(chosen))])

    def _runners_up(self) -> tuple[Choice, ...]:
        best = min(self._seconds.values(), default=math.inf)
        self._stale = 0 if best < self._best_before * (1 - GAIN) else self._stale + 1
        self._best_before = min(best, self._best_before)
        if self._stale >= PATIENCE:
            return ()
        expected = [
            (self._expected(choice), choice)
            for choice in self._choices
            if choice not in self._seconds and choice not in self._failed and not self._is_given_up(choice.strategy)
        ]
        hopeful = [pair for pair in expected if pair[0] <= HOPE * best]
        return tuple(choice for _, choice in sorted(hopeful, key=lambda pair: pair[0])[:BATCH])

    def _is_given_up(self, strategy: str) -> bool:
        measured = any(choice.strategy == strategy for choice in self._seconds)
        return not measured and sum(choice.strategy == strategy for choice in self._failed) >= FAILURES

    def _expected(self, choice: Choice) -> float:
        """The prediction times the geometric mean of measured over predicted, of the same strategy where it has been measured,
        else of all."""
        own = [self._ratio(tried) for tried in self._seconds if tried.strategy == choice.strategy]
        ratios = own or [self._ratio(tried) for tried in self._seconds] or [0.0]
        return choice.predicted * math.exp(math.fsum(ratios) / len(ratios))

    def _ratio(self, choice: Choice) -> float:
        """The logarithm of measured over predicted seconds."""
        return math.log(max(self._seconds[choice], _LEAST_SECONDS) / max(choice.predicted, _LEAST_SECONDS))


def _predicted(choice: Choice) -> float:
    return choice.predicted
