"""synchronize: barriers stand where threads read what others have stored, or store where others have read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.ir.nodes import Alloc, Barrier, For, If, Program, Stage, Stmt
from convgen.ir.rewrite import loops, reads, stores


@dataclass(frozen=True)
class Synchronize:
    """thread for t: s[f(t)] = x;  thread for t: y = s[g(t)]   →   thread for t: s[f(t)] = x;  barrier;  thread for t: y = s[g(t)]

    for every buffer s that the threads of a task share, once around a loop too, but for those ``pipelined``.

    Requires: barriers order the accesses to the pipelined buffers. Ensures: of two accesses to a shared buffer in different
    thread loops, one of them a store, one is behind a barrier that the other stands before.
    """

    pipelined: tuple[str, ...] = ()

    def __call__(self, program: Program) -> Program:
        local = frozenset(buffer.name for buffer in program.buffers if buffer.space == "local") - {*self.pipelined}
        return replace(program, stages=tuple(_synchronized(stage, local) for stage in program.stages))


def _synchronized(stage: Stage, local: frozenset[str]) -> Stage:
    if not any(loop.kind in ("thread", "warp") for loop in loops(stage.body)):
        return stage
    body, _ = _block(stage.body, _Accesses(), local)
    return replace(stage, body=body)


@dataclass(frozen=True)
class _Accesses:
    """The shared buffers that were read and stored since the last barrier."""

    read: frozenset[str] = frozenset()
    stored: frozenset[str] = frozenset()

    def joined(self, other: _Accesses) -> _Accesses:
        return _Accesses(self.read | other.read, self.stored | other.stored)

    def conflicts(self, other: _Accesses) -> bool:
        return bool(self.stored & (other.read | other.stored) or self.read & other.stored)


def _block(body: tuple[Stmt, ...], since: _Accesses, local: frozenset[str]) -> tuple[tuple[Stmt, ...], _Accesses]:
    """The block with barriers, and what was accessed since the last one, given what was before it."""
    result: list[Stmt] = []
    for statement in body:
        match statement:
            case For(_, _, inner, "thread" | "warp"):
                here = _Accesses(
                    frozenset(read.buffer for read in reads(inner)) & local,
                    frozenset(store.buffer for store in stores(inner)) & local,
                )
                if since.conflicts(here):
                    result.append(Barrier())
                    since = here
                else:
                    since = since.joined(here)
                result.append(statement)
            case For(_, _, inner, "serial"):
                # The second time around, what was accessed at the end of the loop comes before its beginning.
                _, end = _block(inner, since, local)
                around = since.joined(end)
                changed, end = _block(inner, around, local)
                result.append(replace(statement, body=changed))
                since = around.joined(end)
            case For(_, _, inner) | Alloc(_, inner):
                changed, since = _block(inner, since, local)
                result.append(replace(statement, body=changed))
            case If(_, inner):
                changed, end = _block(inner, since, local)
                result.append(replace(statement, body=changed))
                since = since.joined(end)
            case Barrier():
                result.append(statement)
                since = _Accesses()
            case _:
                result.append(statement)
    return tuple(result), since
