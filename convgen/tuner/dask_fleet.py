"""Dask's workers as a fleet: grouped by what they are, each group reached by an executor of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

from distributed import Client
from distributed.cfexecutor import ClientExecutor

from convgen.errors import FleetError
from convgen.machine import Machine
from convgen.options import max_cpu_isa
from convgen.tuner.fleet import Group

# Seconds to wait for a scheduler to answer.
CONNECT_SECONDS = 10
# Seconds to wait for a worker of a kind to be started anew, and how often is looked.
RETURN_SECONDS = 30.0
_LOOK_SECONDS = 0.5


@contextlib.contextmanager
def connected(address: str) -> Iterator[Executor]:
    """The executor of the scheduler at an address; raises FleetError where nobody answers."""
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise FleetError(f"dask={address!r} cannot be reached: {error}") from error
    with client:
        yield client.get_executor(pure=False)


@dataclass(frozen=True)
class _Workers(Group):
    """A group of Dask's workers: their addresses, and with how many threads each is asked to tune, if not with its own."""

    client: Client | None = None
    addresses: tuple[str, ...] = ()
    asked: int | None = None

    def is_there(self) -> bool:
        """Whether the scheduler still knows one of them."""
        assert self.client is not None
        try:
            return not self.client.nthreads().keys().isdisjoint(self.addresses)
        except OSError:  # the scheduler is gone itself
            return False

    def again(self) -> Group:
        """The workers of this kind that are there by now: one that is started anew has another address."""
        assert self.client is not None
        end = time.monotonic() + RETURN_SECONDS
        with contextlib.suppress(OSError):
            while time.monotonic() < end:
                for group in _groups(self.client, self.asked):
                    if (group.fingerprint, group.threads) == (self.fingerprint, self.threads):
                        return group
                time.sleep(_LOOK_SECONDS)
        return self


def groups_of(executor: Executor, threads: int | None) -> list[Group]:
    """The workers by machine fingerprint and threads, which are a worker's own unless they are given; raises FleetError if there
    are none.

    A job stays in its group: a lost worker's go to another of the group, and are lost where there is none.
    """
    assert isinstance(executor, ClientExecutor)
    groups = _groups(executor._client, threads)
    if not groups:
        raise FleetError("the Dask scheduler has no workers")
    return list(groups)


def _groups(client: Client, threads: int | None) -> list[_Workers]:
    nthreads: dict[str, int] = client.nthreads()
    # A worker that is lost meanwhile does not answer.
    fingerprints: dict[str, str] = client.run(_fingerprint, max_cpu_isa(), on_error="ignore")
    members: dict[tuple[str, int], list[str]] = {}
    for address, fingerprint in fingerprints.items():
        if address in nthreads:
            members.setdefault((fingerprint, threads or nthreads[address]), []).append(address)
    return [
        _Workers(
            # No other workers: Dask would move jobs to whoever is idle, whatever machine that is.
            client.get_executor(workers=addresses, allow_other_workers=False, pure=False, retries=0),
            count,
            f"machine {fingerprint} with {count} threads ({len(addresses)} workers)",
            fingerprint,
            client,
            tuple(addresses),
            threads,
        )
        for (fingerprint, count), addresses in sorted(members.items())
    ]


def _fingerprint(max_isa: str) -> str:
    return Machine.host(max_isa).fingerprint()
