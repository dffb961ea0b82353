"""What tuning has found for a device: its place in the database that all machines' results share."""

from __future__ import annotations

import datetime

from convgen import __version__
from convgen.choices import Candidate, TunedPlan, database
from convgen.driver import Plan
from convgen.gpu import Gpu, gpu_for
from convgen.spec import ConvSpec
from convgen.strategies.accuracy import accuracy_limit
from convgen.strategies.cuda.registry import gpu_applicable
from convgen.targets.cuda.driver import DeviceFacts
from convgen.tuning.database import Record
from convgen.tuning.space import Config

# A device has no number of threads to choose.
_THREADS = 0


def known_result(spec: ConvSpec, facts: DeviceFacts) -> TunedPlan | None:
    """What the database knows of a problem on a device of these facts, if the strategy still offers it."""
    record = database().find(spec.to_json(), facts.fingerprint(), _THREADS, __version__)
    if record is None:
        return None
    gpu = gpu_for(facts.capability)
    if not _is_offered(spec, gpu, record.strategy, record.config):
        return None
    plan = Plan(spec, record.strategy, record.config, "database", record.seconds)
    candidates = tuple(Candidate(name, Config.parse(text), seconds) for name, text, seconds in record.candidates)
    return TunedPlan(plan, record.seconds, record.baseline_seconds, record.error, candidates, measured=False)


def store_result(result: TunedPlan, facts: DeviceFacts) -> None:
    """Remembers what won on a device of these facts."""
    database().store(
        Record(
            problem=result.plan.spec.to_json(),
            fingerprint=facts.fingerprint(),
            threads=_THREADS,
            version=__version__,
            strategy=result.plan.strategy,
            config=result.plan.config,
            seconds=result.seconds,
            baseline_seconds=result.baseline_seconds,
            error=result.error,
            verified="gate A",
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            candidates=tuple((c.strategy, str(c.config), c.seconds) for c in result.candidates),
        )
    )


def _is_offered(spec: ConvSpec, gpu: Gpu, name: str, config: Config) -> bool:
    return any(
        strategy.name == name
        and strategy.error_bound(spec) <= accuracy_limit(spec)
        and config in strategy.space(spec, gpu)
        for strategy in gpu_applicable(spec, gpu)
    )
