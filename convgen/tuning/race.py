"""Who is the fastest of a few candidates, in as few rounds as it takes to be sure.

Successive halving (Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", 2016) over
rounds in which all that are left are timed one after the other: what counts is the ratio to the leader of the same round, and a
candidate is dropped when the interval of that ratio leaves no doubt, so that a noisy machine costs time and not the right choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convgen.tuning.lab import Lab
from convgen.tuning.search import Choice
from convgen.tuning.statistics import Interval, median_interval, noise, ratio_interval

# Of candidates closer than this the simplest is taken: noise does not decide.
TIE = 0.01
# So close a candidate is not dropped for being in the slower half.
ALIKE = 0.02
# When all that are left are known to be so close, it does not matter which.
ENOUGH = 0.03
# Rounds before the first decision; each further stage has twice as many as the one before.
FIRST_ROUNDS = 7
# Rounds of short calls, of which the budget would allow thousands.
MOST_ROUNDS = 500
# So many are raced until it is sure who is slower; of more the slower half goes after each stage, sure or not.
FEW = 4
# A leader whose times spread by more than this, between the quartiles, runs on a noisy machine: it takes longer to be sure.
NOISY = 0.10
WIDENED = 3.0

Rank = Callable[[Choice], int]


@dataclass(frozen=True)
class Estimate:
    """Seconds of a call, as the leader's times a ratio: the median with its interval, of so many rounds."""

    seconds: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Standing:
    """How a race ended: the winner, everybody's estimate, whether the leader was certain, and how noisy its times were."""

    winner: Choice
    estimates: dict[Choice, Estimate]
    certain: bool
    noise: float


def run_race(contenders: Sequence[Choice], lab: Lab, rank: Rank, *, seconds: float, reserve: float = 0.0) -> Standing:
    """Races admitted candidates, at least one, for about so many ``seconds``, three times as many where the machine is noisy, and
    at most until only ``reserve`` seconds are left; a first stage there is in any case.

    Ties go to the candidate of the least ``rank``.
    """
    heats = _Heats(contenders)
    start = lab.left()
    rounds = FIRST_ROUNDS
    while True:
        before = lab.left()
        for _ in range(rounds):
            heats.add(lab.round(heats.alive))
        stage = before - lab.left()
        heats.drop(rank)
        most = seconds * (WIDENED if heats.noise > NOISY else 1.0)
        if heats.is_decided or heats.rounds >= MOST_ROUNDS:
            break
        if start - lab.left() + 2 * stage > most or lab.left() - 2 * stage < reserve:
            break
        rounds *= 2
    return Standing(heats.winner(rank), heats.estimates(), heats.is_decided, heats.noise)


class _Heats:
    """The times of those that are left, and of those that were dropped until they were."""

    def __init__(self, contenders: Sequence[Choice]) -> None:
        self.alive = list(contenders)
        self._times: dict[Choice, list[float]] = {choice: [] for choice in contenders}

    @property
    def rounds(self) -> int:
        return len(self._times[self.alive[0]])

    @property
    def leader(self) -> Choice:
        return min(self.alive, key=lambda choice: median_interval(self._times[choice]).median)

    @property
    def noise(self) -> float:
        return noise(self._times[self.leader])

    @property
    def is_decided(self) -> bool:
        """Whether nobody who is left is slower than the leader by more than does not matter."""
        return all(self._behind(choice).high <= 1 + ENOUGH for choice in self.alive if choice != self.leader)

    def add(self, seconds: Sequence[float]) -> None:
        for choice, time in zip(self.alive, seconds, strict=True):
            self._times[choice].append(time)

    def drop(self, rank: Rank) -> None:
        """Drops who is certainly slower, and while there are many the slower half, ties with the leader excepted."""
        behind = {choice: self._behind(choice) for choice in self.alive}
        hopeful = [choice for choice in self.alive if choice == self.leader or behind[choice].low <= 1 + TIE]
        ordered = sorted(hopeful, key=lambda choice: (behind[choice].median, rank(choice)))
        kept = set(ordered[: max(FEW, (len(self.alive) + 1) // 2)])
        self.alive = [c for c in hopeful if c == self.leader or c in kept or behind[c].median <= 1 + ALIKE]

    def winner(self, rank: Rank) -> Choice:
        return min((choice for choice in self.alive if self._behind(choice).median <= 1 + TIE), key=rank)

    def estimates(self) -> dict[Choice, Estimate]:
        """Of the leader its own times, of all others as many times as they are behind it."""
        own = median_interval(self._times[self.leader])
        found = {}
        for choice, times in self._times.items():
            part = own if choice == self.leader else _scaled(self._behind(choice), own.median)
            found[choice] = Estimate(part.median, part.low, part.high, len(times))
        return found

    def _behind(self, choice: Choice) -> Interval:
        times = self._times[choice]
        return ratio_interval(times, self._times[self.leader][: len(times)])


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(interval.low * factor, interval.median * factor, interval.high * factor)
