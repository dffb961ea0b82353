"""Which threads run next: groups that are at the same place, the earliest place first, until all have ended.

Threads that part at a branch are groups of their own and become one again where they meet. A group waits at a barrier for the
rest of its block, and before an operation of whole warps for the rest of its warps.
"""

from __future__ import annotations

import numpy as np

from convgen.targets.cuda.interp.build import Code
from convgen.targets.cuda.interp.fault import Fault
from convgen.targets.cuda.interp.frame import Frame
from convgen.targets.cuda.interp.program import Branch, Exit, Jump, Op, Switch, Wait
from convgen.targets.cuda.interp.steps import reader, unknown
from convgen.targets.cuda.interp.syntax import Imm
from convgen.targets.cuda.interp.types import Array, Value


class Scheduler:
    """The threads of a batch of blocks, from entry to exit. ``op`` is the instruction being executed."""

    def __init__(
        self, codes: tuple[Code, ...], frame: Frame, order: np.random.Generator | None, step_limit: int
    ) -> None:
        self._codes = codes
        self._frame = frame
        self._order = order
        self._limit = step_limit
        self._everyone = np.ones(frame.batch.lanes, np.bool_)
        # Groups that may run, those that are held back at random, those that wait for warps, and those at a barrier.
        self._ready: dict[int, Array] = {}
        self._held: dict[int, Array] = {}
        self._parked: dict[int, Array] = {}
        self._waiting: dict[int, tuple[Wait, Array]] = {}
        self.op: Op | None = None

    def run(self) -> None:
        """Runs all threads to their end. Raises Fault."""
        self._release(0, self._everyone)
        steps = 0
        while True:
            number = self._next()
            if number is None:
                break
            steps += 1
            if steps > self._limit:
                self._blame(number)
                mask = self._ready[number]
                raise Fault("endless", f"not done after {self._limit} steps", int(mask.argmax()))
            mask = self._ready.pop(number)
            code = self._codes[number]
            if code.segment.together and number not in self._forced:
                mask = self._whole(number, mask)
                if not mask.any():
                    continue
            self._execute(number, mask)
        self._frame.enter(None, merge=False)
        self.op = None
        self._frame.shared.settle(self._frame, None)

    def _next(self) -> int | None:
        """The place to run next; held and parked groups come when nothing else can run."""
        self._forced: frozenset[int] = frozenset()
        if not self._ready and self._held:
            self._ready, self._held = self._held, {}
        if not self._ready and self._parked:
            # What is missing will never come: the operation itself says so, or can do without.
            number = min(self._parked)
            self._add(self._ready, number, self._parked.pop(number))
            self._forced = frozenset((number,))
        if self._ready:
            return min(self._ready)
        if self._waiting:
            self._hang()
        return None

    def _whole(self, number: int, mask: Array) -> Array:
        """The lanes whose warps are all here; the others are parked until they are."""
        if number in self._parked:
            mask = mask | self._parked.pop(number)
        if mask.all():
            return mask
        batch = self._frame.batch
        padded = np.zeros((2, batch.blocks, batch.warps * 32), np.bool_)
        padded[0, :, : batch.threads] = mask.reshape(batch.blocks, -1)
        padded[1, :, : batch.threads] = self._frame.live.reshape(batch.blocks, -1)
        here, live = padded.reshape(2, batch.blocks, batch.warps, 32)
        complete = (here == live).all(axis=2)
        lanes = np.repeat(complete, 32, axis=1)[:, : batch.threads].reshape(-1)
        rest = mask & ~lanes
        if rest.any():
            self._add(self._parked, number, rest)
        whole: Array = mask & lanes
        return whole

    def _execute(self, number: int, mask: Array) -> None:
        frame, code = self._frame, self._codes[number]
        alone = not (self._ready or self._held or self._parked or self._waiting)
        frame.enter(None if mask.all() else mask, merge=not alone and not mask.all())
        step = None
        try:
            for step in code.steps:
                step(frame)
        except Fault:
            self.op = None if step is None else code.segment.ops[code.steps.index(step)]
            raise
        match code.segment.end:
            case Jump(target):
                self._add(self._ready, target, mask)
            case Branch(guard, taken, otherwise):
                holds = frame.registers[guard.index]
                self._branch(mask, ~holds if guard.negated else holds, taken, otherwise)
            case Wait() as wait:
                self.op = wait.op
                self._arrive(number, wait, mask)
            case Switch(index, targets, op):
                self.op = op
                self._switch(mask, reader(index, "u32", op)(frame), targets)
            case Exit(trap):
                if trap is not None:
                    self.op = trap
                    raise Fault("trap", "the kernel trapped", int(mask.argmax()))
                frame.live = frame.live & ~mask

    def _branch(self, mask: Array, holds: Value, taken: int, otherwise: int) -> None:
        if not holds.ndim:
            self._add(self._ready, taken if holds else otherwise, mask)
            return
        yes = mask & holds
        count = np.count_nonzero(yes)
        if count:
            self._add(self._ready, taken, yes)
        if count != np.count_nonzero(mask):
            self._add(self._ready, otherwise, mask & ~holds)

    def _switch(self, mask: Array, index: Value, targets: tuple[int, ...]) -> None:
        index = self._frame.spread(index)
        beyond = mask & (index >= len(targets))
        if beyond.any():
            raise Fault("out of bounds", f"branches to one of {len(targets)} places", int(beyond.argmax()))
        for number in np.unique(index[mask]):
            self._add(self._ready, targets[int(number)], mask & (index == number))

    @staticmethod
    def _add(groups: dict[int, Array], number: int, mask: Array) -> None:
        groups[number] = mask | groups[number] if number in groups else mask

    def _release(self, number: int, mask: Array) -> None:
        """Lets lanes go on from a place, some of their warps before the others if the order is random."""
        batch = self._frame.batch
        if self._order is None or batch.warps == 1:
            self._add(self._ready, number, mask)
            return
        early = self._order.integers(0, 2, (batch.blocks, batch.warps)).astype(np.bool_)
        lanes = np.repeat(early, 32, axis=1)[:, : batch.threads].reshape(-1)
        for groups, part in ((self._ready, mask & lanes), (self._held, mask & ~lanes)):
            if part.any():
                self._add(groups, number, part)

    # Barriers.

    def _arrive(self, number: int, wait: Wait, mask: Array) -> None:
        frame, batch = self._frame, self._frame.batch
        match wait.op.sources:
            case (_, Imm(count)) if count != batch.threads:
                raise unknown(wait.op, f"is supported for all {batch.threads} threads of the block alone")
        if number in self._waiting:
            mask = mask | self._waiting.pop(number)[1]
        if mask.all():
            frame.shared.settle(frame, None)
            frame.clock.barrier(None)
            self._release(wait.target, self._everyone)
            return
        complete: Array = np.logical_and.reduce(mask.reshape(batch.blocks, batch.threads), axis=1)
        if complete.any():
            frame.shared.settle(frame, complete)
            frame.clock.barrier(complete)
            lanes = np.repeat(complete, batch.threads)
            self._release(wait.target, mask & lanes)
            mask = mask & ~lanes
        if mask.any():
            self._waiting[number] = (wait, mask)

    def _hang(self) -> None:
        """Raises for threads that wait at a barrier which the rest of their block does not reach."""
        number = min(self._waiting)
        wait, mask = self._waiting[number]
        self.op = wait.op
        lane = int(mask.argmax())
        batch = self._frame.batch
        block = batch.block == batch.block[lane]
        ended = int((block & ~self._frame.live).sum())
        others = sorted(
            other.op.line for at, (other, where) in self._waiting.items() if at != number and (where & block).any()
        )
        reasons = [f"{ended} threads have ended"] if ended else []
        reasons += [f"others wait at the barrier of PTX line {line}" for line in others]
        waiting = int((mask & block).sum())
        raise Fault("barrier", f"{waiting} threads of {batch.threads} wait, {' and '.join(reasons)}", lane)

    def _blame(self, number: int) -> None:
        ops = self._codes[number].segment.ops
        self.op = ops[0] if ops else None
