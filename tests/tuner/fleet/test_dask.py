"""A cluster of two workers with different numbers of threads: each tunes everything, and one may be lost."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import convgen
from convgen.choices import database
from convgen.cli import main
from convgen.errors import FleetWarning
from convgen.machine import Machine
from convgen.spec import ConvSpec

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

HOST = Machine.host()
SPEC = ConvSpec(batch=1, in_channels=4, out_channels=40, spatial_size=(9, 8), kernel_size=3, padding=1)
SPECS = [SPEC, SPEC.replace(out_channels=24)]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """One worker of one thread and one of two, in processes of their own."""
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path / "caller"))
    with cluster_of(tmp_path, {number: {} for number in (1, 2)}) as connected:
        yield connected


@contextmanager
def cluster_of(folder: Path, workers: dict[int, dict[str, str]]) -> Iterator[Any]:
    """A client of workers with so many threads and these variables."""
    specification = {
        number: {
            "cls": distributed.Nanny,
            "options": {
                "nthreads": number,
                "local_directory": str(folder),
                "env": {"CONVGEN_CACHE_DIR": str(folder / f"worker{number}"), **variables},
            },
        }
        for number, variables in workers.items()
    }
    scheduler = {"cls": distributed.Scheduler, "options": {"port": 0, "dashboard": False}}
    with (
        distributed.SpecCluster(workers=specification, scheduler=scheduler) as cluster,
        distributed.Client(cluster, set_as_default=False) as connected,
    ):
        connected.wait_for_workers(len(workers), timeout=60)
        yield connected


def test_each_kind_of_worker_tunes_everything_and_results_are_merged(client: Any) -> None:
    seen: list[int] = []
    found = convgen.tune(SPECS, 0.0, executor=client.get_executor(), observer=lambda i, _: seen.append(i))
    assert isinstance(found, list)
    assert [each.plan.spec for each in found] == SPECS
    assert sorted(seen) == [0, 1]
    keys = {(record.problem, record.threads) for record in database().records()}
    assert keys == {(spec.to_json(), threads) for spec in SPECS for threads in (1, 2)}
    assert {record.fingerprint for record in database().records()} == {Machine.host().fingerprint()}


def test_given_threads_make_one_group(client: Any) -> None:
    convgen.tune(SPECS, 0.0, threads=1, executor=client.get_executor())
    assert [record.threads for record in database().records()] == [1, 1]


def test_a_worker_that_is_killed_costs_no_result(client: Any) -> None:
    """The worker of two threads dies when its first job starts; what it had to do is done all the same."""
    (two,) = (address for address, threads in client.nthreads().items() if threads == 2)
    client.run(_die_at_first_job, workers=[two])
    found = convgen.tune(SPECS, 0.0, executor=client.get_executor())
    assert isinstance(found, list)
    keys = {(record.problem, record.threads) for record in database().records()}
    assert keys == {(spec.to_json(), threads) for spec in SPECS for threads in (1, 2)}


@pytest.mark.skipif(HOST.isa == "generic", reason="every machine is of one kind here")
def test_no_machine_takes_the_jobs_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two is idle while the other is busy, which Dask would even out."""
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path / "caller"))
    specs = [SPEC.replace(out_channels=8 * count) for count in range(1, 7)]
    with cluster_of(tmp_path, {1: {}, 2: {"CONVGEN_MAX_CPU_ISA": "generic"}}) as client:
        (one,) = (address for address, threads in client.nthreads().items() if threads == 1)
        busy = client.submit(time.sleep, 8, workers=[one], pure=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error", FleetWarning)
            convgen.tune(specs, 0.0, executor=client.get_executor())
        assert busy.result(60) is None
    generic = Machine.host("generic").fingerprint()
    assert Counter((each.fingerprint, each.threads) for each in database().records()) == {
        (HOST.fingerprint(), 1): len(specs),
        (generic, 2): len(specs),
    }
    assert {each.problem for each in database().records()} == {spec.to_json() for spec in specs}


def test_a_kind_whose_only_worker_is_gone_costs_its_jobs(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convgen.tuner.dask_fleet.RETURN_SECONDS", 0.5)
    (two,) = (address for address, threads in client.nthreads().items() if threads == 2)
    nanny = client.cluster.workers[2]

    async def leave(status: int) -> None:
        await nanny._unregister()

    monkeypatch.setattr(nanny, "_on_worker_exit", leave)  # which starts the worker anew
    client.run(_die_at_first_job, workers=[two])
    with pytest.warns(FleetWarning, match="with 2 threads .* lost .none of its workers is left"):
        convgen.tune(SPECS, 0.0, executor=client.get_executor())
    keys = {(each.problem, each.threads) for each in database().records()}
    assert keys == {(spec.to_json(), 1) for spec in SPECS}


def _die_at_first_job() -> None:
    import os
    import signal
    import subprocess

    def die(*arguments: Any, **named: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    subprocess.run = die  # type: ignore[assignment]


def test_the_command_line_finds_the_scheduler(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    address = client.scheduler.address
    assert main(["tune", "mb1_ic4oc8_ih9oh9kh3ph1", "--budget", "0", "--no-emit", "--dask", address]) == 0
    assert "1 measured" in capsys.readouterr().out
    assert {record.threads for record in database().records()} == {1, 2}


def test_nobody_at_the_address(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convgen.tuner.dask_fleet.CONNECT_SECONDS", 1)
    assert main(["tune", "mb1_ic4oc8_ih9oh9kh3ph1", "--no-emit", "--dask", "tcp://127.0.0.1:9"]) == 2
    assert "cannot be reached" in capsys.readouterr().err
