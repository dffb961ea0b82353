"""What every test shares: one kernel cache for the whole session, and Hypothesis without deadlines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from convgen.tuning import shipped

# A first example may compile a kernel, so a deadline would only measure the compiler.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


# Variables that choose what the tests run on, and not what is chosen for a problem.
_KEPT = ("CONVGEN_CACHE_DIR", "CONVGEN_TEST_CACHE_DIR", "CONVGEN_MAX_CPU_ISA")


@pytest.fixture(scope="session", autouse=True)
def _uncalibrated() -> Iterator[None]:
    """What the heuristic chooses is the same before and after tuning, and nobody is told that machines that test are noisy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convgen.tuner.session.CALIBRATED_BUDGET", float("inf"))
        patch.setattr("convgen.tuner.session._warned_of_noise", [True])
        yield


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Returns the kernel cache and database directory of this session, which child processes inherit.

    ``CONVGEN_TEST_CACHE_DIR`` names a directory that is kept from one session to the next. Variables that would change
    what a kernel is or how it runs are removed, and what is shipped for some kinds of machine is not looked at.
    """
    kept = os.environ.get("CONVGEN_TEST_CACHE_DIR")
    directory = Path(kept).absolute() if kept else _session_folder(tmp_path_factory) / "convgen_cache"
    directory.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVGEN_CACHE_DIR", str(directory))
        for name in [name for name in os.environ if name.startswith("CONVGEN_") and name not in _KEPT]:
            patch.delenv(name)
        patch.setattr(shipped, "DEFAULTS", directory / "defaults")
        yield directory


def _session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of the whole session: workers of pytest-xdist have one each, inside it."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
