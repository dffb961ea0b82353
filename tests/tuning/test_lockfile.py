"""The lockfile: sorted lines that come back as they are, and errors with their line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from convgen.descriptor import format_descriptor
from convgen.errors import LockError
from convgen.spec import ConvSpec
from convgen.tuning.lockfile import LockEntry, Lockfile, read_lock, write_lock
from convgen.tuning.space import Config

SPEC = ConvSpec(batch=1, in_channels=3, out_channels=4, spatial_size=(5, 5), kernel_size=3, epilogue=("bias", "relu"))
OTHER = SPEC.replace(direction="backward_data", epilogue=(), layout="channels_last")
ENTRIES = (
    LockEntry(SPEC, "a" * 16, 2, ("winograd", Config.of(m=4)), ("direct", Config())),
    LockEntry(SPEC, "a" * 16, 1, ("direct", Config.of(lanes=4))),
    LockEntry(SPEC, "b" * 16, 2, ("direct", Config())),
    LockEntry(SPEC, "a" * 16, 2, ("reference", Config()), workspace_limit=0),
    LockEntry(OTHER, "a" * 16, 2, ("direct", Config())),
)
HEADER = '{"format":"convgen-lock","version":1}'
PROBLEM = format_descriptor(SPEC)
LINE = f'{{"problem":"{PROBLEM}","machine":"a","threads":2,"strategy":"direct","config":"lanes=4"}}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "convgen.lock"


def by_key(*entries: LockEntry) -> dict[object, LockEntry]:
    return {entry.key: entry for entry in entries}


def test_what_is_written_is_read(path: Path) -> None:
    write_lock(path, ENTRIES)
    assert read_lock(path).entries == by_key(*ENTRIES)


def test_a_change_of_one_choice_is_a_change_of_one_line(path: Path) -> None:
    write_lock(path, ENTRIES)
    before = path.read_text().splitlines()
    assert before[0] == HEADER
    assert before[1:] == sorted(before[1:])
    changed = LockEntry(OTHER, "a" * 16, 2, ("pointwise", Config()))
    write_lock(path, (changed, *ENTRIES[:-1][::-1]))
    after = path.read_text().splitlines()
    assert len([line for line in before if line not in after]) == 1
    assert len(before) == len(after)


def test_what_is_found(path: Path) -> None:
    lock = Lockfile(path, {entry.key: entry for entry in ENTRIES})
    assert lock.find(SPEC, "a" * 16, 2, None) == ENTRIES[:1]
    assert lock.find(SPEC, "a" * 16, 2, 0) == (ENTRIES[0], ENTRIES[3])
    assert lock.find(SPEC, "a" * 16, 2, 5) == ENTRIES[:1]
    assert lock.find(SPEC, "a" * 16, 3, None) == ()
    assert lock.find(SPEC.replace(batch=2), "a" * 16, 2, None) == ()


def test_a_file_that_cannot_be_written_is_left_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lock(path, ENTRIES[:1])

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(LockError, match="cannot be written: Permission denied"):
            write_lock(path, ENTRIES)
    assert read_lock(path).entries == by_key(ENTRIES[0])
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with pytest.raises(LockError, match="cannot be written: No such file"):
        write_lock(path.parent / "none" / "x", ENTRIES)


@pytest.mark.parametrize(
    ("lines", "number", "why"),
    [
        ([], 1, "the header is missing"),
        ([LINE], 1, "this is not the header"),
        ([HEADER.replace("1", "2")], 1, "this is not the header"),
        ([HEADER, LINE, "<<<<<<< HEAD"], 3, "this is not JSON"),
        ([HEADER, "1"], 2, "this is not a JSON object"),
        ([HEADER, LINE.replace("mb1", "zz1")], 2, "descriptor 'zz1"),
        ([HEADER, LINE.replace('"a"', "1")], 2, "machine=1 is not valid; allowed: str"),
        ([HEADER, LINE.replace('"threads":2,', "")], 2, "threads=None is not valid; allowed: int"),
        ([HEADER, LINE.replace("2", "true", 1).replace('"threads":2', '"threads":true')], 2, "is not valid"),
        ([HEADER, LINE.replace("lanes=4", "lanes")], 2, "config='lanes' is not valid"),
        ([HEADER, LINE.replace('"machine"', '"fingerprint"')], 2, "'fingerprint' is not a field"),
        ([HEADER, LINE[:-1] + ',"streamed":["direct"]}'], 2, "streamed=['direct'] is not valid"),
        ([HEADER, LINE, LINE.replace("direct", "fft")], 3, "has two choices for one machine"),
    ],
)
def test_what_is_not_valid_is_refused_with_its_line(path: Path, lines: list[str], number: int, why: str) -> None:
    path.write_text("\n".join(lines))
    with pytest.raises(LockError) as caught:
        read_lock(path)
    assert str(caught.value).startswith(f"{path}, line {number}: ")
    assert why in str(caught.value)


def test_equal_lines_are_one_choice(path: Path) -> None:
    path.write_text("\n".join([HEADER, LINE, "", LINE]))
    assert len(read_lock(path).entries) == 1


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(LockError, match="cannot be read: No such file"):
        read_lock(path)
