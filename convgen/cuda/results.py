"""What tuning has found for a device: its place in the database that all machines' results share."""

from __future__ import annotations

import datetime

from convgen import __version__
from convgen.choices import TunedPlan, database, store
from convgen.cuda.device import gpu_of_device
from convgen.driver import Plan
from convgen.gpu import Gpu
from convgen.spec import ConvSpec
from convgen.strategies.accuracy import accuracy_limit
from convgen.strategies.cuda.registry import GPU_STRATEGIES, gpu_applicable
from convgen.targets.cuda.driver import DeviceFacts
from convgen.tuning.evidence import decide
from convgen.tuning.record import Record, current_tools
from convgen.tuning.space import Config

# A device has no number of threads to choose.
_THREADS = 0


def known_result(spec: ConvSpec, facts: DeviceFacts) -> TunedPlan | None:
    """What the database knows of a problem on a device of these facts, if the strategy still offers it; raises NotApplicable."""
    gpu = gpu_of_device(facts)
    offered = [
        record
        for record in database().find(spec.to_json(), facts.fingerprint())
        if (record.threads, record.version) == (_THREADS, __version__)
        and record.verified
        and _is_offered(spec, gpu, record.strategy, record.config)
    ]
    registry = tuple(strategy.name for strategy in GPU_STRATEGIES)
    record = decide(offered, registry, current_tools())
    if record is None:
        return None
    plan = Plan(spec, record.strategy, record.config, "database", record.seconds)
    return TunedPlan(
        plan, record.seconds, record.baseline_seconds, record.error, record.candidates, record.rejected, measured=False
    )


def store_result(result: TunedPlan, facts: DeviceFacts) -> None:
    """Remembers what won on a device of these facts."""
    store(
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
            verified="gates A and B",
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            candidates=result.candidates,
            rejected=result.rejected,
            tools=current_tools(),
        ),
        replaces=True,
    )


def _is_offered(spec: ConvSpec, gpu: Gpu, name: str, config: Config) -> bool:
    return any(
        strategy.name == name
        and strategy.error_bound(spec) <= accuracy_limit(spec)
        and config in strategy.space(spec, gpu)
        for strategy in gpu_applicable(spec, gpu)
    )
