"""The process that a fleet's job runs in: reads the job as JSON, tunes, and answers with the records, or with the error."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings

from convgen import __version__
from convgen.choices import TunedPlan, database
from convgen.errors import ConvgenError, NoisyMachineWarning, VerificationWarning
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.tuner.fleet import Job, Outcome
from convgen.tuner.session import tune
from convgen.tuning.record import Record, to_fields


def answered(job: Job) -> Outcome:
    """Tunes in this process; what it is warned of is told and not shown."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            spec = ConvSpec.from_json(job.problem)
            found = tune(
                spec,
                job.budget,
                threads=job.threads,
                workspace_limit=job.workspace_limit,
                force=job.force,
                cache=job.cache,
            )
            assert isinstance(found, TunedPlan)
            outcome = Outcome(tuple(map(to_fields, _records(found))))
        except ConvgenError as error:
            outcome = Outcome(error=(type(error).__name__, str(error)))
    told = tuple(
        (each.category.__name__, str(each.message))
        for each in caught
        if issubclass(each.category, VerificationWarning | NoisyMachineWarning)
    )
    return dataclasses.replace(outcome, warned=told)


def _records(found: TunedPlan) -> list[Record]:
    """The records that hold the choice, which was measured with some threads and limit; the latest first."""
    stored = database().find(found.plan.spec.to_json(), Machine.host().fingerprint())
    same = [r for r in stored if r.choice == (found.plan.strategy, found.plan.config) and r.version == __version__]
    return sorted(same, key=lambda record: record.created, reverse=True)


if __name__ == "__main__":
    # Nothing that is printed on the way may be taken for the answer.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        answers.write(json.dumps(dataclasses.asdict(answered(Job(**json.load(sys.stdin))))) + "\n")
