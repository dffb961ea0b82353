"""Choices that a person makes: held against the oracle before they are accepted, and never overridden by a measurement."""

from __future__ import annotations

import datetime

import numpy as np

from convgen import __version__
from convgen.choices import database, is_offered
from convgen.driver import algorithms_of_plan, given_plan, thread_count
from convgen.errors import NotApplicable, VerificationError
from convgen.machine import Machine
from convgen.operator import CompiledConv
from convgen.spec import ConvSpec
from convgen.tuning.record import ANY_THREADS, Record, current_tools
from convgen.tuning.space import Config
from convgen.verify import gate_a, gate_b


def pin(spec: ConvSpec, strategy: str, config: Config | None = None, threads: int | None = None) -> Record:
    """Stores the choice of a strategy, with its default configuration if none is given, for a problem on this machine, for a
    number of threads or any, and returns its record.

    Raises NotApplicable where the strategy refuses the problem, is not accurate enough for it or is forbidden, and
    VerificationError where its numbers are not the oracle's.
    """
    machine = Machine.host()
    count = thread_count(threads)
    plan = given_plan(spec, strategy, config, machine)
    if not is_offered(plan.strategy, plan.config, spec, machine):
        raise NotApplicable(
            f"strategy={strategy!r} is forbidden, or less accurate than accuracy={spec.accuracy!r} admits"
        )
    op = CompiledConv(plan, machine, count)
    algorithms = algorithms_of_plan(plan)
    errors = []
    for gate in (gate_a, gate_b):
        comparison = gate(spec, op, np.random.default_rng(0), algorithms)
        if not comparison.ok:
            raise VerificationError(f"strategy={strategy!r} computes {spec} wrongly: {comparison.reason}")
        errors.append(comparison.relative_l2)
    record = Record(
        problem=spec.to_json(),
        fingerprint=machine.fingerprint(),
        threads=ANY_THREADS if threads is None else count,
        version=__version__,
        strategy=plan.strategy,
        config=plan.config,
        seconds=0.0,
        baseline_seconds=0.0,
        error=errors[-1],
        verified="gates A and B",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
        tools=current_tools(),
        origin="pinned",
    )
    # Stored first: whatever ends this process in between leaves a pin, and of several the newest holds.
    database().store(record)
    database().remove([each for each in _pins(spec, record.threads) if each.identity != record.identity])
    return record


def unpin(spec: ConvSpec, threads: int | None = None) -> int:
    """Removes the pins of a problem on this machine, for this number of threads or for any, and returns how many there were."""
    return database().remove(_pins(spec, ANY_THREADS if threads is None else thread_count(threads)))


def _pins(spec: ConvSpec, threads: int) -> list[Record]:
    """The pins of a problem on this machine, whichever version's."""
    found = database().find(spec.to_json(), Machine.host().fingerprint())
    return [record for record in found if record.is_pinned and record.threads == threads]
