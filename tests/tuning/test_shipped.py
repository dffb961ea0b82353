"""What is shipped is what was measured, on the kind of machine that the file is named after."""

from __future__ import annotations

from pathlib import Path

import pytest

from convgen.strategies.registry import STRATEGIES
from convgen.tuning import shipped
from convgen.tuning.exchange import read_records, to_lines
from convgen.tuning.shipped import shipped_records
from tests.tuning.test_database import OTHER, RECORD

DEFAULTS = Path(shipped.__file__).parent / "defaults"


@pytest.mark.parametrize("path", sorted(DEFAULTS.glob("*")), ids=lambda path: path.name)
def test_every_file_is_an_export_of_verified_measurements(path: Path) -> None:
    assert path.suffix == ".jsonl"
    for record in read_records(path):
        assert (record.fingerprint, record.origin, record.host) == (path.stem, "measured", "")
        assert record.verified
        assert record.strategy in {strategy.name for strategy in STRATEGIES}


def test_records_are_found_by_machine_and_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "DEFAULTS", tmp_path)
    (tmp_path / "f.jsonl").write_text("\n".join(to_lines([RECORD, OTHER])))
    found = shipped_records("f")
    assert [record.identity for record in found[RECORD.problem]] == [RECORD.identity, OTHER.identity]
    assert {(record.origin, record.source) for record in found[RECORD.problem]} == {("shipped", "f.jsonl")}
    assert shipped_records("g") == {}
