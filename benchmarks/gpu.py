"""`python -m benchmarks.gpu`: builds, verifies and times kernels on a GPU against cuDNN, in about eight minutes.

Every kernel is held against the oracle on integers before it is timed. What is missing (a device, PyTorch, compute-sanitizer) is
said, and what can be done without it is done. The budget of time is no promise: after it nothing more is begun. `--dry-run`
compiles everything for a capability and needs no device.
"""

from __future__ import annotations

import argparse
import datetime
import math
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from benchmarks.gpu_peer import MORE_LAYOUTS, Cudnn
from benchmarks.gpu_report import Row, Table, as_json, markdown, roofline_seconds
from convgen.cuda import CudaConv, DeviceArray, tune
from convgen.cuda.device import Device, device_numbered, gpu_of_device
from convgen.cuda.measure import Clock
from convgen.cuda.plans import algorithms_of_cuda_plan, plan_cuda
from convgen.cuda.questions import integer_question
from convgen.cuda.results import known_result
from convgen.descriptor import format_descriptor
from convgen.driver import Plan
from convgen.errors import ConvgenError, MissingDependencyError
from convgen.gpu import DEFAULT_CAPABILITY, Gpu, gpu_of
from convgen.spec import ConvSpec
from convgen.suites import Layer, suite
from convgen.targets.cuda.build import require_toolchain

_PACKAGES = ("convgen", "numba", "numba-cuda", "cuda-core", "cuda-bindings", "nvidia-nvjitlink", "torch")
_TESTED_WITH = {"numba-cuda": "0.30.4", "nvidia-nvjitlink": "13.0.88"}
_RESULTS = Path(__file__).parent / "results"
# The part of the time left after tuning in which kernels are compiled.
_COMPILING_SHARE = 0.5
# Seconds that a problem's two contenders are timed for.
_TIMED = 0.15


@dataclass(frozen=True)
class Group:
    """Problems that share a table."""

    suite: str
    batch: int
    dtype: str
    direction: str = "forward"
    accuracy: str | float = "fast"
    depthwise: bool = False

    @property
    def title(self) -> str:
        """For people and for --groups."""
        kind = self.dtype if self.dtype != "float32" else f"float32 {self.accuracy}"
        kind = kind if isinstance(self.accuracy, str) else "float32 in TF32"
        depthwise = " depthwise" if self.depthwise else ""
        return f"{self.suite}{depthwise} {self.direction} {kind}, batch {self.batch}"

    def layers(self) -> tuple[Layer, ...]:
        """The distinct problems."""
        layers = suite(self.suite, batch=self.batch, layout="channels_last", dtype=self.dtype)
        return tuple(
            Layer(layer.name, layer.count, layer.spec.replace(direction=self.direction, accuracy=self.accuracy))
            for layer in layers
            if not self.depthwise or layer.spec.groups == layer.spec.in_channels > 1
        )


# A relative L2 error that TF32 keeps, and what is then admitted to cuDNN too.
_TF32 = 2e-3
_DIRECTIONS = ("forward", "backward_data", "backward_weights")
GROUPS = (
    *(Group("resnet50", batch, "bfloat16") for batch in (32, 256)),
    *(Group("resnet50", batch, "float32", accuracy="strict") for batch in (32, 256)),
    *(Group("mobilenet_v2", 32, "float32", direction, depthwise=True) for direction in _DIRECTIONS),
    *(Group("resnet50", batch, "float32", accuracy=_TF32) for batch in (32, 256)),
    *(Group("resnet50", 32, "bfloat16", direction) for direction in _DIRECTIONS[1:]),
    *(Group("mobilenet_v2", 32, "bfloat16", direction, depthwise=True) for direction in _DIRECTIONS),
    *(Group("resnet50", 32, "float32", direction, "strict") for direction in _DIRECTIONS[1:]),
)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--dry-run", action="store_true", help="compile everything and say what it takes; needs no device"
    )
    parser.add_argument("--capability", default=DEFAULT_CAPABILITY, help="of the kernels of a dry run")
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--budget", type=float, default=460.0, help="seconds after which nothing more is begun")
    parser.add_argument("--tune", type=float, default=0.0, metavar="SECONDS", help="tune each problem first")
    parser.add_argument("--groups", default="", help="only groups whose title has this text")
    parser.add_argument("--limit", type=int, default=0, help="only so many problems a group")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that compile")
    parser.add_argument(
        "--sanitize", action="store_true", help="run one problem a group under compute-sanitizer instead"
    )
    parser.add_argument("--no-peer", action="store_true", help="measure convgen alone")
    parser.add_argument("--complete", action="store_true", help="fail if nothing of a group is measured")
    parser.add_argument("-o", "--output", type=Path, default=_RESULTS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """0 if everything that could be done is right, 1 if a kernel is wrong, 2 if nothing can be done here."""
    arguments = _arguments(argv)
    begin = time.perf_counter()
    groups = [group for group in GROUPS if arguments.groups in group.title]
    for name, version in _TESTED_WITH.items():
        if _version(name) not in (version, "none"):
            print(f"{name} is {_version(name)}; convgen is tested with {version}")
    try:
        require_toolchain()
        if arguments.dry_run:
            return _dry_run(gpu_of(arguments.capability), groups, arguments)
        device = device_numbered(arguments.device)
        gpu = gpu_of_device(device.facts)
    except ConvgenError as error:
        print(
            f"nothing can be measured here: {error}\n`--dry-run` compiles all kernels without a device", file=sys.stderr
        )
        return 2
    if arguments.sanitize:
        return _sanitize(arguments)
    return _measure(device, gpu, groups, arguments, begin)


def _problems(group: Group, limit: int) -> tuple[Layer, ...]:
    layers = group.layers()
    return layers[:limit] if limit else layers


def _plan(spec: ConvSpec, gpu: Gpu, device: Device | None) -> Plan:
    known = known_result(spec, device.facts) if device else None
    return known.plan if known else plan_cuda(spec, gpu)


def _compiled(task: tuple[Plan, Gpu]) -> str:
    """Fills the cache on disk in a process of its own; what went wrong, if anything did."""
    plan, gpu = task
    try:
        assert CudaConv(plan, gpu).cubins
    except ConvgenError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _compile(plans: Iterable[Plan], gpu: Gpu, processes: int, deadline: float = math.inf) -> dict[Plan, str]:
    """What went wrong with each plan, compiled by as many processes; those that the deadline came before are left out."""
    distinct = list(dict.fromkeys(plans))
    if processes < 2:
        return {plan: _compiled((plan, gpu)) for plan in distinct if time.perf_counter() < deadline}
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    try:
        futures = {plan: _submitted(pool, plan, gpu) for plan in distinct}
        wait(futures.values(), None if math.isinf(deadline) else max(0.0, deadline - time.perf_counter()))
        return {plan: _outcome(future) for plan, future in futures.items() if future.done()}
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, plan: Plan, gpu: Gpu) -> Future[str]:
    try:
        return pool.submit(_compiled, (plan, gpu))
    except BrokenExecutor as error:
        failed: Future[str] = Future()
        failed.set_exception(error)
        return failed


def _outcome(future: Future[str]) -> str:
    """What went wrong, also where a process died of it."""
    error = future.exception()
    return future.result() if error is None else f"{type(error).__name__}: {error}"


def _row(layer: Layer, plan: Plan, flaw: str, op: CudaConv | None = None, **times: float | None) -> Row:
    resources = list(op.resources.values()) if op and not flaw else []
    return Row(
        layer.name,
        layer.count,
        format_descriptor(layer.spec),
        f"{plan.strategy}, {plan.config}",
        registers=max((r.registers for r in resources), default=0),
        spilled_bytes=max((r.spilled_bytes for r in resources), default=0),
        flaw=flaw,
        **times,
    )


def _dry_run(gpu: Gpu, groups: Sequence[Group], arguments: argparse.Namespace) -> int:
    failed = 0
    for group in groups:
        layers = _problems(group, arguments.limit)
        plans = [plan_cuda(layer.spec, gpu) for layer in layers]
        flaws = _compile(plans, gpu, arguments.processes)
        rows = [
            _row(layer, plan, flaws[plan], None if flaws[plan] else CudaConv(plan, gpu))
            for layer, plan in zip(layers, plans, strict=True)
        ]
        spilling = [row.layer for row in rows if row.spilled_bytes]
        wrong = [f"{row.layer}: {row.flaw}" for row in rows if row.flaw]
        failed += len(wrong)
        spills = f"spills in {', '.join(spilling)}" if spilling else "no spills"
        print(f"{group.title}: {len(rows)} problems compile for {gpu.name}, {spills}", *wrong, sep="\n  ")
    return 1 if failed else 0


def _measure(device: Device, gpu: Gpu, groups: Sequence[Group], arguments: argparse.Namespace, begin: float) -> int:
    deadline = begin + arguments.budget
    peer, against = _peer(arguments)
    facts = [
        ("date", datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")),
        ("device", device.facts.describe()),
        ("fingerprint", device.facts.fingerprint()),
        ("versions", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)),
        ("Python", platform.python_version()),
        ("against", against),
        ("layouts", f"channels_last; cuDNN's also {', '.join(MORE_LAYOUTS)} for float32, whichever is the fastest"),
        ("timed", "events on a stream, second-level cache flushed before each call, weights packed before"),
        ("roofline", "by the device's own clocks and the data sheet's operations a cycle"),
    ]
    print(*(f"{name}: {value}" for name, value in facts), sep="\n")
    layers = {group: _problems(group, arguments.limit) for group in groups}
    if arguments.tune:
        for spec in dict.fromkeys(layer.spec for found in layers.values() for layer in found):
            if time.perf_counter() < deadline - arguments.budget / 2:
                tune(spec, arguments.tune, device=arguments.device)
    plans = {layer.spec: _plan(layer.spec, gpu, device) for found in layers.values() for layer in found}
    now = time.perf_counter()
    compiling = now + _COMPILING_SHARE * max(0.0, deadline - now)
    flaws = _compile(plans.values(), gpu, arguments.processes, compiling)
    print(f"{len(flaws)} of {len(plans)} problems compiled, {time.perf_counter() - begin:.0f} s", flush=True)
    clock = Clock(device)
    tables = []
    for group in groups:
        table = Table(group.title)
        for layer in layers[group]:
            if time.perf_counter() >= deadline or plans[layer.spec] not in flaws:
                table.left_out += 1
                continue
            plan = plans[layer.spec]
            try:
                table.rows.append(_timed(layer, plan, flaws[plan], gpu, device, clock, peer))
            except ConvgenError as error:
                table.rows.append(_row(layer, plan, f"{type(error).__name__}: {error}"))
        tables.append(table)
        print(f"{table.title}: {table.summary()}", flush=True)
    empty = [table.title for table in tables if arguments.complete and not any(row.seconds for row in table.rows)]
    name = f"gpu_{device.facts.name.replace(' ', '_')}_{datetime.date.today().isoformat()}"
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / f"{name}.md").write_text(markdown("GPU against cuDNN", facts, tables), encoding="utf-8")
    (arguments.output / f"{name}.json").write_text(as_json(facts, tables), encoding="utf-8")
    print(f"written to {arguments.output / name}.md, {time.perf_counter() - begin:.0f} s")
    for title in empty:
        print(f"{title}: nothing was measured", file=sys.stderr)
    return 1 if empty or any(row.flaw for table in tables for row in table.rows) else 0


def _peer(arguments: argparse.Namespace) -> tuple[Cudnn | None, str]:
    """What convgen is held against, if that is there, and what is said of it."""
    if arguments.no_peer:
        return None, "nothing, as asked"
    try:
        peer = Cudnn(arguments.device)
    except MissingDependencyError as error:
        return None, f"nothing: {error}"
    return peer, peer.version()


def _timed(layer: Layer, plan: Plan, flaw: str, gpu: Gpu, device: Device, clock: Clock, peer: Cudnn | None) -> Row:
    if flaw:
        return _row(layer, plan, flaw)
    spec, op = layer.spec, CudaConv(plan, gpu)
    question = integer_question(spec, np.random.default_rng(0), algorithms_of_cuda_plan(plan))
    first, second = (DeviceArray.from_host(array, device.ordinal) for array in question.operands.main)
    flaw = question.flaw(op(first, second).to_host())
    if flaw:
        return _row(layer, plan, f"wrong: {flaw}")
    out = DeviceArray(spec.result_shape, spec.result_dtype, device)
    packed = second if spec.direction == "backward_weights" else op.pack(second)
    calls = [lambda: op(first, packed, out=out)]
    if peer is not None:
        for layout, call in peer.calls(spec, question.operands.main).items():
            if not peer.agrees(spec, call(), question):
                return _row(layer, plan, f"cuDNN computes something else in {layout}")
            calls.append(call)
    samples = clock.measure(calls, budget=_TIMED)
    other = min((sample.median for sample in samples[1:]), default=None)
    least = roofline_seconds(spec, gpu, device.facts)
    return _row(layer, plan, "", op, seconds=samples[0].median, peer_seconds=other, roofline_seconds=least)


def _sanitize(arguments: argparse.Namespace) -> int:
    """This script again, one problem a group and nothing but convgen's kernels, under each of compute-sanitizer's tools."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        print("compute-sanitizer is not installed", file=sys.stderr)
        return 2
    failed = 0
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        again = [
            "-m",
            "benchmarks.gpu",
            "--limit",
            "1",
            "--no-peer",
            "--complete",
            "--budget",
            str(arguments.budget),
            "--groups",
            arguments.groups,
            "-o",
            str(arguments.output / "sanitized"),
        ]
        done = subprocess.run(
            [
                program,
                "--tool",
                tool,
                "--error-exitcode",
                "3",
                sys.executable,
                *again,
                "--device",
                str(arguments.device),
            ],
            check=False,
        )
        print(f"{tool}: {'clean' if not done.returncode else f'exit status {done.returncode}'}")
        failed += bool(done.returncode)
    return 1 if failed else 0


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


if __name__ == "__main__":
    sys.exit(main())
