"""Tuning by an executor: each problem is a job, tuned once on each kind of machine, and all results are merged here.

Whatever implements ``concurrent.futures.Executor`` will do. One that knows its workers (Dask's) has them grouped by machine
fingerprint and threads, and every group tunes all problems; of any other, whichever worker takes a job tunes it. Workers on one
computer measure one at a time (``runtime/host_lock.py``). A job whose worker is lost is tried once more, and then done without.

A job runs in a process of its own, ``python -m convgen.tuner.fleet_job``, so that what else runs in the worker (other tasks, its
heartbeat, locks that a fork has left behind) is not in the process that measures, and so that no kernel can end the worker.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from convgen import errors
from convgen.choices import TunedPlan, database
from convgen.driver import Plan
from convgen.errors import ConvgenError, FleetError, FleetWarning
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.tuning.measure import CacheState
from convgen.tuning.record import Record, from_fields

# How often a job is given out.
ATTEMPTS = 2

# What a job's process runs.
COMMAND = ("-P", "-m", "convgen.tuner.fleet_job")
# What a job may take beyond its budget: starting, waiting for other jobs on the same machine, compiling the first candidate.
PATIENCE_SECONDS = 3600.0


@dataclass(frozen=True)
class Job:
    """A problem and how it is tuned; ``threads`` and ``workspace_limit`` as for tune."""

    problem: str
    budget: float
    threads: int | None = None
    workspace_limit: int | None = None
    force: bool = False
    cache: CacheState = "warm"


@dataclass(frozen=True)
class Outcome:
    """What a job has found: the records of its problem, as ``tuning.record`` writes them, the one that counts first, what it
    warned of, and the name and the message of the error that ended it, if one did."""

    records: tuple[Mapping[str, object], ...] = ()
    warned: tuple[tuple[str, str], ...] = ()
    error: tuple[str, str] | None = None


def run_job(job: Job) -> Outcome:
    """What an executor is given: tunes in a new process and returns what that found; raises FleetError where it ends without an
    answer."""
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    try:
        done = subprocess.run(
            [sys.executable, *COMMAND],
            input=json.dumps(dataclasses.asdict(job)),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "CONVGEN_DEBUG": "0"},
            timeout=job.budget + PATIENCE_SECONDS,
            check=False,
        )
        answer = json.loads(done.stdout.splitlines()[-1])
        return Outcome(
            tuple(answer["records"]),
            tuple((name, message) for name, message in answer["warned"]),
            tuple(answer["error"]) if answer["error"] else None,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError(f"a tuning process came to nothing: {error}") from error
    except (LookupError, ValueError) as error:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise FleetError(f"a tuning process ended with status {done.returncode}: {last}") from error


def records_of(outcome: Outcome) -> list[Record]:
    """The records of an outcome; raises OptionError where it is not of this version's form."""
    return [from_fields(dict(fields)) for fields in outcome.records]


Observer = Callable[[int, TunedPlan], None]


@dataclass(frozen=True)
class Group:
    """Workers of one kind: how they are reached, with how many threads they tune, and a name for messages."""

    executor: Executor
    threads: int | None = None
    name: str = "the executor"


@dataclass(frozen=True)
class _Task:
    """A job for a group, and how often it has been given out."""

    place: int
    group: Group
    job: Job
    attempt: int = 1


def tune_on(
    groups: Sequence[Group], specs: Sequence[ConvSpec], job: Job, budget: float, observer: Observer | None = None
) -> list[TunedPlan]:
    """Tunes distinct problems, each for its share of ``budget`` seconds, as ``job`` says, and returns what was found: on a
    machine like this one, if there is one among the workers, else on any.

    The records are added to the database. A FleetWarning names each job that was lost. Raises the first error that a job has met,
    after all others are done, and FleetError for a problem that all of its jobs were lost for.
    """
    share = budget / max(1, len(specs))
    waiting = [
        _Task(place, group, replace(job, problem=spec.to_json(), budget=share, threads=group.threads or job.threads))
        for place, spec in enumerate(specs)
        for group in groups
    ]
    found: dict[int, list[Record]] = {place: [] for place in range(len(specs))}
    failures: list[ConvgenError] = []
    while waiting:
        lost: list[_Task] = []
        for task, outcome in _finished(waiting):
            if isinstance(outcome, Exception):
                lost.append(task)
                _warn_of_loss(task, outcome, specs[task.place])
                continue
            _warn_again(outcome)
            if outcome.error is not None:
                failures.append(_error(*outcome.error))
                continue
            records = records_of(outcome)
            database().add(records)
            is_first = not found[task.place]
            found[task.place] += records[:1]
            if observer is not None and is_first and records:
                observer(task.place, _tuned(specs[task.place], records[0]))
        waiting = [replace(task, attempt=task.attempt + 1) for task in lost if task.attempt < ATTEMPTS]
    if failures:
        raise failures[0]
    return [_result(spec, found[place]) for place, spec in enumerate(specs)]


def _finished(tasks: Sequence[_Task]) -> Iterator[tuple[_Task, Outcome | Exception]]:
    """What became of the tasks, as they end; an exception for one that was lost with its worker."""
    futures: dict[Future[Outcome], _Task] = {}
    for task in tasks:
        try:
            futures[task.group.executor.submit(run_job, task.job)] = task
        except Exception as error:  # an executor that is broken or shut down, of any library
            yield task, error
    for future in as_completed(futures):
        try:
            outcome: Outcome | Exception = future.result()
        except Exception as error:
            outcome = error
        yield futures[future], outcome


def _warn_of_loss(task: _Task, error: Exception, spec: ConvSpec) -> None:
    again = "it is tried once more" if task.attempt < ATTEMPTS else "it is given up"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    warnings.warn(f"the job for {spec} on {task.group.name} was lost ({reason}); {again}", FleetWarning, stacklevel=3)


def _warn_again(outcome: Outcome) -> None:
    """What a worker was warned of, here."""
    for name, message in outcome.warned:
        warnings.warn(message, getattr(errors, name, UserWarning), stacklevel=3)


def _error(name: str, message: str) -> ConvgenError:
    kind = getattr(errors, name, FleetError)
    return kind(message) if isinstance(kind, type) and issubclass(kind, ConvgenError) else FleetError(message)


def _result(spec: ConvSpec, records: Sequence[Record]) -> TunedPlan:
    if not records:
        raise FleetError(f"no worker has tuned {spec}: all of its jobs were lost")
    own = Machine.host().fingerprint()
    return _tuned(spec, next((record for record in records if record.fingerprint == own), records[0]))


def _tuned(spec: ConvSpec, record: Record) -> TunedPlan:
    plan = Plan(spec, record.strategy, record.config, "database", record.seconds or None)
    return TunedPlan(
        plan, record.seconds, record.baseline_seconds, record.error, record.candidates, record.rejected, measured=True
    )
