"""Runs compiled kernels: object code, its cache, threads, workspaces, the call path. Nothing here imports numba."""
