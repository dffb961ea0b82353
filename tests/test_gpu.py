"""What is known of GPUs without one."""

from __future__ import annotations

import pytest

from convgen.errors import OptionError
from convgen.gpu import DEFAULT_CAPABILITY, GPUS, WARP, Gpu, gpu_of


def test_every_capability_is_known_by_its_name() -> None:
    assert [gpu.name for gpu in GPUS] == ["7.5", "8.0", "8.6", "8.9", "9.0", "10.0"]
    assert all(gpu_of(gpu.name) is gpu for gpu in GPUS)
    assert gpu_of(DEFAULT_CAPABILITY).capability == (9, 0)


@pytest.mark.parametrize("name", ["", "9", "90", "sm_90", "12.0"])
def test_other_capabilities_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match=rf"capability='{name}' is unknown; allowed: 7.5, 8.0, 8.6, 8.9, 9.0, 10.0"):
        gpu_of(name)


@pytest.mark.parametrize("gpu", GPUS, ids=[gpu.name for gpu in GPUS])
def test_facts_hold_together(gpu: Gpu) -> None:
    assert gpu.shared_per_block <= gpu.shared_per_multiprocessor
    assert gpu.threads_per_multiprocessor % WARP == 0
    assert gpu.lanes % WARP == 0
    assert gpu.peak == gpu.multiprocessors * gpu.lanes * gpu.clock
    assert 1e12 < gpu.peak < 1e14
    assert all(m == 16 and n == 8 for m, n, _ in gpu.matrix_shapes.values())
    assert gpu.matrix_shapes.keys() <= {"float16", "bfloat16", "float32"}


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "wanted"),
    [
        # Nothing but threads limits these: 2048 of a multiprocessor.
        (1024, 32, 0, 1.0),
        (256, 32, 0, 1.0),
        # 32 blocks at most, of one warp each.
        (32, 16, 0, 0.5),
        # 65536 registers: 8 blocks of 128 threads take 64 each, 4 take 128, 2 take 255, which counts as 256.
        (128, 64, 0, 0.5),
        (128, 128, 0, 0.25),
        (128, 255, 0, 0.125),
        # 33 registers count as 40.
        (256, 33, 0, 0.75),
        # 228 KB: two blocks with 100 KB, and 1 KB of the system each.
        (256, 32, 100 * 1024, 0.25),
        (256, 32, 227 * 1024, 0.125),
        # A warp that is not full counts whole.
        (33, 128, 0, 8 * 33 / 2048),
    ],
)
def test_occupancy(threads: int, registers: int, shared: int, wanted: float) -> None:
    assert gpu_of("9.0").occupancy(threads, registers, shared) == wanted
