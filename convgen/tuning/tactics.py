"""Ways to search: which candidates to try, in which order, and when to stop. Each sees a Lab and nothing of the machine."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convgen.tuning.lab import Lab
from convgen.tuning.race import Estimate, Rank, run_race
from convgen.tuning.search import Choice, Search

# The part of a problem's budget for the search; the rest is for measuring the best candidates side by side.
SEARCH_SHARE = 0.8
# Seconds that each candidate of a batch is raced for, and each finalist.
QUICK_SECONDS = 0.1
FINAL_SECONDS = 0.6
# Candidates at most so many times slower than the leader are measured once more.
FINALISTS = 1.1


@dataclass(frozen=True)
class Finding:
    """What a search has found: the winner, None if no candidate is right, what everybody took whose result was right, whether the
    winner was certain, and how noisy the machine was."""

    winner: Choice | None
    estimates: dict[Choice, Estimate]
    certain: bool = False
    noise: float = 0.0


Tactic = Callable[[Sequence[Choice], Choice, Lab], Finding]


def guided(choices: Sequence[Choice], first: Choice, lab: Lab) -> Finding:
    """Batches by the predictions, corrected by what has been measured, each raced beside the leader; then a final."""
    search, board = Search(choices, first), _Board(rank_of(choices, first))
    reserve = (1 - SEARCH_SHARE) * lab.left()
    while batch := search.batch():
        admitted = lab.admit(batch, reserve)
        for choice, is_right in admitted.items():
            if not is_right:
                search.record(choice, None)
        fresh = [choice for choice in batch if admitted.get(choice)]
        board.heat(fresh, first, lab, reserve)
        for choice in fresh:
            search.record(choice, board.estimates[choice].seconds)
        if board.estimates and not lab.has_time(reserve):
            break
    return board.final(lab, first)


def exhaustive(choices: Sequence[Choice], first: Choice, lab: Lab) -> Finding:
    """All candidates, in the order given, whatever is predicted."""
    return _in_order(choices, first, lab)


def by_prediction(choices: Sequence[Choice], first: Choice, lab: Lab) -> Finding:
    """As many as there is time for, those predicted to be the fastest first, whatever is measured."""
    return _in_order(sorted(choices, key=lambda choice: choice.predicted), first, lab)


def at_random(seed: int) -> Tactic:
    """As many as there is time for, in an order drawn from a seed."""

    def tactic(choices: Sequence[Choice], first: Choice, lab: Lab) -> Finding:
        return _in_order(random.Random(seed).sample(list(choices), len(choices)), first, lab)

    return tactic


def rank_of(choices: Sequence[Choice], first: Choice) -> Rank:
    """The order of simplicity, by which ties are broken: strategies as they are listed, of each ``first`` before others."""
    strategies = list(dict.fromkeys(choice.strategy for choice in choices))
    ordered = sorted(choices, key=lambda choice: (strategies.index(choice.strategy), choice != first))
    places = {choice: place for place, choice in enumerate(ordered)}
    return places.__getitem__


def _in_order(choices: Sequence[Choice], first: Choice, lab: Lab) -> Finding:
    board = _Board(rank_of(choices, first))
    reserve = (1 - SEARCH_SHARE) * lab.left()
    for choice in (first, *(other for other in choices if other != first)):
        if board.estimates and not lab.has_time(reserve):
            break
        if lab.admit((choice,), reserve).get(choice):
            board.heat([choice], first, lab, reserve)
    return board.final(lab, first)


class _Board:
    """What everybody took: each heat is run beside the leader, whose time ties it to the heats before."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self.estimates: dict[Choice, Estimate] = {}

    @property
    def leader(self) -> Choice | None:
        return min(self.estimates, key=lambda choice: self.estimates[choice].seconds, default=None)

    def heat(self, fresh: Sequence[Choice], first: Choice, lab: Lab, reserve: float) -> None:
        if not fresh:
            return
        leader = self.leader
        field = [*([leader] if leader else []), *fresh]
        standing = run_race(field, lab, self._rank, seconds=QUICK_SECONDS * len(field), reserve=reserve)
        known, now = (self.estimates[leader], standing.estimates[leader]) if leader else (None, None)
        drift = known.seconds / now.seconds if known and now and now.seconds else 1.0
        for choice in fresh:
            found = standing.estimates[choice]
            self.estimates[choice] = Estimate(
                found.seconds * drift, found.low * drift, found.high * drift, found.rounds
            )
        lab.release([choice for choice in field if self._is_behind(choice) and choice != first])

    def _is_behind(self, choice: Choice) -> bool:
        """Whether a candidate is too slow for the final."""
        leader = self.leader
        return leader is not None and self.estimates[choice].seconds > FINALISTS * self.estimates[leader].seconds

    def final(self, lab: Lab, first: Choice) -> Finding:
        """Races those near the leader, and the first choice, which the winner is compared with, if they qualify."""
        qualified: set[Choice] = set()
        while True:
            finalists = [choice for choice in self.estimates if choice == first or not self._is_behind(choice)]
            doubtful = next((choice for choice in finalists if choice not in qualified), None)
            if doubtful is None:
                break
            if lab.qualify(doubtful):
                qualified.add(doubtful)
            else:
                del self.estimates[doubtful]
        if not finalists:
            return Finding(None, {})
        standing = run_race(finalists, lab, self._rank, seconds=FINAL_SECONDS * len(finalists))
        return Finding(standing.winner, self.estimates | standing.estimates, standing.certain, standing.noise)
