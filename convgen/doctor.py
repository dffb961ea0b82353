"""What convgen finds on a machine, and whether it works there."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import llvmlite.binding as llvm
import numpy as np

from convgen import __version__
from convgen.cuda.device import device_numbered
from convgen.errors import ConvgenError, MissingDependencyError, NotApplicable, VerificationError
from convgen.locking import active_lock
from convgen.machine import Machine
from convgen.options import cache_dir, forbidden_strategies, is_deterministic, num_threads, tune_mode
from convgen.planning import compile_spec
from convgen.render import template_dir
from convgen.runtime.threads import loaded_libraries, parallel_entry
from convgen.spec import ConvSpec
from convgen.targets.cuda.driver import driver as cuda_driver
from convgen.tuning.database import Database, default_path
from convgen.tuning.shipped import shipped_records
from convgen.verify import gate_a, gate_b

State = Literal["ok", "warning", "failed"]
_NEEDED = ("numpy", "numba", "llvmlite", "ml_dtypes", "jinja2", "platformdirs", "rich")
_OPTIONAL = ("onnx", "torch")
_CUDA = ("numba-cuda", "cuda-core", "nvidia-nvjitlink")


@dataclass(frozen=True)
class Finding:
    """One thing looked at: "ok", "warning" (results stay correct, something is slower or missing) or "failed"."""

    topic: str
    text: str
    state: State = "ok"


def examine() -> tuple[Finding, ...]:
    """Looks at everything; nothing that is wrong stops it. Compiles and verifies one small convolution."""
    probes: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("versions", _versions),
        ("optional", _optional),
        ("machine", lambda: Finding("machine", Machine.host().describe())),
        ("features", _features),
        ("threads", lambda: Finding("threads", f"{num_threads()} a call")),
        ("choices", _choices),
        ("OpenMP", _openmp),
        ("CUDA", _cuda),
        ("templates", _templates),
        ("cache", _cache),
        ("database", _database),
        ("self-test", _self_test),
    )
    return tuple(_examined(topic, probe) for topic, probe in probes)


def _examined(topic: str, probe: Callable[[], Finding]) -> Finding:
    """What the probe finds; its warnings, and the error that ends it, are findings too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            finding = probe()
        except (ConvgenError, OSError, metadata.PackageNotFoundError) as error:
            return Finding(topic, f"{type(error).__name__}: {error}", "failed")
    if not caught:
        return finding
    return Finding(topic, "; ".join([finding.text, *(str(entry.message) for entry in caught)]), "warning")


def _versions() -> Finding:
    compiler = ".".join(map(str, llvm.llvm_version_info))
    packages = [f"{name} {metadata.version(name)}" for name in _NEEDED]
    return Finding(
        "versions",
        ", ".join([f"convgen {__version__}", f"Python {platform.python_version()}", *packages, f"LLVM {compiler}"]),
    )


def _optional() -> Finding:
    return Finding("optional", ", ".join(f"{name} {_installed(name)}" for name in _OPTIONAL))


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "is not installed"


def _features() -> Finding:
    machine = Machine.host()
    granted = [feature[1:] for feature in machine.features.split(",") if feature.startswith("+")]
    return Finding("features", f"{machine.isa} ({machine.fingerprint()}): {' '.join(granted) or 'none'}")


def _openmp() -> Finding:
    if parallel_entry() is None:
        return Finding(
            "OpenMP", "libgomp was not found; Python's threads, which start more slowly, take its place", "warning"
        )
    return Finding("OpenMP", next(iter(loaded_libraries("libgomp")), "libgomp"))


def _cuda() -> Finding:
    compiler = ", ".join(f"{name} {_installed(name)}" for name in _CUDA)
    try:
        count = cuda_driver().device_count()
        devices = "; ".join(device_numbered(i).facts.describe() for i in range(count))
    except (MissingDependencyError, NotApplicable) as error:
        devices = str(error)
    return Finding("CUDA", f"{compiler}; {devices}")


def _templates() -> Finding:
    folder = template_dir()
    return Finding("templates", f"{folder} ({sum(path.is_file() for path in folder.rglob('*'))} files)")


def _cache() -> Finding:
    folder = cache_dir()
    if not _is_writable(folder):
        return Finding("cache", f"{folder} cannot be written; kernels are compiled in every process", "warning")
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    kernels = sum(1 for _ in folder.glob("kernels/*.obj"))
    return Finding("cache", f"{folder} ({kernels} kernels, {sum(sizes) / 2**20:.1f} MiB in {len(sizes)} files)")


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or it itself if it is not there yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _database() -> Finding:
    path = default_path()
    if not path.exists():
        return Finding("database", f"{path} is not there yet; tuning makes it")
    records = Database(path).records()
    host = Machine.host().fingerprint()
    here = sum(record.fingerprint == host for record in records)
    return Finding(
        "database", f"{path} ({len(records)} results, {here} of this machine, {path.stat().st_size / 1024:.0f} KiB)"
    )


def _choices() -> Finding:
    """Who decides."""
    lock = active_lock()
    parts = [
        f"CONVGEN_TUNE={tune_mode()}",
        "no lockfile" if lock is None else f"lockfile {lock.path} ({len(lock.entries)} choices)",
        f"{len(shipped_records(Machine.host().fingerprint()))} problems shipped for this machine",
        *(["deterministic"] if is_deterministic() else []),
        *([f"forbidden: {', '.join(forbidden_strategies())}"] if forbidden_strategies() else []),
    ]
    return Finding("choices", ", ".join(parts))


def _self_test() -> Finding:
    spec = ConvSpec(batch=1, in_channels=3, out_channels=5, spatial_size=(7, 7), kernel_size=3, padding=1)
    start = time.perf_counter()
    op = compile_spec(spec, "direct", threads=1)
    seconds = time.perf_counter() - start
    for gate in (gate_a, gate_b):
        comparison = gate(spec, op, np.random.default_rng(0))
        if not comparison.ok:
            raise VerificationError(f"{spec} is computed wrongly: {comparison.reason}")
    return Finding("self-test", f"{spec} was compiled or found in {seconds:.2f} s and is right")
