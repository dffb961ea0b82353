"""The process that a fleet's job runs in: reads the job as JSON, and answers with the records that are known or tuning finds, or
with the error."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Sequence

from convgen import __version__
from convgen.choices import TunedPlan, database, plan_among
from convgen.driver import thread_count
from convgen.errors import ConvgenError, NoisyMachineWarning, VerificationWarning, WaitWarning, WrongMachineError
from convgen.machine import Machine
from convgen.runtime.parent import end_with
from convgen.spec import ConvSpec
from convgen.tuner.fleet import Job, Outcome
from convgen.tuner.session import tune
from convgen.tuning.record import ANY_THREADS, Record, from_fields, to_fields


def answered(job: Job) -> Outcome:
    """Finds out in this process; what it is warned of is told and not shown."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _check_machine(job)
            spec = ConvSpec.from_json(job.problem)
            outcome = _known(job, spec) or _tuned(job, spec)
        except ConvgenError as error:
            outcome = Outcome(error=(type(error).__name__, str(error)))
    told = tuple(
        (each.category.__name__, str(each.message))
        for each in caught
        if issubclass(each.category, VerificationWarning | NoisyMachineWarning | WaitWarning)
    )
    return dataclasses.replace(outcome, warned=told)


def _check_machine(job: Job) -> None:
    """Raises WrongMachineError where the job is for machines of another kind: an executor may move jobs between workers."""
    own = Machine.host().fingerprint()
    if job.fingerprint not in (None, own):
        raise WrongMachineError(f"it is for a machine {job.fingerprint} and came to a machine {own}")


def _known(job: Job, spec: ConvSpec) -> Outcome | None:
    """What is decided by what the job's sender knows, if that decides."""
    own = Machine.host().fingerprint()
    given = [record for record in map(from_fields, map(dict, job.records)) if record.fingerprint == own]
    threads = thread_count(job.threads)
    found = plan_among(given, spec, Machine.host(), threads, job.workspace_limit)
    return None if found is None else _outcome(found, given, threads)


def _tuned(job: Job, spec: ConvSpec) -> Outcome:
    threads = thread_count(job.threads)
    found = tune(
        spec,
        job.budget,
        threads=threads,
        workspace_limit=job.workspace_limit,
        force=job.force,
        cache=job.cache,
    )
    assert isinstance(found, TunedPlan)
    return _outcome(found, database().find(job.problem, Machine.host().fingerprint()), threads)


def _outcome(found: TunedPlan, records: Sequence[Record], threads: int) -> Outcome:
    """The records that hold the choice, the latest first."""
    plan, is_pinned = found.plan, found.plan.origin == "pinned"
    same = [each for each in records if each.choice == (plan.strategy, plan.config) and each.is_pinned == is_pinned]
    here = [
        each for each in same if each.threads in (threads, ANY_THREADS) and (is_pinned or each.version == __version__)
    ]
    here.sort(key=lambda record: (record.threads, record.created), reverse=True)
    return Outcome(tuple(map(to_fields, here)), measured=found.measured)


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    # Nothing that is printed on the way may be taken for the answer.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        answers.write(json.dumps(dataclasses.asdict(answered(Job(**json.load(sys.stdin))))) + "\n")
