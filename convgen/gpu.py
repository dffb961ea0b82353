"""What NVIDIA's GPUs offer, by compute capability; known without a device, so that kernels can be made for any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from convgen.errors import OptionError

WARP = 32
# What the system keeps of every block's shared memory, from 8.0 on.
RESERVED_SHARED = 1024


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    ``capability`` is (major, minor). Shared memory is in bytes: what a multiprocessor has, and what a block may ask for.
    ``registers`` are those of a multiprocessor, of 32 bits; ``lanes`` how many float32 multiply-adds it does in a cycle.
    ``matrix_shapes`` names the (m, n, k) of mma.sync by the type of the factors. ``clock`` (Hz) and ``bandwidth`` (bytes/s) are
    those of the product ``example``, for predictions alone.
    """

    capability: tuple[int, int]
    example: str
    multiprocessors: int
    shared_per_multiprocessor: int
    shared_per_block: int
    threads_per_multiprocessor: int
    blocks_per_multiprocessor: int
    lanes: int
    clock: float
    bandwidth: float
    l2_bytes: int
    matrix_shapes: Mapping[str, tuple[int, int, int]]
    registers: int = 65536
    registers_per_thread: int = 255

    @property
    def name(self) -> str:
        """The capability as people write it: 9.0."""
        return ".".join(map(str, self.capability))

    @property
    def peak(self) -> float:
        """float32 multiply-adds a second."""
        return self.multiprocessors * self.lanes * self.clock

    def occupancy(self, threads: int, registers: int, shared: int) -> float:
        """Which part of a multiprocessor's threads is resident, of blocks of so many threads, of ``registers`` each, that share
        so many bytes. Registers are given to warps in units of 256 (CUDA C++ Programming Guide, "Compute Capabilities")."""
        warps = -(-threads // WARP)
        per_warp = -(-max(registers, 1) * WARP // 256) * 256
        limits = [
            self.threads_per_multiprocessor // threads,
            self.registers // (per_warp * warps),
            self.blocks_per_multiprocessor,
        ]
        if shared:
            reserved = RESERVED_SHARED if self.capability >= (8, 0) else 0
            limits.append(self.shared_per_multiprocessor // (shared + reserved))
        return min(limits) * threads / self.threads_per_multiprocessor


_AMPERE = {"float16": (16, 8, 16), "bfloat16": (16, 8, 16), "float32": (16, 8, 8)}
_KB, _MB = 1024, 1024 * 1024

# The CUDA C++ Programming Guide's table of compute capabilities, and the data sheets of the products named.
GPUS: tuple[Gpu, ...] = (
    Gpu((7, 5), "T4", 40, 64 * _KB, 64 * _KB, 1024, 16, 64, 1.59e9, 320e9, 4 * _MB, {"float16": (16, 8, 8)}),
    Gpu((8, 0), "A100", 108, 164 * _KB, 163 * _KB, 2048, 32, 64, 1.41e9, 2.0e12, 40 * _MB, _AMPERE),
    Gpu((8, 6), "RTX 3090", 82, 100 * _KB, 99 * _KB, 1536, 16, 128, 1.70e9, 936e9, 6 * _MB, _AMPERE),
    Gpu((8, 9), "RTX 4090", 128, 100 * _KB, 99 * _KB, 1536, 24, 128, 2.52e9, 1.0e12, 72 * _MB, _AMPERE),
    Gpu((9, 0), "H200", 132, 228 * _KB, 227 * _KB, 2048, 32, 128, 1.83e9, 4.8e12, 50 * _MB, _AMPERE),
    Gpu((10, 0), "B200", 148, 228 * _KB, 227 * _KB, 2048, 32, 128, 1.85e9, 8.0e12, 126 * _MB, _AMPERE),
)
DEFAULT_CAPABILITY = "9.0"


def gpu_of(capability: str) -> Gpu:
    """The kind of GPU of a compute capability such as "9.0"; raises OptionError."""
    for gpu in GPUS:
        if gpu.name == capability:
            return gpu
    allowed = ", ".join(gpu.name for gpu in GPUS)
    raise OptionError(f"capability={capability!r} is unknown; allowed: {allowed}")


def gpu_for(capability: tuple[int, int]) -> Gpu:
    """The kind of GPU whose kernels a device of this capability runs best: the nearest below it of the same major number.

    Raises OptionError where there is none.
    """
    major, minor = capability
    fitting = [gpu for gpu in GPUS if gpu.capability[0] == major and gpu.capability[1] <= minor]
    return fitting[-1] if fitting else gpu_of(f"{major}.{minor}")
