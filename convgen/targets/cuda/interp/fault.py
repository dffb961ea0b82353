"""A fault on its way from where it is found to where its instruction is known."""

from __future__ import annotations

from convgen.targets.cuda.interp.program import Op


class Fault(Exception):
    """What a lane did wrong; ``launch`` adds the place and raises KernelFault.

    ``op`` is the instruction to blame, where it is not the one being executed.
    """

    def __init__(self, kind: str, reason: str, lane: int, op: Op | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.lane = lane
        self.op = op
