"""What kernels must know of an array on a device, and what a library of such arrays must be able to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from convgen.errors import DTypeError, OperandError


@dataclass(frozen=True)
class View:
    """An array as a kernel sees it.

    ``dtype`` is convgen's name of it, ``is_dense`` whether it lies in C order without gaps, ``device`` the number of its device
    or None where only the address tells, ``stream`` the handle of the stream that its contents are made on, if that must be
    waited for. ``is_writable`` says that the library is known to let others write, ``owner`` keeps the memory.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str
    is_dense: bool
    owner: object
    device: int | None = None
    is_writable: bool = True
    stream: int | None = None


class Library(Protocol):
    """A library whose arrays are operands; ``name`` is that of the argument, for messages."""

    def view(self, name: str, array: Any) -> View:
        """Raises OperandError for what is not on a CUDA device and DTypeError for a type that no kernel reads."""

    def current_stream(self, array: Any, device: int) -> int:
        """The handle of the stream that the library itself would use now."""

    def empty(self, shape: tuple[int, ...], dtype: str, device: int, stream: int) -> Any:
        """An array of undefined contents, in C order, that may be used on the stream at once."""

    def scratch(self, nbytes: int, device: int, stream: int) -> tuple[int, object]:
        """The address of scratch memory for a call on the stream, and what keeps it until the call has been started."""

    def dense(self, name: str, array: Any, device: int, stream: int) -> Any:
        """A copy in C order, made on the stream; raises OperandError where the library makes none."""


def is_dense(shape: Sequence[int], strides: Sequence[int] | None, itemsize: int) -> bool:
    """Whether an array of these strides (in bytes, None for C order) lies in C order without gaps."""
    if strides is None or 0 in shape:
        return True
    expected = itemsize
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return True


def no_kernel_reads(name: str, dtype: object) -> DTypeError:
    """The error for a data type that convgen does not have."""
    return DTypeError(f"{name} has dtype {dtype}, which no kernel reads")


def not_on_device(name: str, where: object) -> OperandError:
    """The error for an array in other memory."""
    return OperandError(f"{name} is on {where}, not on a CUDA device")


def stream_handle(stream: Any) -> int:
    """The handle of a stream: an integer, or a stream of torch, cupy, numba or cuda.core; raises OperandError."""
    if isinstance(stream, int) and not isinstance(stream, bool) and stream >= 0:
        return stream
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr", "handle"):
        found = getattr(stream, name, None)
        if found is not None:
            return int(getattr(found, "value", found) or 0)
    raise OperandError(
        f"stream={stream!r} is no stream; allowed: an address, or a stream of torch, cupy, numba or cuda.core"
    )
