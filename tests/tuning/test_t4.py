"""Documents in T4, and the schema that they are held against."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from convgen.descriptor import parse_descriptor
from convgen.errors import ExchangeError
from convgen.tuning.t4 import check_t4, to_t4
from tests.tuning.test_database import OTHER, PROBLEM, RECORD


def document() -> Any:
    return json.loads(json.dumps(to_t4([RECORD, OTHER, dataclasses.replace(RECORD, origin="pinned")])))


def test_each_measurement_is_a_result() -> None:
    found = document()
    check_t4(found)
    assert len(found["results"]) == len(RECORD.candidates)
    first = found["results"][0]
    configuration = first["configuration"]
    assert parse_descriptor(configuration.pop("problem")) == PROBLEM
    assert configuration == {
        "machine": RECORD.fingerprint,
        "threads": 2,
        "strategy": "direct",
        "pixels": 7,
        "lanes": 64,
    }
    assert {each["name"]: each["value"] for each in first["measurements"]} == {
        "time": 1.25e-3,
        "time_low": 1.2e-3,
        "time_high": 1.3e-3,
        "runs": 40,
    }


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda found: found.update(schema_version=1), r"document.schema_version=1 is of a kind"),
        (lambda found: found.update(schema_version="1.0"), r"schema_version='1.0' is not valid"),
        (lambda found: found.update(results={}), r"document.results=\{\} is of a kind"),
        (lambda found: found["results"].append([]), r"results\[2\] is a list"),
        (lambda found: found["results"][1].pop("times"), r"results\[1\] lacks 'times'"),
        (lambda found: found["results"][0].update(configuration=""), r"results\[0\].configuration='' is of a kind"),
        (lambda found: found["results"][0].update(correctness=True), r"results\[0\].correctness=True is of a kind"),
        (
            lambda found: found["results"][0].update(invalidity="slow"),
            r"invalidity='slow' is not known; allowed: timeout",
        ),
        (lambda found: found["results"][0]["times"].update(runtimes=1.0), r"results\[0\].times.runtimes=1.0"),
        (lambda found: found["results"][0]["measurements"][1].update(unit=1), r"measurements\[1\].unit=1"),
    ],
)
def test_what_the_schema_does_not_admit(spoil: Callable[[Any], object], why: str) -> None:
    found = copy.deepcopy(document())
    spoil(found)
    with pytest.raises(ExchangeError, match=why):
        check_t4(found)


def test_what_the_schema_leaves_open() -> None:
    found = document()
    found["producer"] = "another"
    found["results"][0]["times"]["compilation_time"] = 2
    del found["results"][1]["measurements"]
    check_t4(found)
    check_t4({})
