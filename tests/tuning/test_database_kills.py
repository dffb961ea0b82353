"""The database among processes that write at once or are killed, and on files and disks that are not what they should be."""

from __future__ import annotations

import dataclasses
import fcntl
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convgen.errors import CacheWarning
from convgen.tuning import database as database_module
from convgen.tuning.database import Database
from tests.tuning.test_database import OTHER, RECORD, one_warning

FORK = multiprocessing.get_context("fork")
NOBODY = 65534
# SQLite's; how far from a page's ends all cuts are stored after, and every which cut is elsewhere.
PAGE_BYTES = 4096
EDGE_BYTES = 24
STORED = 61


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tuning.sqlite"


def _write_many(path: Path, name: int, count: int) -> None:
    warnings.simplefilter("error")
    for index in range(count):
        Database(path, timeout=120.0).store(dataclasses.replace(RECORD, problem=f"{name}/{index}"))


def test_all_rows_of_all_writers_are_there(path: Path) -> None:
    writers, count = 16, 50
    processes = [FORK.Process(target=_write_many, args=(path, name, count)) for name in range(writers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(280)
    assert [process.exitcode for process in processes] == [0] * writers
    expected = {f"{name}/{index}" for name in range(writers) for index in range(count)}
    assert {record.problem for record in Database(path).records()} == expected


def _write_until_killed(path: Path, first: int, acknowledged: int) -> None:
    """Stores numbered records, and tells the number of each that is stored."""
    number = first
    while True:
        Database(path, timeout=60.0).store(dataclasses.replace(RECORD, problem=str(number)))
        os.write(acknowledged, number.to_bytes(4, "little"))
        number += 1


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_a_kill_loses_at_most_the_row_in_flight(path: Path, kills: int) -> None:
    chance = random.Random(0)
    stored = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(kills):
            reading, writing = os.pipe()
            child = FORK.Process(target=_write_until_killed, args=(path, stored, writing))
            child.start()
            os.close(writing)
            # Once the first is stored, so that kills fall on writing and not on starting.
            os.read(reading, 4)
            time.sleep(chance.uniform(0.0, 0.02))
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
            told = stored + 1
            while os.read(reading, 4):
                told += 1
            os.close(reading)
            found = sorted(int(record.problem) for record in Database(path, timeout=60.0).records())
            assert found == list(range(len(found)))
            assert told <= len(found) <= told + 1
            stored = len(found)


def _look(path: Path, *, stores: bool = True) -> None:
    """What is found is what was stored, or nothing; there is one warning at most, and storing works."""
    database_module._warned.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Database(path) as database:
            found = database.records()
            assert set(found) <= {RECORD, OTHER}, found
            if stores:
                database.store(OTHER)
                assert OTHER in database.records()
    assert [entry.category for entry in caught] in ([], [CacheWarning]), [str(entry.message) for entry in caught]
    assert len(found) == 2 or len(caught) == 1


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """A database with two records, byte by byte."""
    path = tmp_path / "whole.sqlite"
    for record in (RECORD, OTHER):
        Database(path).store(record)
    return path.read_bytes()


@pytest.mark.parametrize("step", [997, pytest.param(1, marks=pytest.mark.slow)])
def test_a_file_cut_anywhere(path: Path, content: bytes, step: int) -> None:
    """The header's bytes each, then by steps. To SQLite a file of one byte is an empty one.

    Each is read. Storing, of which most of the time is waiting for the disk, follows where a page begins or ends, and here and
    there within: what a cut within a page leaves of it is the same to a writer.
    """
    for size in (*range(2, 110), *range(110, len(content), step)):
        path.write_bytes(content[:size])
        is_edge = min(size % PAGE_BYTES, -size % PAGE_BYTES) <= EDGE_BYTES
        _look(path, stores=size < 110 or step > 1 or is_edge or size % STORED == 0)


def test_who_sets_a_damaged_file_aside_is_not_waited_for_forever(path: Path, content: bytes) -> None:
    path.write_bytes(content[:500])
    with path.open("rb") as other, one_warning(path):
        fcntl.flock(other, fcntl.LOCK_EX)
        assert Database(path, timeout=0.2).records() == ()
    assert path.read_bytes() == content[:500]


@pytest.mark.parametrize("count", [60, pytest.param(4000, marks=pytest.mark.slow)])
def test_a_bit_flipped_anywhere(path: Path, content: bytes, count: int) -> None:
    chance = random.Random(0)
    for bit in chance.sample(range(8 * len(content)), count):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        _look(path)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may enter: pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _as_nobody(action: Callable[[], None]) -> int | None:
    """The exit status of an action by a user who may write nothing of ours."""

    def run() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        action()

    process = FORK.Process(target=run)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_the_folder_of_another_user_is_read_and_not_written(open_folder: Path) -> None:
    path = open_folder / "tuning.sqlite"
    Database(path).store(RECORD)

    def use() -> None:
        with one_warning(path):
            database = Database(path)
            assert database.records() == (RECORD,)
            database.store(OTHER)
            assert database.records() == (RECORD, OTHER)
            assert database.claim(OTHER.key, "x", time.time() + 60, lambda _: False) is None

    assert _as_nobody(use) == 0
    assert Database(path).records() == (RECORD,)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a disk of 64 KiB cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(tiny_disk: Path) -> None:
    path = tiny_disk / "tuning.sqlite"
    Database(path).store(RECORD)
    (tiny_disk / "filler").write_bytes(bytes(1 << 12))
    bulky = dataclasses.replace(OTHER, rejected=("x" * (60 << 10),))
    with one_warning(path):
        database = Database(path)
        database.store(bulky)
        assert database.records() == (RECORD, bulky)
        assert Database(path).records() == (RECORD,)
    (tiny_disk / "filler").unlink()
    Database(path).store(dataclasses.replace(OTHER, threads=7))
    assert len(Database(path).records()) == 2
