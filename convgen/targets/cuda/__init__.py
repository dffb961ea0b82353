"""The CUDA target: a lowered program as numba-cuda kernels, PTX and machine code."""
