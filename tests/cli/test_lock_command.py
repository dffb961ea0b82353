"""``convgen lock``: what it writes holds, and --check says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from convgen.descriptor import parse_descriptor
from convgen.machine import Machine
from convgen.planning import plan_for
from convgen.tuner import session as tuner
from convgen.tuning.lockfile import LockEntry, read_lock, write_lock
from convgen.tuning.space import Config
from tests.test_cli import TINY, Output, fail, no_measurement, run

HOST = Machine.host().fingerprint()
OTHER = "mb1_ic2ih6oc3oh6kh3ph1"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_the_heuristics_choices_can_be_locked(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "tune", no_measurement)
    monkeypatch.setenv("CONVGEN_TUNE", "on")
    out = run(capsys, "lock", TINY, "--threads", "1")
    assert "heuristic" in out
    assert "1 entries in convgen.lock" in out
    plan = plan_for(parse_descriptor(TINY), threads=1)
    assert plan.origin == "lock"
    assert "1 of 1 problems have a valid choice" in run(capsys, "lock", TINY, "--threads", "1", "--check")


def test_what_tuning_has_found_is_locked_and_stays(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVGEN_FORBID", "direct")
    run(capsys, "tune", TINY, "--budget", "0", "--threads", "1", "--no-emit")
    assert "database" in run(capsys, "lock", TINY, "--threads", "1")
    monkeypatch.delenv("CONVGEN_FORBID")
    out = run(capsys, "tune", TINY, "--budget", "0", "--threads", "1", "--no-emit", "--force")
    assert f"decides until `convgen lock {TINY}` renews it" in out
    plan = plan_for(parse_descriptor(TINY), threads=1)
    assert (plan.strategy != "direct", plan.origin) == (True, "lock")


def test_writing_again_is_the_same_file(capsys: Output) -> None:
    run(capsys, "lock", "vgg16", "--threads", "1", "-o", "project.lock")
    content = Path("project.lock").read_bytes()
    run(capsys, "lock", "vgg16", "--threads", "1", "-o", "project.lock")
    assert Path("project.lock").read_bytes() == content


def test_other_problems_and_machines_stay_beside(capsys: Output) -> None:
    theirs = LockEntry(parse_descriptor(TINY), "of another", 1, ("direct", Config()))
    write_lock(Path("convgen.lock"), [theirs])
    run(capsys, "lock", TINY, "--threads", "1")
    run(capsys, "lock", TINY, "--threads", "2")
    assert "4 entries" in run(capsys, "lock", OTHER, "--threads", "1")
    entries = read_lock(Path("convgen.lock")).entries.values()
    assert theirs in entries
    assert sorted((entry.machine, entry.threads) for entry in entries if entry != theirs) == [
        (HOST, 1),
        (HOST, 1),
        (HOST, 2),
    ]


def test_a_check_says_what_is_missing(capsys: Output) -> None:
    run(capsys, "lock", TINY, "--threads", "1")
    out = run(capsys, "lock", OTHER, "--threads", "1", "--check", status=1)
    assert "mb1_ic2oc3_ih6oh6kh3ph1" in out
    assert "lacks it for this machine" in out
    assert "0 of 1 problems have a valid choice" in out
    assert "lacks it" in run(capsys, "lock", TINY, "--threads", "2", "--check", status=1)
    spec = parse_descriptor(TINY)
    write_lock(Path("convgen.lock"), [LockEntry(spec, HOST, 1, ("direct", Config()), ("magic", Config()))])
    out = run(capsys, "lock", TINY, "--threads", "1", "--check", status=1)
    assert "which is not offered here" in out


def test_a_lock_under_a_limit(capsys: Output) -> None:
    run(capsys, "lock", TINY, "--threads", "1", "--workspace-limit", "0")
    (entry,) = read_lock(Path("convgen.lock")).entries.values()
    assert (entry.workspace_limit, entry.choice[0]) == (0, "reference")
    assert plan_for(parse_descriptor(TINY), threads=1, workspace_limit=0).origin == "lock"
    run(capsys, "lock", TINY, "--threads", "1", "--check", status=1)
    run(capsys, "lock", TINY, "--threads", "1", "--workspace-limit", "0", "--check")


def test_a_lock_under_the_limit_of_the_environment(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVGEN_WORKSPACE_LIMIT", "0")
    run(capsys, "lock", TINY, "--threads", "1")
    (entry,) = read_lock(Path("convgen.lock")).entries.values()
    assert (entry.workspace_limit, entry.choice[0]) == (0, "reference")
    run(capsys, "lock", TINY, "--threads", "1", "--check")
    assert plan_for(parse_descriptor(TINY), threads=1).origin == "lock"


def test_bad_requests(capsys: Output) -> None:
    assert "cannot be read: No such file" in fail(capsys, "lock", TINY, "--check")
    Path("convgen.lock").write_text("=======")
    assert "line 1: this is not JSON" in fail(capsys, "lock", TINY)
    assert "workspace_limit=-1 is not valid" in fail(capsys, "lock", TINY, "--workspace-limit", "-1")
