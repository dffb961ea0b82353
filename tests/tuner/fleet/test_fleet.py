"""Jobs go to workers, results come back and are merged, and a lost worker costs its job."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import warnings
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import convgen
from convgen import __version__
from convgen.choices import TunedPlan, database
from convgen.errors import FleetError, FleetWarning, NotApplicable, VerificationWarning
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.registry import strategy_named
from convgen.tuner import fleet, fleet_job
from convgen.tuner.fleet import Group, Job, Outcome, records_of, run_job, tune_on
from convgen.tuner.fleet_job import answered
from convgen.tuning.database import default_path
from convgen.tuning.record import Record, current_tools, from_fields, to_fields
from convgen.tuning.space import Config

HOST = Machine.host()
SPEC = ConvSpec(batch=1, in_channels=4, out_channels=40, spatial_size=(9, 8), kernel_size=3, padding=1)
SPECS = [SPEC, SPEC.replace(out_channels=24), SPEC.replace(out_channels=8)]


@pytest.fixture(autouse=True)
def _own_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path))


def record(job: Job, fingerprint: str = HOST.fingerprint(), seconds: float = 1e-4) -> Record:
    return Record(
        problem=job.problem,
        fingerprint=fingerprint,
        threads=job.threads or 1,
        version=__version__,
        strategy="reference",
        config=Config(),
        seconds=seconds,
        baseline_seconds=2e-4,
        error=1e-7,
        verified="gates A and B",
        created="2026-01-02T03:04:05+00:00",
        tools=current_tools(),
    )


class Worker(Executor):
    """Answers by a function, at once; what it raises is the job's exception."""

    def __init__(self, answer: Callable[[Job], Outcome], *, broken_after: int = 1000) -> None:
        self.jobs: list[Job] = []
        self._answer = answer
        self._broken_after = broken_after

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        assert function is run_job
        (job,) = arguments
        if len(self.jobs) >= self._broken_after:
            raise BrokenExecutor("the pool is broken")
        self.jobs.append(job)
        future: Future[Any] = Future()
        try:
            future.set_result(self._answer(job))
        except Exception as error:
            future.set_exception(error)
        return future


def answer(job: Job) -> Outcome:
    return Outcome((to_fields(record(job)),))


def test_every_distinct_problem_is_a_job_with_its_share_and_results_are_stored_here() -> None:
    worker = Worker(answer)
    seen: list[int] = []
    found = convgen.tune(
        [*SPECS, SPEC], 6.0, threads=2, executor=worker, force=True, observer=lambda i, _: seen.append(i)
    )
    assert isinstance(found, list)
    assert [each.plan.spec for each in found] == [*SPECS, SPEC]
    assert [job.problem for job in worker.jobs] == [spec.to_json() for spec in SPECS]
    assert {(job.budget, job.threads, job.force) for job in worker.jobs} == {(2.0, 2, True)}
    assert sorted(seen) == [0, 1, 2]
    assert {stored.problem for stored in database().records()} == {spec.to_json() for spec in SPECS}
    one = convgen.tune(SPEC, 1.0, executor=Worker(answer))
    assert isinstance(one, TunedPlan)
    assert one.seconds == 1e-4


def test_every_group_tunes_all_and_the_result_is_this_machines() -> None:
    other = Worker(lambda job: Outcome((to_fields(record(job, "f" * 16, 9e-4)),)))
    own = Worker(answer)
    groups = [Group(other, 1, "another"), Group(own, 2, "own")]
    found = tune_on(groups, SPECS, Job("", 0.0), 3.0)
    assert [each.seconds for each in found] == [1e-4] * 3
    assert len(other.jobs) == len(own.jobs) == 3
    assert {job.threads for job in own.jobs} == {2}
    assert len(database().records()) == 6
    assert [each.seconds for each in tune_on(groups[:1], SPECS[:1], Job("", 0.0), 3.0)] == [9e-4]


def test_a_lost_job_is_tried_once_more() -> None:
    lost: list[str] = []

    def flaky(job: Job) -> Outcome:
        if job.problem == SPECS[1].to_json() and not lost:
            lost.append(job.problem)
            raise BrokenExecutor("its worker is gone")
        return answer(job)

    with pytest.warns(FleetWarning, match="was lost .its worker is gone.; it is tried once more"):
        found = convgen.tune(SPECS, 3.0, executor=Worker(flaky))
    assert isinstance(found, list)
    assert len(found) == 3
    assert len(database().records()) == 3


def test_what_is_lost_twice_costs_itself_and_not_the_others() -> None:
    def dead(job: Job) -> Outcome:
        if job.problem == SPECS[1].to_json():
            raise FleetError("no answer")
        return answer(job)

    with (
        pytest.warns(FleetWarning, match="it is given up"),
        pytest.raises(FleetError, match="no worker has tuned mb1_ic4i9x8_oc24"),
    ):
        convgen.tune(SPECS, 3.0, executor=Worker(dead))
    assert len(database().records()) == 2


def test_a_broken_executor_is_no_endless_loop() -> None:
    with pytest.warns(FleetWarning, match="the pool is broken"), pytest.raises(FleetError):
        convgen.tune(SPECS, 3.0, executor=Worker(answer, broken_after=1))
    assert len(database().records()) == 1


def test_errors_come_back_as_what_they_are_after_all_others_are_done() -> None:
    def refuse(job: Job) -> Outcome:
        return Outcome(error=("NotApplicable", "too strict")) if job.problem == SPEC.to_json() else answer(job)

    with pytest.raises(NotApplicable, match="too strict"):
        convgen.tune(SPECS, 3.0, executor=Worker(refuse))
    assert len(database().records()) == 2
    with pytest.raises(FleetError, match="odd"):
        convgen.tune(SPEC, 3.0, executor=Worker(lambda job: Outcome(error=("KeyError", "odd"))))


def test_warnings_of_workers_are_given_here() -> None:
    worker = Worker(
        lambda job: dataclasses.replace(answer(job), warned=(("VerificationWarning", "a kernel is wrong"),))
    )
    with pytest.warns(VerificationWarning, match="a kernel is wrong"):
        convgen.tune(SPEC, 1.0, executor=worker)


def test_a_job_of_another_kind_of_machine_is_refused_and_given_out_again() -> None:
    refusal = answered(Job(SPEC.to_json(), 0.0, fingerprint="f" * 16))
    assert refusal.error == (
        "WrongMachineError",
        f"it is for a machine {'f' * 16} and came to a machine {HOST.fingerprint()}",
    )
    assert database().records() == ()
    outcomes = [refusal]
    worker = Worker(lambda job: outcomes.pop() if outcomes else answer(job))
    with pytest.warns(FleetWarning, match="lost .it is for a machine f+ and came to"):
        tune_on([Group(worker, 1, "own", HOST.fingerprint())], [SPEC], Job("", 0.0), 1.0)
    assert [job.fingerprint for job in worker.jobs] == [HOST.fingerprint()] * 2
    assert len(database().records()) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fingerprint": "f" * 16}, "done by a machine f+"),
        ({"threads": 2}, "and 2 threads"),
        ({"problem": SPECS[1].to_json()}, "done for .*24"),
    ],
)
def test_what_a_job_was_not_asked_for_is_not_stored(change: dict[str, Any], reason: str) -> None:
    worker = Worker(lambda job: Outcome((to_fields(dataclasses.replace(record(job), **change)),)))
    with pytest.warns(FleetWarning, match=reason), pytest.raises(FleetError, match="all of its jobs were lost"):
        tune_on([Group(worker, 1, "own", HOST.fingerprint())], [SPEC], Job("", 0.0), 1.0)
    assert database().records() == ()


@dataclasses.dataclass(frozen=True)
class Vanished(Group):
    """Workers that are gone as soon as they have a job; another one comes."""

    successor: Group | None = None

    def is_there(self) -> bool:
        return False

    def again(self) -> Group:
        return self.successor or self


class Silent(Worker):
    """Never answers."""

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        self.jobs += arguments
        return Future()


def test_jobs_of_a_group_that_is_gone_are_lost_and_the_next_attempt_is_its_successors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleet, "LOOK_SECONDS", 0.05)
    gone = Vanished(Silent(answer), 1, "gone", successor=Group(Worker(answer), 1, "next"))
    with pytest.warns(FleetWarning, match="on gone was lost .none of its workers is left.; it is tried once more"):
        assert len(tune_on([gone], SPECS, Job("", 0.0), 3.0)) == 3
    with pytest.warns(FleetWarning, match="given up"), pytest.raises(FleetError):
        tune_on([dataclasses.replace(gone, successor=None)], SPECS, Job("", 0.0), 3.0)


def test_an_executor_that_never_answers_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(fleet, "PATIENCE_SECONDS", 0.2)
    with (
        pytest.warns(FleetWarning, match="no job has ended for 0.2 s"),
        pytest.raises(FleetError, match="all of its jobs were lost"),
    ):
        convgen.tune(SPEC, 0.0, executor=Silent(answer))


def test_the_result_is_that_of_as_many_threads_as_here() -> None:
    worker = Worker(lambda job: Outcome((to_fields(record(job, seconds=1e-3 * (job.threads or 0))),)))
    groups = [Group(worker, count) for count in (1, 2, 3)]
    (found,) = tune_on(groups, [SPEC], Job("", 0.0, threads=2), 1.0)
    assert found.seconds == 2e-3


SHOW = """
import json, os
names = ("FORBID", "DETERMINISTIC", "TUNE", "WORKSPACE_LIMIT", "MAX_CPU_ISA")
told = [os.environ.get("CONVGEN_" + name, "") for name in names]
print(json.dumps({"records": [], "measured": False, "warned": [], "error": ["FleetError", " ".join(told)]}))
"""


def test_what_is_in_force_here_holds_for_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the instruction sets no more than the worker admits; what is not set here is not set there."""
    monkeypatch.setattr(fleet, "COMMAND", ("-c", SHOW))
    given = {"FORBID": "winograd,fft", "DETERMINISTIC": "1", "WORKSPACE_LIMIT": "4096", "MAX_CPU_ISA": "avx512"}

    def as_worker(job: Job) -> Outcome:
        with pytest.MonkeyPatch.context() as patch:
            for name in given:
                patch.delenv(f"CONVGEN_{name}")
            patch.setenv("CONVGEN_TUNE", "off")
            patch.setenv("CONVGEN_MAX_CPU_ISA", "generic")
            return run_job(job)

    for name, value in given.items():
        monkeypatch.setenv(f"CONVGEN_{name}", value)
    with pytest.raises(FleetError, match=r"^winograd,fft 1  4096 generic$"):
        convgen.tune(SPEC, 0.0, executor=Worker(as_worker))


def test_jobs_know_what_is_known_here_unless_all_is_to_be_measured_again() -> None:
    known = record(Job(SPEC.to_json(), 0.0, threads=1))
    others = [dataclasses.replace(known, fingerprint="f" * 16), dataclasses.replace(known, problem=SPECS[1].to_json())]
    database().add([known, *others])
    own, any_kind = Worker(answer), Worker(answer)
    for worker, fingerprint, force in (
        (own, known.fingerprint, False),
        (any_kind, None, False),
        (any_kind, None, True),
    ):
        tune_on([Group(worker, 1, "", fingerprint)], [SPEC], Job("", 0.0, force=force), 1.0)
    assert own.jobs[0].records == (to_fields(known),)
    assert set(map(_identity, any_kind.jobs[0].records)) == {known.identity, others[0].identity}
    assert any_kind.jobs[1].records == ()


def _identity(fields: Any) -> str:
    return from_fields(dict(fields)).identity


@pytest.mark.parametrize("origin", ["measured", "pinned"])
def test_what_is_known_here_is_not_measured(origin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's pin goes before what the worker knows."""

    def as_worker(job: Job) -> Outcome:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CONVGEN_CACHE_DIR", str(default_path().parent / "worker"))
            database().add([dataclasses.replace(known, origin="measured", strategy="direct", config=default)])
            return answered(Job(**json.loads(json.dumps(dataclasses.asdict(job)))))

    monkeypatch.setattr(fleet_job, "tune", lambda *_, **__: pytest.fail("it is known"))
    default = strategy_named("direct").default(SPEC, HOST)
    known = dataclasses.replace(record(Job(SPEC.to_json(), 0.0, threads=1)), origin=origin)
    database().add([known])
    found = convgen.tune(SPEC, 1.0, threads=1, executor=Worker(as_worker))
    assert isinstance(found, TunedPlan)
    assert (found.plan.strategy, found.measured) == ("reference", False)
    assert found.plan.origin == ("pinned" if origin == "pinned" else "database")
    assert database().records() == (known,)


def test_with_force_what_is_found_takes_the_place_of_what_is_there() -> None:
    old = dataclasses.replace(record(Job(SPEC.to_json(), 0.0, threads=1)), created="2025-01-02T03:04:05+00:00")
    database().add([old])
    convgen.tune(SPEC, 1.0, threads=1, executor=Worker(answer), force=True)
    assert [each.created for each in database().records()] == ["2026-01-02T03:04:05+00:00"]


def test_a_pin_of_a_worker_stays_there() -> None:
    worker = Worker(
        lambda job: Outcome((to_fields(dataclasses.replace(record(job), origin="pinned")),), measured=False)
    )
    found = convgen.tune(SPEC, 1.0, executor=worker)
    assert isinstance(found, TunedPlan)
    assert (found.plan.origin, found.measured) == ("pinned", False)
    assert database().records() == ()


def test_a_job_that_dies_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "COMMAND", ("-c", "import sys; sys.exit('no memory')"))
    with pytest.raises(FleetError, match="status 1: no memory"):
        run_job(Job(SPEC.to_json(), 0.0))
    monkeypatch.setattr(fleet, "COMMAND", ("-c", "import time; time.sleep(100)"))
    monkeypatch.setattr(fleet, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(FleetError, match="timed out"):
        run_job(Job(SPEC.to_json(), 0.0))


@pytest.mark.slow
def test_a_job_tunes_in_a_process_of_its_own() -> None:
    outcome = run_job(Job(SPEC.to_json(), 0.0, threads=1))
    assert outcome.error is None
    (found,) = records_of(outcome)
    assert (found.problem, found.fingerprint, found.threads) == (SPEC.to_json(), HOST.fingerprint(), 1)
    assert found.seconds > 0
    bad = run_job(Job(SPEC.replace(accuracy=1e-30).to_json(), 0.0, threads=1))
    assert bad.error is not None
    assert bad.error[0] == "NotApplicable"


def _forget_options() -> None:
    os.environ.pop("CONVGEN_FORBID", None)


@pytest.mark.slow
def test_what_is_forbidden_here_is_no_candidate_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVGEN_FORBID", "direct,im2col_gemm")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_forget_options) as executor:
        found = convgen.tune(SPEC, 2.0, threads=1, executor=executor)
    assert isinstance(found, TunedPlan)
    tried = {each.strategy for each in found.candidates}
    assert tried
    assert tried.isdisjoint({"direct", "im2col_gemm"})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_tune(method: str) -> None:
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as executor, warnings.catch_warnings():
        warnings.simplefilter("error", FleetWarning)
        found = convgen.tune(SPECS, 0.0, threads=2, executor=executor)
    assert isinstance(found, list)
    assert all(each.seconds > 0 for each in found)
    assert {stored.threads for stored in database().records()} == {2}
