"""Dask's workers as a fleet: grouped by what they are, each group reached by an executor of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from distributed import Client
from distributed.cfexecutor import ClientExecutor

from convgen.errors import FleetError
from convgen.machine import Machine
from convgen.tuner.fleet import Group

# Seconds to wait for a scheduler to answer.
CONNECT_SECONDS = 10


@contextmanager
def connected(address: str) -> Iterator[Executor]:
    """The executor of the scheduler at an address; raises FleetError where nobody answers."""
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise FleetError(f"dask={address!r} cannot be reached: {error}") from error
    with client:
        yield client.get_executor(pure=False)


def groups_of(executor: Executor, threads: int | None) -> list[Group]:
    """The workers by machine fingerprint and threads, which are a worker's own unless they are given; raises FleetError if there
    are none.

    A lost worker's jobs go to another of its group, or, if there is none, to any.
    """
    assert isinstance(executor, ClientExecutor)
    client: Client = executor._client
    nthreads: dict[str, int] = client.nthreads()
    fingerprints: dict[str, str] = client.run(_fingerprint)
    members: dict[tuple[str, int], list[str]] = {}
    for address, fingerprint in fingerprints.items():
        members.setdefault((fingerprint, threads or nthreads[address]), []).append(address)
    if not members:
        raise FleetError("the Dask scheduler has no workers")
    return [
        Group(
            client.get_executor(workers=addresses, allow_other_workers=True, pure=False, retries=0),
            count,
            f"machine {fingerprint} with {count} threads ({len(addresses)} workers)",
        )
        for (fingerprint, count), addresses in sorted(members.items())
    ]


def _fingerprint() -> str:
    return Machine.host().fingerprint()
