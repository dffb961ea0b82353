"""Runs a benchmark: everybody gets the same numbers, is held against float64 once, and is timed in turn with all others."""

from __future__ import annotations

import datetime
import functools
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np

from convgen import __version__
from convgen.bench.contender import Array, Contender, Job, Peer, from_layout
from convgen.bench.cores import pinned
from convgen.bench.own import AUTOMATIC, Choice, compiled, own_contender, packing_seconds
from convgen.bench.peers import check_peer_names, load_peer
from convgen.bench.results import LayerResult, Refusal, Report, Setting, Timing
from convgen.bench.roofline import Roofline, measure_roofline
from convgen.descriptor import format_descriptor
from convgen.errors import MissingDependencyError, OptionError, VerificationError
from convgen.machine import Machine
from convgen.oracle import reference
from convgen.spec import LAYOUTS, ConvSpec, Epilogue
from convgen.tuning.measure import Sample, measure
from convgen.verify import computes_the_same, normal_operands, relative_l2

# Contenders this much slower than the fastest peer are timed in the first rounds alone.
_HOPELESS = 1.4
_FIRST_ROUNDS = 3
_ROUNDS = 7
# Longer than any library's threads wait busily for the next call.
_SETTLE_SECONDS = 5e-3
_CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Layer:
    """A problem to measure: its name and how often it occurs."""

    name: str
    count: int
    spec: ConvSpec


@dataclass(frozen=True)
class BenchOptions:
    """How to measure.

    ``against`` are names of ``peers.PEER_NAMES``; ``seconds`` is the time to measure a layer, which may take longer where some
    rounds need more; with ``same_layout`` peers may only use the problem's layout. ``clock`` "cpu" counts
    the processor's time instead of the wall clock's, on one thread alone: other programs on the machine disturb it less.
    """

    against: tuple[str, ...]
    threads: int
    choice: Choice = AUTOMATIC
    seconds: float = 2.0
    same_layout: bool = False
    clock: str = "wall"

    def check(self) -> None:
        """Raises OptionError for what is unknown or does not go together."""
        check_peer_names(self.against)
        self.choice.check()
        if self.clock not in _CLOCKS:
            raise OptionError(f"clock={self.clock!r} is unknown; allowed: {', '.join(_CLOCKS)}")
        if self.clock == "cpu" and self.threads > 1:
            raise OptionError(
                f"clock='cpu' counts the time of all threads; allowed with threads={self.threads}: 'wall'"
            )


LayerObserver = Callable[[LayerResult], object]


def run_benchmark(
    suite: str, layers: Sequence[Layer], options: BenchOptions, observer: LayerObserver | None = None
) -> Report:
    """Measures every layer, without its epilogue, on as many processors as threads.

    A peer that is not installed or refuses a problem is reported. Raises OptionError for options and for no layers,
    VerificationError if convgen's own result is wrong, and what compiling raises.
    """
    options.check()
    if not layers:
        raise OptionError(f"layers of {suite!r}: none is selected; allowed: at least one")
    with pinned(options.threads):
        # Threads of a library live where it is loaded, so that comes after pinning.
        peers, missing = _load(options.against)
        roofline = measure_roofline(Machine.host(), options.threads, layers[0].spec.dtype)
        results = []
        for layer in layers:
            results.append(_measure_layer(layer, peers, options, roofline))
            if observer is not None:
                observer(results[-1])
        roofline = roofline.merged(measure_roofline(Machine.host(), options.threads, layers[0].spec.dtype))
    judged = [
        replace(result, flop_seconds=roofline.flop_seconds(layer.spec), byte_seconds=roofline.byte_seconds(layer.spec))
        for layer, result in zip(layers, results, strict=True)
    ]
    return Report(_setting(suite, layers, peers, options, roofline), tuple(missing), tuple(judged))


def _load(names: Sequence[str]) -> tuple[list[Peer], list[Refusal]]:
    peers, missing = [], []
    for name in names:
        try:
            peers.append(load_peer(name))
        except MissingDependencyError as error:
            missing.append(Refusal(name, str(error)))
    return peers, missing


def _measure_layer(layer: Layer, peers: Sequence[Peer], options: BenchOptions, roofline: Roofline) -> LayerResult:
    quantized = layer.spec.dtype == "int8" and layer.spec.direction == "forward"
    spec = layer.spec.replace(epilogue=Epilogue(("requantize",) if quantized else ()))
    given = normal_operands(spec, np.random.default_rng(0))
    operands = given.main
    job = replace(_job(spec, operands, options), multipliers=given.epilogue.get("requantize"))
    op = compiled(job, options.choice)
    entered, refusals = _enter(peers, job)
    contenders = [own_contender(op, job), *entered]
    expected = reference(spec, *operands, **given.epilogue)
    if spec.direction != "backward_weights":
        expected = from_layout(expected, spec.layout)
    errors = {}
    for contender in contenders:
        outcome = _checked(contender, spec, expected)
        if isinstance(outcome, Refusal):
            refusals.append(outcome)
        else:
            errors[contender] = outcome
    if contenders[0] not in errors:
        raise VerificationError(f"{refusals[-1].reason}, by {op.plan.strategy} {op.plan.config}, for {spec}")
    timings = [
        Timing(contender.peer, contender.variant, sample.median, sample.low, sample.high, errors[contender])
        for contender, sample in zip(errors, _race(list(errors), options), strict=True)
    ]
    return LayerResult(
        layer=layer.name,
        count=layer.count,
        problem=format_descriptor(spec),
        strategy=op.plan.strategy,
        config=str(op.plan.config),
        origin=op.plan.origin,
        flops=spec.flops,
        bytes_moved=spec.bytes_moved,
        flop_seconds=roofline.flop_seconds(spec),
        byte_seconds=roofline.byte_seconds(spec),
        packing_seconds=packing_seconds(op, job),
        own=timings[0],
        peers=tuple(timings[1:]),
        refusals=tuple(refusals),
    )


def _steps(spec: ConvSpec) -> str:
    """What follows the sums in every contender."""
    quantized = spec.dtype == "int8" and spec.direction == "forward"
    return "requantized to int8" if quantized else "without epilogue"


def _job(spec: ConvSpec, operands: tuple[Array, ...], options: BenchOptions) -> Job:
    first, second = operands
    layouts = (spec.layout,) if options.same_layout else LAYOUTS
    second_is_image = spec.direction == "backward_weights"
    return Job(
        spec,
        np.ascontiguousarray(from_layout(first, spec.layout)),
        np.ascontiguousarray(from_layout(second, spec.layout) if second_is_image else second),
        options.threads,
        layouts,
    )


def _enter(peers: Sequence[Peer], job: Job) -> tuple[list[Contender], list[Refusal]]:
    contenders: list[Contender] = []
    refusals = []
    for peer in peers:
        try:
            contenders += peer.contenders(job)
        except Exception as error:  # a library's own refusals are of any type
            refusals.append(Refusal(peer.name, _first_line(error)))
    return contenders, refusals


def _checked(contender: Contender, spec: ConvSpec, expected: Array) -> float | Refusal:
    """The relative L2 error of a contender, or why it cannot take part."""
    try:
        result = contender.result()
    except Exception as error:
        return Refusal(contender.peer, f"{contender.variant}: {_first_line(error)}")
    if result.shape != expected.shape:
        return Refusal(contender.peer, f"{contender.variant}: shape {result.shape} instead of {expected.shape}")
    distance = relative_l2(result, expected)
    if not computes_the_same(distance, spec):
        return Refusal(contender.peer, f"{contender.variant}: wrong result, relative L2 error {distance:.1e}")
    return distance


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _race(contenders: Sequence[Contender], options: BenchOptions) -> list[Sample]:
    """Times all in some rounds, then those that may matter, convgen (the first) among them, in all that is left."""
    timed = functools.partial(measure, settle=_SETTLE_SECONDS, clock=_CLOCKS[options.clock])
    calls = [contender.call for contender in contenders]
    first = list(timed(calls, budget=options.seconds / 4, rounds_min=_FIRST_ROUNDS))
    limit = _HOPELESS * min((sample.median for sample in first[1:]), default=math.inf)
    finalists = [i for i, sample in enumerate(first) if i == 0 or sample.median <= limit]
    final = timed([calls[i] for i in finalists], budget=options.seconds * 3 / 4, rounds_min=_ROUNDS)
    for i, sample in zip(finalists, final, strict=True):
        first[i] = sample
    return first


def _setting(
    suite: str, layers: Sequence[Layer], peers: Sequence[Peer], options: BenchOptions, roofline: Roofline
) -> Setting:
    spec = layers[0].spec
    versions = [f"convgen {__version__}", f"Python {platform.python_version()}", f"numba {version('numba')}"]
    versions += [f"{peer.name} {peer.version()}" for peer in peers]
    tuned = options.choice.tune_seconds
    how = f"tuned, {tuned:g} s a layer" if tuned is not None else "untuned: the database's choice or the heuristic's"
    last_bytes, last_rate = roofline.copies[-1]
    l2 = Machine.host().l2_bytes * options.threads // 2
    facts = (
        ("machine", Machine.host().describe()),
        ("versions", ", ".join(versions)),
        ("date", datetime.datetime.now(datetime.UTC).date().isoformat()),
        (
            "problems",
            f"{spec.direction}, {spec.dtype}, batch {spec.batch}, {spec.layout}, accuracy {spec.accuracy}, {_steps(spec)}",
        ),
        (
            "threads",
            f"{options.threads}, {options.clock} clock, {os.getloadavg()[0]:.1f} programs running in the last minute",
        ),
        ("convgen", f"{how}, strategy {options.choice.strategy}, weights packed beforehand"),
        ("peers", f"in {'the same layout' if options.same_layout else 'whichever layout is faster'}, weights constant"),
        (
            "measured roofline",
            f"{roofline.peak / 1e9:.0f} GF/s, copies {roofline.bandwidth(l2) / 1e9:.1f} GB/s of {l2 >> 10} KiB, "
            f"{last_rate / 1e9:.1f} GB/s of {last_bytes >> 20} MiB (read plus written)",
        ),
    )
    return Setting(suite, options.threads, tuple(peer.name for peer in peers), facts, roofline.peak, roofline.copies)
