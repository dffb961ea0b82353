"""convgen on NVIDIA GPUs: kernels for any compute capability, made and checked with or without a device.

op = convgen.cuda.compile(spec, capability="9.0")
op.source, op.ptx, op.resources            # what it became
y = op.interpret(x, w)                     # the PTX, run on NumPy arrays, every access checked
y = op(x, op.pack(w))                      # on a device: arrays of torch, cupy, numba, or convgen.cuda.DeviceArray
convgen.cuda.tune(spec); op = convgen.cuda.compile(spec, device=0)   # the fastest for this device, verified
"""

from __future__ import annotations

from convgen.cuda.kernels import CudaConv, compile_spec
from convgen.cuda.libraries.interface import DeviceArray
from convgen.cuda.plans import build_cuda_program, plan_cuda
from convgen.cuda.tuner import tune

compile = compile_spec

__all__ = ["CudaConv", "DeviceArray", "build_cuda_program", "compile", "plan_cuda", "tune"]
