"""Where candidates are tried: what a way of searching asks of it, whoever answers, a machine or a recording of one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from convgen.tuning.search import Choice


class Lab(Protocol):
    """Tries candidates within a budget of seconds.

    ``admit`` compiles and verifies candidates, in their order, and says which of them are right; those that are missing in
    the answer there was no time for, because ``reserve`` seconds are to be left: the first is tried in any case. ``qualify``
    says of an admitted candidate whether it also stands what only finalists are put to. ``release`` names candidates that
    are unlikely to be asked about again, so that what they hold may go.
    ``round`` returns the seconds of a call of each of some admitted candidates, timed one right after the other, so that
    their ratios say more than themselves. ``left`` is what is left of the budget, and ``has_time`` tells whether another
    candidate can be tried such that ``reserve`` seconds are left.
    """

    def admit(self, choices: Sequence[Choice], reserve: float) -> Mapping[Choice, bool]: ...

    def qualify(self, choice: Choice) -> bool: ...

    def release(self, choices: Collection[Choice]) -> None: ...

    def round(self, choices: Sequence[Choice]) -> tuple[float, ...]: ...

    def left(self) -> float: ...

    def has_time(self, reserve: float) -> bool: ...
