"""CPUs: programs become Numba functions over LLVM vectors."""
