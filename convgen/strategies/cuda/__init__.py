"""Strategies for NVIDIA GPUs: schedules of the same nests, by the same passes, as grids of threads."""
