"""The documented rule by which a set of records makes one choice, whatever way they came together."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convgen.tuning.database import Database
from convgen.tuning.evidence import decide
from convgen.tuning.record import ORIGINS, Candidate, Record, unite
from convgen.tuning.space import Config

REGISTRY = ("pointwise", "direct", "winograd", "reference")
TOOLS = "numba 2"
SLOW = Config.of(m=2)
FAST = Config.of(m=4)


def measured(strategy: str, config: Config, seconds: float, spread: float, count: int = 20) -> Candidate:
    return Candidate(strategy, config, seconds, seconds * (1 - spread), seconds * (1 + spread), count)


def record(*candidates: Candidate, baseline: float = 1.0, **fields: object) -> Record:
    """A record whose choice is its first candidate."""
    first = candidates[0]
    made = Record(
        *("{}", "f", 1, "1", first.strategy, first.config, first.seconds, baseline, 1e-7, "gate A", "2026-01-01"),
        candidates=candidates,
        tools=TOOLS,
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def choice(*records: Record) -> tuple[str, Config] | None:
    found = decide(records, REGISTRY, TOOLS)
    return None if found is None else found.choice


DIRECT = record(measured("direct", FAST, 1.0, 0.01))
WINOGRAD = record(measured("winograd", FAST, 0.8, 0.01), host="other", created="2026-01-02")


def test_nothing_and_one() -> None:
    assert choice() is None
    assert decide([DIRECT], REGISTRY, TOOLS) == DIRECT


def test_disjoint_intervals_decide() -> None:
    assert choice(DIRECT, WINOGRAD) == WINOGRAD.choice


@pytest.mark.parametrize("names", list(itertools.permutations(["pointwise", "direct", "winograd"])))
def test_of_equally_fast_ones_the_interval_decides_whatever_they_are_called(names: tuple[str, ...]) -> None:
    lower = Candidate(names[0], FAST, 1.0, 0.9, 1.0, 10)
    higher = Candidate(names[1], FAST, 1.0, 1.0, 1.1, 10)
    beside_the_higher = Candidate(names[2], FAST, 1.05, 1.05, 1.06, 10)
    found = choice(record(higher), record(lower), record(beside_the_higher))
    assert found is not None
    assert found[0] == min(names[:2], key=REGISTRY.index)


def test_the_last_writer_does_not() -> None:
    later = dataclasses.replace(DIRECT, created="2030-01-01")
    assert choice(later, WINOGRAD) == WINOGRAD.choice


def test_overlapping_intervals_fall_to_the_simpler_strategy() -> None:
    close = record(measured("winograd", FAST, 0.99, 0.05))
    assert choice(DIRECT, close) == DIRECT.choice
    other = record(measured("direct", SLOW, 0.995, 0.05))
    assert choice(DIRECT, other) == min(DIRECT.choice, other.choice, key=lambda pair: str(pair[1]))


def test_ratios_count_and_not_seconds() -> None:
    """Winograd's host is twice as fast in all; on either it loses to the heuristic's choice or wins."""
    assert choice(DIRECT, record(measured("winograd", FAST, 0.6, 0.01), baseline=0.5)) == DIRECT.choice


def test_what_a_choice_took_elsewhere_is_pooled_by_the_number_of_runs() -> None:
    """A few lucky runs do not outweigh the many of another host that measured the same candidate."""
    lucky = record(measured("winograd", FAST, 0.8, 0.01, count=4))
    sober = record(measured("direct", FAST, 1.0, 0.01), measured("winograd", FAST, 1.2, 0.01, count=400))
    assert choice(lucky) == lucky.choice
    assert choice(lucky, sober) == sober.choice


def test_an_unverified_record_is_never_chosen() -> None:
    assert choice(dataclasses.replace(WINOGRAD, verified="")) is None
    assert choice(dataclasses.replace(WINOGRAD, verified=""), DIRECT) == DIRECT.choice
    assert choice(dataclasses.replace(WINOGRAD, verified="", origin="pinned"), DIRECT) == DIRECT.choice


def test_known_intervals_outweigh_none_and_these_compilers_others() -> None:
    bare = record(Candidate("winograd", FAST, 0.5))
    assert choice(DIRECT, bare) == DIRECT.choice
    elsewhere = record(measured("winograd", FAST, 0.5, 0.01), tools="numba 1")
    assert choice(DIRECT, elsewhere) == DIRECT.choice
    assert choice(bare, elsewhere) == bare.choice
    assert choice(elsewhere) == elsewhere.choice


def test_a_pin_holds_and_of_several_the_newest() -> None:
    pins = [
        record(Candidate(name, FAST, 0.0), origin="pinned", created=f"2026-0{month}-01", tools="")
        for month, name in ((3, "reference"), (1, "winograd"))
    ]
    assert choice(WINOGRAD, *pins, DIRECT) == ("reference", FAST)


candidates = st.builds(
    measured,
    st.sampled_from(REGISTRY),
    st.sampled_from((SLOW, FAST)),
    st.floats(0.5, 1.5),
    st.floats(0.0, 0.2),
    st.integers(1, 100),
)
records = st.builds(
    lambda found, baseline, fields: record(*found, baseline=baseline, **fields),
    st.lists(candidates, min_size=1, max_size=4, unique_by=lambda each: (each.strategy, each.config)),
    st.floats(0.0, 2.0),
    st.fixed_dictionaries(
        {
            "verified": st.sampled_from(("", "gate A")),
            "tools": st.sampled_from(("numba 1", TOOLS)),
            "created": st.sampled_from(("2026-01-01", "2026-01-02")),
            "origin": st.sampled_from(ORIGINS),
        }
    ),
)


@given(st.lists(records, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_count(found: list[Record], random: Random) -> None:
    expected = decide(unite(found), REGISTRY, TOOLS)
    shuffled = list(unite(found))
    random.shuffle(shuffled)
    assert decide(shuffled, REGISTRY, TOOLS) == expected
    assert expected is None or expected.verified


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("merged")


@given(st.lists(records, max_size=3), st.lists(records, max_size=3), st.lists(records, max_size=3))
def test_merging_is_commutative_associative_and_idempotent(
    folder: Path, first: list[Record], second: list[Record], third: list[Record]
) -> None:
    assert unite(unite(first, second), third) == unite(first, unite(second, third)) == unite(third, second, first)
    assert unite(first, first) == unite(first)
    merged = []
    for order in ((first, second, third), (third, first, second, third), ([*second, *first], [*third, *first])):
        path = folder / "merged.sqlite"
        path.unlink(missing_ok=True)
        for part in order:
            Database(path).add(part)
        merged.append(Database(path).records())
    assert merged == [unite(first, second, third)] * 3
