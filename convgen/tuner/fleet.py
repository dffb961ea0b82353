"""Tuning by an executor: each problem is a job, tuned once on each kind of machine, and all results are merged here.

Whatever implements ``concurrent.futures.Executor`` will do. One that knows its workers (Dask's) has them grouped by machine
fingerprint and threads, and every group tunes all problems; of any other, whichever worker takes a job tunes it. Workers on one
computer measure one at a time (``runtime/host_lock.py``). A job whose worker is lost, or that comes to a machine of another kind
than its group's, is tried once more, and then done without.

What is in force in the caller's process holds for its jobs: the variables that steer choices (``options.STEERING``) and, unless
all is to be measured again, what its database knows of the problem, pins above all. What that decides is not measured. What a
person has pinned on a worker's machine holds there as well, after the caller's word, and stays there.

A job runs in a process of its own, ``python -m convgen.tuner.fleet_job``, so that what else runs in the worker (other tasks, its
heartbeat, locks that a fork has left behind) is not in the process that measures, and so that no kernel can end the worker. It
ends with the worker.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path

from convgen import errors
from convgen.choices import TunedPlan, database
from convgen.driver import Plan, thread_count
from convgen.errors import ConvgenError, FleetError, FleetWarning, WrongMachineError
from convgen.machine import Machine
from convgen.options import lower_isa, max_cpu_isa, steering
from convgen.spec import ConvSpec
from convgen.tuning.measure import CacheState
from convgen.tuning.record import ANY_THREADS, Record, from_fields, to_fields

# How often a job is given out.
ATTEMPTS = 2

# What a job's process runs, with the number of the process that starts it.
COMMAND = ("-P", "-m", "convgen.tuner.fleet_job")
# What a job may take beyond its budget: starting, waiting for other jobs on the same machine, compiling the first candidate.
PATIENCE_SECONDS = 3600.0
# How often who waits for jobs looks whether their workers are still there.
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """A problem and how it is tuned; ``threads`` and ``workspace_limit`` as for tune.

    ``fingerprint`` is that of the machines it is for, None for any. ``options`` are the variables that are in force where the job
    comes from, ``records`` what the database knows of the problem there, as ``tuning.record`` writes it.
    """

    problem: str
    budget: float
    threads: int | None = None
    workspace_limit: int | None = None
    force: bool = False
    cache: CacheState = "warm"
    fingerprint: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    records: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a job has found: the records of its problem, as ``tuning.record`` writes them, the one that counts first, whether they
    were measured now, what it warned of, and the name and the message of the error that ended it, if one did."""

    records: tuple[Mapping[str, object], ...] = ()
    measured: bool = True
    warned: tuple[tuple[str, str], ...] = ()
    error: tuple[str, str] | None = None


def run_job(job: Job) -> Outcome:
    """What an executor is given: tunes in a new process and returns what that found; raises FleetError where it ends without an
    answer."""
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, **_options(job), "PYTHONPATH": path, "CONVGEN_DEBUG": "0"}
    try:
        done = subprocess.run(
            [sys.executable, *COMMAND, str(os.getpid())],
            input=json.dumps(dataclasses.asdict(job)),
            capture_output=True,
            text=True,
            env=environment,
            timeout=job.budget + PATIENCE_SECONDS,
            check=False,
        )
        answer = json.loads(done.stdout.splitlines()[-1])
        return Outcome(
            tuple(answer["records"]),
            bool(answer["measured"]),
            tuple((name, message) for name, message in answer["warned"]),
            tuple(answer["error"]) if answer["error"] else None,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError(f"a tuning process came to nothing: {error}") from error
    except (LookupError, ValueError) as error:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise FleetError(f"a tuning process ended with status {done.returncode}: {last}") from error


def _options(job: Job) -> dict[str, str]:
    """The variables of a job's process: the caller's, and of instruction sets no more than this worker admits."""
    options = dict(job.options)
    if "CONVGEN_MAX_CPU_ISA" in options:
        options["CONVGEN_MAX_CPU_ISA"] = lower_isa(options["CONVGEN_MAX_CPU_ISA"], max_cpu_isa())
    return options


def records_of(outcome: Outcome) -> list[Record]:
    """The records of an outcome; raises OptionError where it is not of this version's form."""
    return [from_fields(dict(fields)) for fields in outcome.records]


Observer = Callable[[int, TunedPlan], None]


@dataclass(frozen=True)
class Group:
    """Workers of one kind: how they are reached, with how many threads they tune, a name for messages, and the fingerprint of
    their machines, where that is known."""

    executor: Executor
    threads: int | None = None
    name: str = "the executor"
    fingerprint: str | None = None

    def is_there(self) -> bool:
        """Whether any worker is left that could do a job."""
        return True

    def again(self) -> Group:
        """The group for another attempt: the workers that are there now."""
        return self


@dataclass(frozen=True)
class _Task:
    """A job for a group, and how often it has been given out."""

    place: int
    group: Group
    job: Job
    attempt: int = 1

    def again(self) -> _Task:
        """The next attempt."""
        return replace(self, group=self.group.again(), attempt=self.attempt + 1)


@dataclass(frozen=True)
class _Found:
    """A record that decides, and whether it was measured now."""

    record: Record
    measured: bool


def tune_on(
    groups: Sequence[Group], specs: Sequence[ConvSpec], job: Job, budget: float, observer: Observer | None = None
) -> list[TunedPlan]:
    """Tunes distinct problems, each for its share of ``budget`` seconds, as ``job`` says, and returns what was found: on a
    machine like this one, with as many threads as here, if there is one among the workers, else on any.

    The records are added to the database, or with ``force`` take the place of what is there. A FleetWarning names each job that
    was lost. Raises the first error that a job has met, after all others are done, and FleetError for a problem that all of its
    jobs were lost for.
    """
    share = budget / max(1, len(specs))
    job = replace(job, budget=share, options=tuple(steering().items()))
    waiting = [_Task(place, group, _job_for(spec, group, job)) for place, spec in enumerate(specs) for group in groups]
    found: dict[int, list[_Found]] = {place: [] for place in range(len(specs))}
    failures: list[ConvgenError] = []
    while waiting:
        lost: list[_Task] = []
        for task, outcome in _finished(waiting):
            try:
                new = _found_by(task, outcome)
            except ConvgenError as error:
                failures.append(error)
                continue
            except _Lost as loss:
                lost.append(task)
                _warn_of_loss(task, str(loss), specs[task.place])
                continue
            _store([each.record for each in new], force=job.force)
            is_first = not found[task.place]
            found[task.place] += new[:1]
            if observer is not None and is_first and new:
                observer(task.place, _tuned(specs[task.place], found[task.place][0]))
        waiting = [task.again() for task in lost if task.attempt < ATTEMPTS]
    if failures:
        raise failures[0]
    return [_result(spec, found[place], job.threads) for place, spec in enumerate(specs)]


class _Lost(Exception):
    """A job came to nothing, and may be tried again; the message says why."""


def _job_for(spec: ConvSpec, group: Group, job: Job) -> Job:
    """The job of tuning a problem on a group's machines, with what is known of it here."""
    known = () if job.force else database().find(spec.to_json(), group.fingerprint)
    return replace(
        job,
        problem=spec.to_json(),
        threads=group.threads or job.threads,
        fingerprint=group.fingerprint,
        records=tuple(map(to_fields, known)),
    )


def _found_by(task: _Task, outcome: Outcome | Exception) -> list[_Found]:
    """What an outcome says, about what the task is about; raises _Lost, and the error that the job has met."""
    if isinstance(outcome, Exception):
        raise _Lost(str(outcome).splitlines()[0] if str(outcome) else type(outcome).__name__)
    _warn_again(outcome)
    match outcome.error:
        case (WrongMachineError.__name__, message):
            raise _Lost(message)
        case (name, message):
            raise _error(name, message)
    records = records_of(outcome)
    for record in records:
        if task.job.fingerprint not in (None, record.fingerprint):
            raise _Lost(f"it was done by a machine {record.fingerprint}")
        if record.problem != task.job.problem or record.threads not in (
            task.job.threads or record.threads,
            ANY_THREADS,
        ):
            raise _Lost(f"it was done for {record.problem} and {record.threads} threads")
    return [_Found(record, outcome.measured) for record in records]


def _store(records: Sequence[Record], *, force: bool) -> None:
    """Adds what is no pin: a person's word for a worker's machine is not the caller's."""
    found = [record for record in records if not record.is_pinned]
    if force:
        for record in found[:1]:
            database().store(record)
    else:
        database().add(found)


def _finished(tasks: Sequence[_Task]) -> Iterator[tuple[_Task, Outcome | Exception]]:
    """What became of the tasks, as they end; an exception for one that was lost with its worker, or that nobody can do."""
    futures: dict[Future[Outcome], _Task] = {}
    for task in tasks:
        try:
            futures[task.group.executor.submit(run_job, task.job)] = task
        except Exception as error:  # an executor that is broken or shut down, of any library
            yield task, error
    # Of the jobs that run one ends within that time.
    patience = max((task.job.budget for task in tasks), default=0.0) + PATIENCE_SECONDS
    waiting, last = set(futures), time.monotonic()
    while waiting:
        done, waiting = wait(waiting, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
        for future in done:
            yield futures[future], _outcome(future)
            last = time.monotonic()
        gone = (
            [] if done else [group for group in {futures[future].group for future in waiting} if not group.is_there()]
        )
        is_over = time.monotonic() - last > patience + LOOK_SECONDS
        why = f"no job has ended for {patience:g} s" if is_over else "none of its workers is left"
        for future in [each for each in waiting if is_over or futures[each].group in gone]:
            waiting.remove(future)
            future.cancel()
            yield futures[future], FleetError(why)


def _outcome(future: Future[Outcome]) -> Outcome | Exception:
    try:
        return future.result()
    except Exception as error:
        return error


def _warn_of_loss(task: _Task, reason: str, spec: ConvSpec) -> None:
    again = "it is tried once more" if task.attempt < ATTEMPTS else "it is given up"
    warnings.warn(f"the job for {spec} on {task.group.name} was lost ({reason}); {again}", FleetWarning, stacklevel=3)


def _warn_again(outcome: Outcome) -> None:
    """What a worker was warned of, here."""
    for name, message in outcome.warned:
        warnings.warn(message, getattr(errors, name, UserWarning), stacklevel=3)


def _error(name: str, message: str) -> ConvgenError:
    kind = getattr(errors, name, FleetError)
    return kind(message) if isinstance(kind, type) and issubclass(kind, ConvgenError) else FleetError(message)


def _result(spec: ConvSpec, found: Sequence[_Found], threads: int | None) -> TunedPlan:
    """What was found on a machine like this one, with as many threads as a call takes here, or else on any."""
    if not found:
        raise FleetError(f"no worker has tuned {spec}: all of its jobs were lost")
    own, count = Machine.host().fingerprint(), thread_count(threads)

    def likeness(each: _Found) -> tuple[bool, bool]:
        return each.record.fingerprint == own, each.record.threads in (count, ANY_THREADS)

    return _tuned(spec, max(found, key=likeness))


def _tuned(spec: ConvSpec, found: _Found) -> TunedPlan:
    record = found.record
    origin = "pinned" if record.is_pinned else "database"
    plan = Plan(spec, record.strategy, record.config, origin, record.seconds or None)
    return TunedPlan(
        plan,
        record.seconds,
        record.baseline_seconds,
        record.error,
        record.candidates,
        record.rejected,
        measured=found.measured,
    )
