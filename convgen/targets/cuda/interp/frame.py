"""All state of a batch of blocks while it runs."""

from __future__ import annotations

from convgen.targets.cuda.interp.async_copy import AsyncCopies
from convgen.targets.cuda.interp.batch import Batch
from convgen.targets.cuda.interp.clock import Clock
from convgen.targets.cuda.interp.fragments import Fragments
from convgen.targets.cuda.interp.lanes import Lanes
from convgen.targets.cuda.interp.memory import GlobalMemory, LocalMemory
from convgen.targets.cuda.interp.shared import SharedMemory
from convgen.targets.cuda.interp.types import Array, Value


class Frame(Lanes):
    """The lanes with their registers and memories. ``defined`` says of doubtful registers which lanes have written them."""

    def __init__(
        self,
        batch: Batch,
        clock: Clock,
        arguments: bytes,
        registers: list[Value],
        defined: dict[int, Array],
        memory: GlobalMemory,
        shared: SharedMemory,
        local: LocalMemory,
    ) -> None:
        super().__init__(batch, clock)
        self.arguments = arguments
        self.registers = registers
        self.defined = defined
        self.memory = memory
        self.shared = shared
        self.local = local
        self.copies = AsyncCopies(batch, shared)
        self.fragments = Fragments()
