"""From the text of a stage to PTX and machine code, without a GPU, and what ptxas says of it."""

from __future__ import annotations

import functools
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from convgen.errors import CompileError, MissingDependencyError
from convgen.gpu import Gpu
from convgen.options import cache_dir
from convgen.render import render, template_dir
from convgen.runtime.cache import Entry, KernelCache
from convgen.targets.cuda.lower import LoweredStage
from convgen.targets.cuda.operations import needed_functions, operation_text, vector_texts

INSTALL = "pip install 'convgen[cuda]'"
UNIT_TEMPLATES = ("cuda/unit.py.j2", "cuda/imports.py.j2", "cuda/vectors.py.j2", "cuda/tiles.py.j2", "cuda/stage.py.j2")
_DISTRIBUTIONS = ("convgen", "numba", "numba-cuda", "llvmlite", "nvidia-nvvm", "nvidia-nvjitlink")
# Besides the nvJitLink among the above.
_ASSEMBLERS = ("cuda-core", "cuda-bindings")
_ENTRY = re.compile(r"\.visible \.entry (\S+)\(")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_STACK = re.compile(r"(\d+) bytes stack frame")


@dataclass(frozen=True)
class Resources:
    """What a kernel takes: registers a thread; bytes of shared memory a block; bytes a thread that spill, stored and loaded, and
    its stack; ``occupancy`` is the part of a multiprocessor's threads that is resident."""

    registers: int
    shared_bytes: int
    spilled_bytes: int
    stack_bytes: int
    occupancy: float


@dataclass(frozen=True)
class Cubin:
    """Machine code for one kind of GPU."""

    code: bytes
    resources: Resources


def unit_source(stage: LoweredStage) -> str:
    """A module that holds the operations and the stage's function alone."""
    needed = needed_functions(stage.operations)
    return render(
        "cuda/unit.py.j2",
        name=stage.name,
        parameters=stage.parameters,
        lines=stage.body,
        vectors=vector_texts(stage.operations),
        operations=[operation_text(operation) for operation in stage.operations],
        needs=lambda name: name in needed,
    )


def stage_ptx(stage: LoweredStage, gpu: Gpu) -> str:
    """The PTX of a stage, an entry of its name; compiled once and kept on disk.

    Raises MissingDependencyError without numba-cuda and CompileError.
    """
    cache = _cache(str(cache_dir()))
    key = _key(stage, gpu)
    entry = cache.get(key)
    if entry is None:
        source = unit_source(stage)
        entry = Entry(symbol=stage.name, code=_compiled(source, stage, gpu).encode(), source=source)
        cache.put(key, entry)
    return entry.code.decode()


def stage_cubin(stage: LoweredStage, gpu: Gpu) -> Cubin:
    """The machine code of a stage, made once and kept on disk with what ptxas says of it.

    Raises MissingDependencyError and CompileError.
    """
    cache = _cache(str(cache_dir()))
    versions = map(_version, _ASSEMBLERS)
    key = hashlib.sha256("\n".join(("cubin", *versions, _key(stage, gpu))).encode()).hexdigest()
    entry = cache.get(key)
    if entry is None:
        code, log = _assembled(stage, gpu)
        # The cache keeps readable text beside the code as a Python file.
        entry = Entry(symbol=stage.name, code=code, source="".join(f"# {line}\n" for line in log.splitlines()))
        cache.put(key, entry)
    return Cubin(entry.code, _resources(entry.source, stage, gpu))


def _assembled(stage: LoweredStage, gpu: Gpu) -> tuple[bytes, str]:
    """The machine code, and what ptxas reports."""
    try:
        from cuda.core import Linker, LinkerOptions, ObjectCode
    except ImportError as error:
        raise _missing("machine code for GPUs") from error
    options = LinkerOptions(arch=f"sm_{_digits(gpu)}", verbose=True)
    ptx = ObjectCode.from_ptx(stage_ptx(stage, gpu).encode())
    try:
        linker = Linker(ptx, options=options)
        code = linker.link("cubin").code
    except Exception as error:
        raise CompileError(f"ptxas refuses stage {stage.name}: {error}") from error
    return bytes(code), linker.get_info_log()


def disassembly(cubin: Cubin) -> str:
    """The machine code as text; raises MissingDependencyError without nvdisasm and CompileError."""
    try:
        from cuda.pathfinder import find_nvidia_binary_utility
    except ImportError as error:
        raise _missing("machine code for GPUs") from error
    program = find_nvidia_binary_utility("nvdisasm")
    if program is None:
        raise _missing("nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin.code)
        done = subprocess.run([program, "-c", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(f"nvdisasm fails: {done.stderr.strip()}")
    return done.stdout


def require_toolchain() -> None:
    """Raises MissingDependencyError that says what to install, where the compiler for GPUs is not there."""
    try:
        import numba.cuda.extending
    except ImportError as error:
        raise _missing("the CUDA target") from error
    if not hasattr(numba.cuda, "compile") or "numba_cuda" not in (numba.cuda.__file__ or ""):
        raise _missing("the CUDA target")


def _missing(what: str) -> MissingDependencyError:
    return MissingDependencyError(f"{what} needs numba-cuda and the CUDA compiler, which are not installed: {INSTALL}")


def _compiled(source: str, stage: LoweredStage, gpu: Gpu) -> str:
    require_toolchain()
    from numba import cuda, types

    space: dict[str, Any] = {}
    try:
        exec(compile(source, f"<convgen stage {stage.name}>", "exec"), space)  # our own text
        kernel: Callable[..., object] = space[stage.name]
        signature = (types.int64,) * (len(stage.buffers) + len(stage.sizes))
        bounds = (stage.threads, 1)
        ptx, _ = cuda.compile(kernel, signature, cc=gpu.capability, device=False, abi="numba", launch_bounds=bounds)
    except Exception as error:
        raise CompileError(f"numba-cuda refuses stage {stage.name}: {type(error).__name__}: {error}") from error
    text = str(ptx)
    found = _ENTRY.search(text)
    if found is None:
        raise CompileError(f"numba-cuda made no kernel of stage {stage.name}")
    # Numba's own name depends on where the function was defined.
    return text.replace(found[1], stage.name)


def _resources(log: str, stage: LoweredStage, gpu: Gpu) -> Resources:
    def number(pattern: re.Pattern[str]) -> int:
        found = pattern.search(log)
        return max(map(int, found.groups())) if found else 0

    registers = number(_REGISTERS)
    occupancy = gpu.occupancy(stage.threads, registers, stage.shared_bytes)
    return Resources(registers, stage.shared_bytes, number(_SPILLS), number(_STACK), occupancy)


def _digits(gpu: Gpu) -> str:
    return gpu.name.replace(".", "")


def _key(stage: LoweredStage, gpu: Gpu) -> str:
    texts = map(repr, map(operation_text, stage.operations))
    own = (stage.name, stage.parameters, str(stage.threads), gpu.name)
    return hashlib.sha256("\n".join((*_toolchain(), *own, *stage.body, *texts)).encode()).hexdigest()


@functools.cache
def _toolchain() -> tuple[str, ...]:
    versions = map(_version, _DISTRIBUTIONS)
    return (*versions, *((template_dir() / name).read_text(encoding="utf-8") for name in UNIT_TEMPLATES))


def _version(name: str) -> str:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name} none"


@functools.cache
def _cache(directory: str) -> KernelCache:
    return KernelCache(directory)
