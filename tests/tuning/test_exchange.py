"""Results as text: everything comes back, and what is not valid is refused with its line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convgen.errors import ExchangeError
from convgen.tuning.exchange import read_records, to_lines
from convgen.tuning.record import ORIGINS, Candidate, Record
from convgen.tuning.space import Config
from tests.tuning.test_database import OTHER, PROBLEM, RECORD

HEADER = '{"format":"convgen-tuning","version":1}'

configs = st.dictionaries(st.sampled_from(("lanes", "pixels", "m")), st.integers(-9, 99)).map(
    lambda values: Config(tuple(values.items()))
)
seconds = st.floats(0.0, 1e9)
candidates = st.builds(
    Candidate,
    strategy=st.text(),
    config=configs,
    seconds=seconds,
    low=st.none() | seconds,
    high=st.none() | seconds,
    count=st.integers(0, 2**62),
    predicted=st.none() | seconds,
    passed=st.booleans(),
)
records = st.builds(
    Record,
    problem=st.sampled_from((PROBLEM.to_json(), PROBLEM.replace(groups=1, batch=7, dtype="bfloat16").to_json())),
    fingerprint=st.text(),
    threads=st.integers(0, 64),
    version=st.text(),
    strategy=st.text(),
    config=configs,
    seconds=seconds,
    baseline_seconds=seconds,
    error=seconds,
    verified=st.text(),
    created=st.text(),
    candidates=st.lists(candidates, max_size=2).map(tuple),
    rejected=st.lists(st.text(), max_size=2).map(tuple),
    workspace_limit=st.none() | st.integers(0, 2**40),
    tools=st.text(),
    origin=st.sampled_from(ORIGINS),
    source=st.text(),
    host=st.text(),
)


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@given(st.lists(records, max_size=3, unique_by=lambda record: record.identity))
def test_all_comes_back(tmp_path_factory: pytest.TempPathFactory, found: list[Record]) -> None:
    path = written(tmp_path_factory.getbasetemp() / "all.jsonl", *to_lines(found, hosts=True))
    assert sorted(read_records(path), key=repr) == sorted(found, key=repr)


def test_an_export_is_sorted_and_names_no_host() -> None:
    lines = list(to_lines([OTHER, RECORD]))
    assert lines == list(to_lines([RECORD, OTHER]))
    assert lines[0] == HEADER
    assert [json.loads(line)["fingerprint"] for line in lines[1:]] == [RECORD.fingerprint, OTHER.fingerprint]
    assert '"host"' not in "".join(lines)
    assert '"host":"h"' in "".join(to_lines([RECORD], hosts=True))


def test_origin_and_source_are_noted_and_pins_stay_pins(tmp_path: Path) -> None:
    pin = dataclasses.replace(OTHER, origin="pinned")
    path = written(tmp_path / "from.jsonl", *to_lines([RECORD, pin]))
    first, second = read_records(path, "imported")
    assert (first.origin, first.source, first.identity) == ("imported", "from.jsonl", RECORD.identity)
    assert (second.origin, second.source) == ("pinned", "")


def test_files_may_be_concatenated_and_filtered(tmp_path: Path) -> None:
    lines = list(to_lines([RECORD, OTHER]))
    path = written(tmp_path / "more.jsonl", *lines[:2], "", *lines[::2], "")
    assert [record.identity for record in read_records(path)] == [RECORD.identity, OTHER.identity]


LINE = list(to_lines([RECORD]))[1]
FIELDS = json.loads(LINE)


def changed(**fields: object) -> str:
    return json.dumps({name: value for name, value in (FIELDS | fields).items() if value is not None})


@pytest.mark.parametrize(
    ("lines", "number", "why"),
    [
        ([], 1, "the header is missing"),
        ([LINE], 1, "format=None is not known"),
        (["{}"], 1, "format=None is not known"),
        (['{"format":"convgen-lock","version":1}'], 1, "format='convgen-lock' is not known; allowed: 'convgen-tuning'"),
        (['{"format":"convgen-tuning","version":2}'], 1, "version=2 is not known; allowed: 1"),
        (['{"format":"convgen-tuning","version":true}'], 1, "version=True is not known"),
        ([HEADER, LINE, LINE[:-9]], 3, "this is not JSON"),
        ([HEADER, "", "[]"], 3, "this is not a JSON object"),
        ([HEADER, "[" * 100_000], 2, "this is not JSON"),
        ([HEADER, changed(seconds=None)], 2, "seconds is missing"),
        ([HEADER, changed(seconds=-1)], 2, "seconds=-1 is not valid; allowed: a number from 0"),
        ([HEADER, changed(seconds=True)], 2, "seconds=True is not valid"),
        ([HEADER, changed(seconds="1")], 2, "seconds='1' is not valid"),
        ([HEADER, LINE.replace("0.00125", "NaN", 1)], 2, "NaN is no number"),
        ([HEADER, LINE.replace("0.00125", "1e999", 1)], 2, "seconds=inf is not valid"),
        ([HEADER, changed(threads=2**63)], 2, "threads=9223372036854775808 is not valid"),
        (
            [HEADER, changed(config={"lanes": "4"})],
            2,
            "config={'lanes': '4'} is not valid; allowed: an object of integers",
        ),
        ([HEADER, changed(config=[4])], 2, "config=[4] is not valid"),
        ([HEADER, changed(problem={"batch": 1})], 2, "JSON problem lacks the keys"),
        ([HEADER, changed(problem="x")], 2, "JSON"),
        ([HEADER, changed(problem=FIELDS["problem"] | {"dtype": "float8"})], 2, "dtype='float8' is not supported"),
        ([HEADER, changed(origin="stolen")], 2, "origin='stolen' is not known; allowed: measured, pinned,"),
        ([HEADER, changed(extra=1)], 2, "'extra' is not a field of a record"),
        ([HEADER, changed(candidates=[{"strategy": "direct"}])], 2, "config is missing"),
        ([HEADER, changed(candidates=["direct"])], 2, "candidate='direct' is not valid"),
        ([HEADER, changed(candidates=[FIELDS["candidates"][0] | {"low": "x"}])], 2, "low='x' is not valid"),
        ([HEADER, changed(rejected=[1])], 2, "rejected"),
    ],
)
def test_what_is_not_valid_is_refused_with_its_line(tmp_path: Path, lines: list[str], number: int, why: str) -> None:
    path = written(tmp_path / "bad.jsonl", *lines)
    with pytest.raises(ExchangeError) as caught:
        read_records(path)
    assert str(caught.value).startswith(f"{path}, line {number}: ")
    assert why in str(caught.value)


def test_what_cannot_be_read_or_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match=r"none.jsonl' cannot be read: No such file"):
        read_records(tmp_path / "none.jsonl")
    (tmp_path / "bytes").write_bytes(HEADER.encode() + b"\n\xff\n")
    with pytest.raises(ExchangeError, match="line 2: this is not JSON"):
        read_records(tmp_path / "bytes")


def test_every_truncation_is_refused_or_gives_whole_records(tmp_path: Path) -> None:
    text = "\n".join(to_lines([RECORD, OTHER])).encode() + b"\n"
    whole = read_records(written(tmp_path / "whole", text.decode()))
    path = tmp_path / "cut"
    for size in range(len(text)):
        path.write_bytes(text[:size])
        try:
            found = read_records(path)
        except ExchangeError:
            continue
        assert found == whole[: len(found)]
