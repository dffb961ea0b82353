"""NVIDIA GPUs: programs become CUDA kernels, which an interpreter of their PTX can run without a device."""
