"""`python -m benchmarks.overhead`: what a call, a first call and a cold start cost."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import timeit

import numpy as np

from convgen.planning import compile_spec
from convgen.spec import ConvSpec

_FIRST_CALL = """
import time
import numba
start = time.perf_counter()
import numpy as np
import convgen
spec = convgen.ConvSpec(batch=1, in_channels=64, out_channels=64, spatial_size=(56, 56), kernel_size=3, padding=1,
                        layout="channels_last")
convgen.compile(spec)(np.ones(spec.input_shape, np.float32), np.ones(spec.weight_shape, np.float32))
print(time.perf_counter() - start)
"""

_COLD = """
import time
start = time.perf_counter()
import os
import convgen
from convgen.suites import suite
def kernels():
    return len(os.listdir(os.path.join(os.environ["CONVGEN_CACHE_DIR"], "kernels")))
specs = [layer.spec for layer in suite("resnet50", layout="channels_last")]
for spec in specs:
    convgen.compile(spec)
print(len(specs), time.perf_counter() - start)
before = kernels()
start = time.perf_counter()
for spec in specs:
    convgen.compile(spec.replace(batch=2, spatial_size=tuple(size * 8 // 7 for size in spec.spatial_size)))
print(time.perf_counter() - start, before, kernels() - before)
"""


def in_new_process(code: str, cache: str) -> list[str]:
    """The words that ``code`` prints in a process of its own with the given cache directory."""
    environment = os.environ | {"CONVGEN_CACHE_DIR": cache}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True, timeout=600
    )
    return result.stdout.split()


def main() -> None:
    spec = ConvSpec(batch=1, in_channels=1, out_channels=1, spatial_size=(3, 3), kernel_size=3)
    x, w = np.ones(spec.input_shape, np.float32), np.ones(spec.weight_shape, np.float32)
    for strategy in ("auto", "direct", "reference"):
        op = compile_spec(spec, strategy=strategy)
        seconds = min(timeit.repeat(lambda op=op: op(x, w), number=20000, repeat=9)) / 20000  # type: ignore[misc]
        print(f"call of a 1x1x3x3 problem, {strategy} ({op.plan.strategy}): {seconds * 1e6:.2f} us")
    with tempfile.TemporaryDirectory() as cache:
        count, cold, resized, kernels, more = in_new_process(_COLD, cache)
        print(f"compiling {count} problems of ResNet-50 from an empty cache: {float(cold):.1f} s, {kernels} files")
        print(f"the same layers at 8/7 of the image size and batch 2: {float(resized):.2f} s, {more} files more")
        files = len(os.listdir(os.path.join(cache, "kernels")))
        in_new_process(_FIRST_CALL, cache)
        first = sorted(float(in_new_process(_FIRST_CALL, cache)[0]) for _ in range(5))[2]
        print(f"first call of a known problem in a new process, after import numba: {first:.2f} s ({files} files)")


if __name__ == "__main__":
    main()
