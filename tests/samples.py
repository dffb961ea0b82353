"""The sample kernels in ``generated/``: `python -m tests.samples` writes them anew."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from convgen.cuda.kernels import CudaConv
from convgen.cuda.kernels import compile_spec as compile_for_gpus
from convgen.driver import Plan, given_plan, lower, source_of
from convgen.machine import Machine
from convgen.spec import ConvSpec

GENERATED = Path(__file__).resolve().parent.parent / "generated"
CUDA_GENERATED = GENERATED / "cuda"

# Sources depend on the width and number of vector registers and on the caches: these are an AVX-512 server core's.
MACHINE = Machine(
    name="AVX-512 sample",
    triple="x86_64-unknown-linux-gnu",
    cpu="x86-64-v4",
    features="",
    isa="avx512",
    vector_bytes=64,
    vector_registers=32,
    l1d_bytes=48 << 10,
    l2_bytes=2 << 20,
    l3_bytes=32 << 20,
    cores=1,
)

# The same with instructions for dot products, and with a matrix unit.
WITH_DOTS = dataclasses.replace(MACHINE, features="+avx512bf16,+avx512vnni")
WITH_MATRIX = dataclasses.replace(
    WITH_DOTS, features=f"{WITH_DOTS.features},+amx-tile,+amx-bf16,+amx-int8", matrix="amx"
)

_BLOCK = ConvSpec(
    batch=1,
    in_channels=64,
    out_channels=64,
    spatial_size=(56, 56),
    kernel_size=3,
    padding=1,
    layout="channels_last",
    epilogue=("bias", "relu"),
)
_LINE = ConvSpec(
    batch=64, in_channels=64, out_channels=64, spatial_size=10, kernel_size=7, padding=3, layout="channels_last"
)

SAMPLES: dict[str, tuple[str, ConvSpec]] = {
    "forward_3x3": ("direct", _BLOCK),
    "forward_1x1": ("direct", _BLOCK.replace(in_channels=256, kernel_size=(1, 1), padding=0, epilogue=())),
    "depthwise_3x3": ("direct", _BLOCK.replace(in_channels=144, out_channels=144, groups=144, epilogue=())),
    "forward_3x3_int8": ("direct", _BLOCK.replace(dtype="int8", epilogue=("bias", "relu", "requantize"))),
    "forward_3x3_bfloat16_matrix_unit": ("direct", _BLOCK.replace(dtype="bfloat16")),
    "winograd_3x3": ("winograd", _BLOCK),
    "fft_7": ("fft", _LINE),
    "backward_data_3x3_stride_2": (
        "direct",
        _BLOCK.replace(stride=2, spatial_size=(112, 112), direction="backward_data", epilogue=()),
    ),
    "backward_weights_3x3_channels_first": (
        "direct",
        _BLOCK.replace(layout="channels_first", direction="backward_weights", epilogue=()),
    ),
}

# The samples that are for another machine than MACHINE.
MACHINES: dict[str, Machine] = {"forward_3x3_int8": WITH_DOTS, "forward_3x3_bfloat16_matrix_unit": WITH_MATRIX}


def sample_plan(name: str) -> Plan:
    """The plan of a sample: the strategy with its default configuration on the sample's machine."""
    strategy, spec = SAMPLES[name]
    return given_plan(spec, strategy, None, MACHINES.get(name, MACHINE))


def sample_source(name: str) -> str:
    """The source of a sample."""
    plan = sample_plan(name)
    return source_of(plan, lower(plan, MACHINES.get(name, MACHINE)))


# The samples for GPUs of one capability: what they are depends on no machine.
CAPABILITY = "9.0"
_LAYER = _BLOCK.replace(batch=32, epilogue=("bias", "relu"))
CUDA_SAMPLES: dict[str, tuple[str, ConvSpec]] = {
    "forward_3x3": ("implicit_gemm", _LAYER),
    "forward_3x3_bfloat16": ("implicit_gemm", _LAYER.replace(dtype="bfloat16")),
    "backward_weights_3x3_bfloat16": (
        "implicit_gemm",
        _LAYER.replace(dtype="bfloat16", direction="backward_weights", epilogue=()),
    ),
    "depthwise_3x3": ("depthwise", _LAYER.replace(in_channels=144, out_channels=144, groups=144, epilogue=())),
}


def cuda_sample(name: str) -> CudaConv:
    """A sample for GPUs: the strategy with its default configuration."""
    strategy, spec = CUDA_SAMPLES[name]
    return compile_for_gpus(spec, strategy, capability=CAPABILITY)


def main() -> None:
    sources = {GENERATED / f"{name}.py": sample_source(name) for name in SAMPLES}
    sources |= {CUDA_GENERATED / f"{name}.py": cuda_sample(name).source for name in CUDA_SAMPLES}
    for path, source in sources.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")


if __name__ == "__main__":
    main()
