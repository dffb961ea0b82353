"""Ranks of a distributed job that tune the same problems end with the same choices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_two_ranks_end_with_the_same_choices(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    variables = {"CONVGEN_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *launcher, str(ROOT / "tests" / "torch" / "ranks.py")],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **variables},
        check=False,
    )
    # Gloo aborts now and then on its way out, after the line is printed.
    line = next((line for line in done.stdout.splitlines() if line.startswith("[")), None)
    assert line is not None, done.stderr
    first, second = json.loads(line)
    assert first["tuned"] == second["tuned"] == first["compiled"] == second["compiled"]
    # One rank has measured each problem.
    assert [a + b for a, b in zip(first["measured"], second["measured"], strict=True)] == [1, 1, 1]
