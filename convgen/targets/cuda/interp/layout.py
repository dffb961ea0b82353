"""Where a module's variables lie: addresses of constants and tables, of shared arrays and of a thread's own memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from convgen.targets.cuda.interp.syntax import Variable

# Generic addresses: each space is a window, and what is outside of both windows is global.
SHARED_WINDOW = 0x0200_0000_0000
LOCAL_WINDOW = 0x0300_0000_0000
WINDOW_SIZE = 0x0100_0000_0000
MODULE_BASE = 0x0001_0000_0000
ARGUMENT_BASE = 0x7F00_0000_0000
# Nothing lies at the first addresses of shared memory, so that a missing base shows.
SHARED_START = 1024
# Between variables, so that running over the end of one does not reach the next.
_SHARED_GAP = 16
_MODULE_GAP = 4096


@dataclass(frozen=True, slots=True)
class Layout:
    """Addresses of variables in their spaces. ``shared`` lists (start, stop) of static shared arrays.

    ``dynamic`` is where extern shared memory starts, None where the kernel has none.
    """

    addresses: dict[str, int]
    module_variables: tuple[Variable, ...]
    shared: tuple[tuple[int, int], ...]
    dynamic: int | None
    static_end: int

    def shared_end(self, dynamic_bytes: int) -> int:
        """The bytes of a block's shared memory, rounded up to whole kilobytes."""
        end = self.static_end if self.dynamic is None else self.dynamic + dynamic_bytes
        return _up(end, 1024)


def _up(value: int, align: int) -> int:
    return -(-value // align) * align


def lay_out(variables: Iterable[Variable]) -> Layout:
    """Gives every variable of the spaces shared, global and const its address, in order."""
    addresses: dict[str, int] = {}
    module: list[Variable] = []
    shared: list[tuple[int, int]] = []
    externs: list[Variable] = []
    next_module, next_shared = MODULE_BASE, SHARED_START
    for variable in variables:
        if variable.space == "shared" and variable.size == 0:
            externs.append(variable)
        elif variable.space == "shared":
            start = _up(next_shared, variable.align)
            addresses[variable.name] = start
            shared.append((start, start + variable.size))
            next_shared = start + variable.size + _SHARED_GAP
        elif variable.space in ("global", "const"):
            addresses[variable.name] = _up(next_module, max(variable.align, 256))
            module.append(variable)
            next_module = addresses[variable.name] + variable.size + _MODULE_GAP
    dynamic = _up(next_shared, max(16, *(variable.align for variable in externs))) if externs else None
    for variable in externs:
        assert dynamic is not None
        addresses[variable.name] = dynamic
    return Layout(addresses, tuple(module), tuple(shared), dynamic, next_shared)
