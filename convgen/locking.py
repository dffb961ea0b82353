"""Choices by the lockfile in force: with one, nothing is measured and nothing else is asked."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from dataclasses import dataclass
from pathlib import Path

from convgen.choices import is_offered
from convgen.descriptor import format_descriptor
from convgen.driver import Plan, fits, heuristic_plan
from convgen.errors import LockError, LockWarning
from convgen.machine import Machine
from convgen.options import LOCK_NAME, is_lock_off, is_lock_strict, lock_path
from convgen.options import workspace_limit as default_workspace_limit
from convgen.spec import ConvSpec
from convgen.tuning.lockfile import Lockfile, read_lock

# Lockfiles this process has already warned about.
_warned: dict[Path, object] = {}


@dataclass(frozen=True)
class Call:
    """What a choice is made for: a problem on a machine, its threads and workspace limit, and whether weights are packed once.

    Without a ``workspace_limit`` CONVGEN_WORKSPACE_LIMIT holds, here for all who choose; None afterwards means any.
    """

    spec: ConvSpec
    machine: Machine
    threads: int
    workspace_limit: int | None = None
    constant_weights: bool = True

    def __post_init__(self) -> None:
        if self.workspace_limit is None:
            object.__setattr__(self, "workspace_limit", default_workspace_limit())

    def streamed(self) -> Call:
        """The same where each call packs the weights."""
        return dataclasses.replace(self, constant_weights=False)


def active_lock() -> Lockfile | None:
    """The lockfile in force (see options.lock_path), read again when it has changed; raises LockError where it cannot be, and in
    strict mode where there is none."""
    path = lock_path()
    if path is None:
        if is_lock_strict() and not is_lock_off():
            raise LockError(
                f"CONVGEN_LOCK_STRICT=1 needs a lockfile, and {str(Path(LOCK_NAME).absolute())!r} is not there; allowed: "
                "CONVGEN_LOCK=FILE, or CONVGEN_LOCK=off for none"
            )
        return None
    try:
        status = path.stat()
    except OSError as error:
        raise LockError(f"lockfile {str(path)!r} cannot be read: {error.strerror}") from error
    return _read(path, status.st_mtime_ns, status.st_size, status.st_ino)


@functools.lru_cache(maxsize=4)
def _read(path: Path, *state: int) -> Lockfile:
    return read_lock(path)


def locked_plan(lock: Lockfile, call: Call) -> Plan:
    """The lockfile's choice, else the heuristic's with one LockWarning a process and file; in strict mode raises LockError.

    Raises what heuristic_plan raises.
    """
    try:
        return plan_in(lock, call)
    except LockError as error:
        if is_lock_strict():
            raise
        token = object()
        if _warned.setdefault(lock.path, token) is token:
            remedy = "the heuristic chooses; `convgen lock --check` lists all that is missing"
            warnings.warn(f"{error}; {remedy}", LockWarning, stacklevel=4)
    return heuristic_plan(
        call.spec, call.machine, call.workspace_limit, call.threads, constant_weights=call.constant_weights
    )


def plan_in(lock: Lockfile, call: Call) -> Plan:
    """The lockfile's choice; raises LockError saying why there is none."""
    spec, machine = call.spec, call.machine
    entries = lock.find(spec, machine.fingerprint(), call.threads, call.workspace_limit)
    reason = f"lacks it for this machine ({machine.fingerprint()}) and threads={call.threads}"
    for entry in entries:
        strategy, config = entry.choice if call.constant_weights else entry.streamed or entry.choice
        if not is_offered(strategy, config, spec, machine):
            reason = f"wants {strategy} {config}, which is not offered here"
            continue
        plan = Plan(spec, strategy, config, "lock")
        if fits(plan, machine, call.workspace_limit, call.threads):
            return plan
        reason = f"wants {strategy} {config}, which needs more than {call.workspace_limit} bytes"
    raise LockError(f"problem {format_descriptor(spec)!r}: the lockfile {str(lock.path)!r} {reason}")
