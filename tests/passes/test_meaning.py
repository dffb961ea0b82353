"""Random programs through random passes: the interpreter's result stays the same to the bit."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from convgen.ir.printer import format_program
from tests.passes.moves import MOVES, Schedule
from tests.programs import Sample, samples

EXAMPLES = 30


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal element by element; not-a-numbers (memory that nobody stored to) equal each other."""
    empty = np.isnan(a.astype(np.float64))
    signs = np.signbit(a.astype(np.float64)) == np.signbit(b.astype(np.float64))
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True) and bool(np.all(signs | empty))


def assert_same_meaning(sample: Sample, schedule: Schedule) -> None:
    """Compares the scheduled program, also with its parallel iterations in random order, with the original one."""
    want = sample.results(sample.program)
    for shuffle in (None, 1):
        got = sample.results(schedule.program, shuffle)
        for name, array in want.items():
            assert same_bits(got[name], array), (
                f"{schedule.history} changed {name} (shuffle={shuffle})\n{format_program(schedule.program)}"
            )


def run_property(kind: str, examples: int, *, shrink: bool) -> Counter[str]:
    """Puts up to two random moves before and after a move of ``kind``; returns how often each pass changed a program.

    Without ``shrink``, and in CI, the examples are the same in every run.
    """
    applied: Counter[str] = Counter()
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)

    @settings(
        max_examples=examples,
        phases=phases,
        derandomize=not shrink or "CI" in os.environ,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def check_one(data: st.DataObject) -> None:
        sample = data.draw(
            samples(True if kind in ("FuseEpilogue", "Relayout", "Skip", "SplitBorder", "Trim") else None)
        )
        schedule = Schedule(data.draw, sample, sample.program)
        before = data.draw(st.lists(st.sampled_from(MOVES), max_size=2))
        after = data.draw(st.lists(st.sampled_from(MOVES), max_size=2))
        for move in (*before, kind, *after):
            schedule.move(move)
        applied.update(schedule.applied)
        assert_same_meaning(sample, schedule)

    check_one()
    return applied


@pytest.mark.parametrize("kind", MOVES)
def test_pass_keeps_the_meaning_of_random_programs(kind: str) -> None:
    """Also shows that the pass changed programs in some of the examples, so that the property is not empty."""
    applied = run_property(kind, EXAMPLES, shrink=True)
    assert applied[kind] >= 1, applied
