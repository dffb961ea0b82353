"""convgen on NVIDIA GPUs: kernels for any compute capability, made and checked with or without a device.

op = convgen.cuda.compile(spec, capability="9.0")
op.source, op.ptx, op.resources            # what it became
y = op.interpret(x, w)                     # the PTX, run on NumPy arrays, every access checked
"""

from __future__ import annotations

from convgen.cuda.kernels import CudaConv, compile_spec
from convgen.cuda.plans import build_cuda_program, plan_cuda

compile = compile_spec

__all__ = ["CudaConv", "build_cuda_program", "compile", "plan_cuda"]
