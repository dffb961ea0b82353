"""The machine's measured roofline: multiply-adds a second, and bytes a second by the size of what is moved.

Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import llvmlite.binding as llvm
import numpy as np

from convgen.errors import CompileError
from convgen.machine import Machine
from convgen.render import render
from convgen.runtime.host_lock import alone_on_this_host
from convgen.runtime.launch import Launcher, StageCall
from convgen.runtime.objects import load_object
from convgen.runtime.workspace import aligned_empty
from convgen.spec import ConvSpec
from convgen.strategies.dots import adds_terms

# Enough in flight for two ports of four cycles each on any register file, and not one more than a small one holds.
_ACCUMULATORS = 12
_ROUNDS = 20_000
_SMALLEST_COPY = 32 << 10
# Beyond this many times the last cache, copies come from memory alone.
_BEYOND_CACHES = 4
# Small copies are repeated up to so many bytes, so that starting them does not count.
_LONG_COPY = 1 << 20
_COPY_SECONDS = 0.03
_PEAK_SECONDS = 0.3
# A copy past the caches, for what does not fit them anyway.
_COPIES = ("copy", "stream")


@dataclass(frozen=True)
class Position:
    """Where a call stands under a roofline: what the direct algorithm computes and moves, and how fast that was done.

    ``flops_share`` is of the peak, and exceeds 1 where an algorithm multiplies less; ``bytes_share`` is of the bandwidth of
    copying as many bytes.
    """

    flops: int
    bytes_moved: int
    seconds: float
    flops_share: float
    bytes_share: float

    @property
    def intensity(self) -> float:
        """Floating-point operations for each byte."""
        return self.flops / self.bytes_moved if self.bytes_moved else 0.0

    @property
    def rate(self) -> float:
        """Floating-point operations a second."""
        return self.flops / self.seconds if self.seconds else 0.0

    def describe(self) -> str:
        """All of it in one line for a reader."""
        return (
            f"{self.flops / 1e6:.1f} MFLOP, {self.bytes_moved / 1e6:.2f} MB, {self.intensity:.1f} FLOP/B: "
            f"{self.rate / 1e9:.1f} GF/s, {self.flops_share:.0%} of the peak, {self.bytes_share:.0%} of the bandwidth, "
            f"bound by {self.bound}"
        )

    @property
    def bound(self) -> str:
        """What bounds the direct algorithm: the one of which a larger share is used."""
        return "memory" if self.bytes_share > self.flops_share else "arithmetic"


@dataclass(frozen=True)
class Roofline:
    """What was measured for a number of threads.

    ``peak`` is in floating-point operations a second (a multiply-add counts two). ``copies`` are pairs of (bytes read and
    written, bytes a second) in ascending order: the rate of copying again and again between two buffers of half that size.
    """

    peak: float
    copies: tuple[tuple[int, float], ...]

    def bandwidth(self, nbytes: float) -> float:
        """Bytes a second of a copy that reads and writes ``nbytes`` in total, between the measured ones interpolated."""
        sizes, rates = zip(*self.copies, strict=True)
        return float(np.interp(math.log2(max(1.0, nbytes)), np.log2(sizes), rates))

    def merged(self, other: Roofline) -> Roofline:
        """The better figure of two measurements of the same machine: what disturbed only one does not count."""
        copies = zip(self.copies, other.copies, strict=True)
        return Roofline(max(self.peak, other.peak), tuple(max(a, b) for a, b in copies))

    def position(self, spec: ConvSpec, seconds: float) -> Position:
        """Where a call that takes so many seconds stands."""
        shares = [part / seconds if seconds else 0.0 for part in (self.flop_seconds(spec), self.byte_seconds(spec))]
        return Position(spec.flops, spec.bytes_moved, seconds, *shares)

    def flop_seconds(self, spec: ConvSpec) -> float:
        """The time of the direct algorithm's multiply-adds at the peak."""
        return spec.flops / self.peak

    def byte_seconds(self, spec: ConvSpec) -> float:
        """The time of copying as many bytes as the problem must move."""
        return spec.bytes_moved / self.bandwidth(spec.bytes_moved)


def measure_roofline(machine: Machine, threads: int, dtype: str) -> Roofline:
    """Measures for ``threads`` threads on the processors that the process may use, when nobody else of this user measures; takes
    about two seconds.

    The arithmetic is that of the vector units: in float64 for that ``dtype``, in dot products for bfloat16 and int8 where the
    machine has them, and in float32 for every other. Raises CompileError.
    """
    arithmetic = _arithmetic(machine, dtype)
    addresses = _kernels(machine, arithmetic)
    with alone_on_this_host():
        peak = _peak(addresses["multiply_add"], threads, dtype, arithmetic)
        return Roofline(peak, _copies(machine, addresses, threads))


@dataclass(frozen=True)
class _Arithmetic:
    """An instruction that multiplies and adds: its name in LLVM, the element and lanes of its sums, and the element that it
    multiplies with how many it adds for each lane."""

    name: str
    scalar: str
    lanes: int
    element: str = ""
    terms: int = 1


def _arithmetic(machine: Machine, dtype: str) -> _Arithmetic:
    lanes, bits = machine.vector_bytes // 4, 8 * machine.vector_bytes
    if dtype == "float64":
        return _Arithmetic(f"llvm.fmuladd.v{lanes // 2}f64", "double", lanes // 2)
    if dtype == "bfloat16" and adds_terms(machine, dtype):
        return _Arithmetic(f"llvm.x86.avx512bf16.dpbf16ps.{bits}", "float", lanes, "bfloat", 2)
    if dtype == "int8" and adds_terms(machine, dtype):
        return _Arithmetic(f"llvm.x86.avx512.vpdpbusd.{bits}", "i32", lanes, "i8", 4)
    return _Arithmetic(f"llvm.fmuladd.v{lanes}f32", "float", lanes)


def _peak(address: int, threads: int, dtype: str, arithmetic: _Arithmetic) -> float:
    # Factor and addend come first: sums settle at 1, far from infinities and denormal numbers.
    memory = np.full(16 * (threads + 2), 0.5, np.float64)
    if dtype != "float64":
        memory.view(np.float32)[:] = 0.5
    launcher = Launcher([StageCall(address, threads, (_ROUNDS,))], [None], threads)
    base = memory.ctypes.data
    work = 2.0 * arithmetic.lanes * arithmetic.terms * _ACCUMULATORS * _ROUNDS * threads
    return work / _fastest(lambda: launcher.run([base]), _PEAK_SECONDS)


def _copies(machine: Machine, addresses: dict[str, int], threads: int) -> tuple[tuple[int, float], ...]:
    largest = max(_SMALLEST_COPY, _BEYOND_CACHES * machine.l3_bytes * threads)
    source, target = (aligned_empty((largest,), np.uint8) for _ in range(2))
    source[:], target[:] = 1, 0  # pages exist only once they were written
    buffers = [source.ctypes.data, target.ctypes.data]
    found = []
    size = _SMALLEST_COPY * threads
    while size <= largest:
        share = size // 2 // threads // 256 * 256
        rounds = max(1, _LONG_COPY // share)
        stages = [StageCall(addresses[name], threads, (share, rounds)) for name in _COPIES]
        launchers = [Launcher([stage], [None] * 2, threads) for stage in stages]
        times = [_fastest(functools.partial(launcher.run, buffers), _COPY_SECONDS) for launcher in launchers]
        moved = 2 * share * threads
        found.append((moved, moved * rounds / min(times)))
        size *= 2
    return tuple(found)


def _fastest(function: Callable[[], object], budget: float) -> float:
    """The least seconds of a call, which takes long enough to be timed alone: the machine at its best is what is asked for."""
    function()
    end = time.perf_counter() + budget
    best = math.inf
    while (begin := time.perf_counter()) < end:
        function()
        best = min(best, time.perf_counter() - begin)
    return best


@functools.cache
def _kernels(machine: Machine, arithmetic: _Arithmetic) -> dict[str, int]:
    """The addresses of the kernels in templates/cpu/roofline.ll.j2."""
    lanes, scalar = arithmetic.lanes, arithmetic.scalar
    text = render(
        "cpu/roofline.ll.j2",
        name=arithmetic.name,
        vector=f"<{lanes} x {scalar}>",
        operand=f"<{lanes * arithmetic.terms} x {arithmetic.element or scalar}>",
        scalar=scalar,
        is_integer=scalar == "i32",
        lanes=lanes,
        bytes=machine.vector_bytes,
        accumulators=_ACCUMULATORS,
    )
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=3, reloc="pic", codemodel="default"
    )
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refuses the kernels that measure the machine: {error}") from error
    code = target.emit_object(module)
    return {name: load_object(code, name) for name in ("multiply_add", *_COPIES)}
