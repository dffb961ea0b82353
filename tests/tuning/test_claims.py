"""One process measures, the others take what it finds, and nobody waits for the dead."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from convgen.errors import WaitWarning
from convgen.tuning import claims
from convgen.tuning.claims import claimed
from convgen.tuning.database import Database
from convgen.tuning.record import Record
from tests.tuning.test_database import OTHER, RECORD, execute, one_warning

FORK = multiprocessing.get_context("fork")
LONG = 3600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tuning.sqlite"


def known(path: Path) -> Callable[[], Record | None]:
    return lambda: next(iter(Database(path).find(RECORD.problem, RECORD.fingerprint)), None)


def unknown() -> None:
    return None


def _tune(path: Path, number: int) -> None:
    """Tunes as a process that finds another choice than all others would; the choice that holds is written beside."""
    database = Database(path)
    with claimed(database, RECORD.key, LONG, known(path)) as found:
        if found is None:
            (path.parent / f"measured{number}").touch()
            time.sleep(0.2)
            found = dataclasses.replace(RECORD, strategy=f"of{number}")
            database.store(found)
    (path.parent / f"choice{number}").write_text(found.strategy)


def test_of_many_processes_one_measures_and_all_end_with_its_choice(path: Path) -> None:
    processes = [FORK.Process(target=_tune, args=(path, number)) for number in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    (measured,) = path.parent.glob("measured*")
    choices = {file.read_text() for file in path.parent.glob("choice*")}
    assert choices == {f"of{measured.name.removeprefix('measured')}"}


def _die_with_a_claim(path: Path) -> None:
    with claimed(Database(path), RECORD.key, LONG, unknown):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("is_reaped", [True, False])
def test_the_claim_of_a_process_that_was_killed_is_over(path: Path, is_reaped: bool) -> None:
    child = FORK.Process(target=_die_with_a_claim, args=(path,))
    child.start()
    if is_reaped:
        child.join()
    else:
        os.waitid(os.P_PID, child.pid or 0, os.WEXITED | os.WNOWAIT)
    looks: list[int] = []

    def look() -> None:
        looks.append(1)

    with claimed(Database(path), RECORD.key, LONG, look) as found:
        assert found is None
    assert looks == [1]


def test_a_failure_hands_the_claim_on(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claimed(Database(path), RECORD.key, LONG, unknown):
        raise ZeroDivisionError
    with claimed(Database(path), RECORD.key, LONG, unknown) as found:
        assert found is None


def test_a_claim_of_another_computer_ends_with_its_time(path: Path) -> None:
    """Whether such a process lives is not known."""
    database = Database(path)
    start = time.time()
    assert database.claim(RECORD.key, "elsewhere/1 1 1 x", start + 0.3, lambda owner: False) is None
    with claimed(database, RECORD.key, LONG, unknown) as found:
        assert found is None
        assert time.time() >= start + 0.3


def test_who_has_waited_long_enough_measures_too(path: Path) -> None:
    database = Database(path)
    holder = f"{claims._place()} {os.getpid()} {claims._started(os.getpid())} x"
    assert database.claim(RECORD.key, holder, time.time() + LONG, lambda owner: False) is None
    told = (
        rf"process {os.getpid()} has been waited for for 0 s, .* {re.escape(RECORD.problem)}; it is measured here too"
    )
    with (
        pytest.warns(WaitWarning, match=told),
        claimed(database, RECORD.key, 0.1, unknown) as found,
    ):
        assert found is None
    assert database.claim(RECORD.key, "next", time.time() + LONG, lambda _: False) is not None, (
        "it is not ours to release"
    )


def test_who_waits_takes_what_appears(path: Path) -> None:
    database = Database(path)
    database.claim(RECORD.key, "elsewhere/1 1 1 x", time.time() + LONG, lambda owner: False)
    looks: list[int] = []

    def look() -> Record | None:
        looks.append(1)
        if len(looks) == 3:
            database.store(RECORD)
        return known(path)()

    with claimed(database, RECORD.key, LONG, look) as found:
        assert found == RECORD


def test_claims_are_for_one_key_and_released_by_their_owner_alone(path: Path) -> None:
    database = Database(path)
    until = time.time() + LONG

    def claim(owner: str, record: Record = RECORD) -> float | None:
        return database.claim(record.key, owner, until, lambda _: False)

    assert claim("a") is None
    assert claim("a") is None
    assert claim("b") == until
    assert claim("b", OTHER) is None
    database.release(RECORD.key, "b")
    assert claim("b") == until
    database.release(RECORD.key, "a")
    assert claim("b") is None


def test_what_was_found_between_looking_and_claiming_is_taken(path: Path) -> None:
    Database(path).store(RECORD)
    with claimed(Database(path), RECORD.key, LONG, known(path)) as found:
        assert found == RECORD
    assert Database(path).claim(RECORD.key, "next", time.time() + LONG, lambda _: False) is None


def test_where_nothing_can_be_shared_everybody_measures(path: Path) -> None:
    path.mkdir()
    with one_warning(path):
        database = Database(path)
        with (
            claimed(database, RECORD.key, LONG, unknown) as first,
            claimed(database, RECORD.key, LONG, unknown) as second,
        ):
            assert (first, second) == (None, None)


@pytest.mark.parametrize(
    "damage",
    [
        "until = 'soon'",
        "until = 1e300",
        "until = 0.0",
        "owner = 1",
        "owner = 'x'",
        "owner = x'ff'",
        "owner = 'a b c d'",
    ],
)
def test_a_damaged_claim_stops_nobody(path: Path, damage: str) -> None:
    Database(path).claim(RECORD.key, "elsewhere/1 1 1 x", time.time() + LONG, lambda _: False)
    execute(path, f"UPDATE claims SET {damage}")
    with claimed(Database(path), RECORD.key, LONG, unknown) as found:
        assert found is None


def test_claims_are_no_records(path: Path) -> None:
    with claimed(Database(path), RECORD.key, LONG, unknown):
        assert Database(path).records() == ()
        Database(path).store(OTHER)
    assert Database(path).records() == (OTHER,)
