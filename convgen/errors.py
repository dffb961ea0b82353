"""Typed errors and warnings. Every message is one sentence that names the argument and its value."""

from __future__ import annotations

import functools
from typing import Any


class ConvgenError(Exception):
    """Base of every error convgen raises on purpose."""


class SpecError(ConvgenError, ValueError):
    """A convolution problem, or an argument that describes one, is not valid."""


class ShapeError(ConvgenError, ValueError):
    """An array's rank or shape does not fit the problem."""


class DTypeError(ConvgenError, TypeError):
    """A data type is unknown, unsupported, or differs between operands."""


class OperandError(ConvgenError, ValueError):
    """An operand is missing, superfluous, not an array, not writable, or overlaps another."""


class NotApplicable(ConvgenError):
    """A strategy or target refuses a problem; the message is the reason."""


class IRError(ConvgenError):
    """A program breaks a rule of the IR."""


class PassError(IRError):
    """A pass was given, or has produced, a program that breaks a rule; the message names the pass."""


class CompileError(ConvgenError):
    """Generated source could not be compiled."""


class VerificationError(ConvgenError):
    """A kernel's numbers are not the oracle's."""


class WorkspaceLimitError(ConvgenError):
    """No variant fits the workspace limit."""


class ModelError(ConvgenError, ValueError):
    """A model file cannot be read, or holds no convolution convgen understands."""


class FleetError(ConvgenError):
    """A fleet of workers cannot be reached, or has not tuned a problem."""


class WrongMachineError(FleetError):
    """A fleet's job has come to a machine of another kind than it is for."""


class OptionError(ConvgenError, ValueError):
    """An environment variable or a command-line option has a value that is not allowed."""


class LockError(ConvgenError, ValueError):
    """A lockfile cannot be read, or lacks a choice in strict mode."""


class ExchangeError(ConvgenError, ValueError):
    """A file of tuning results is not valid; the message names the file and the line."""


class MissingDependencyError(ConvgenError, ImportError):
    """An optional library is needed for what was asked and is not installed."""


class PtxError(ConvgenError):
    """PTX is ill-formed, or holds what the interpreter does not know; the message names the instruction and its line."""


class KernelFault(ConvgenError):
    """A kernel under the interpreter did what it must not.

    ``kind`` is a word or two for what: ``"out of bounds"``, ``"misaligned"``, ``"read-only"``, ``"uninitialised"``,
    ``"in flight"``, ``"race"``, ``"barrier"``, ``"warp"``, ``"trap"`` or ``"endless"``. ``kernel``, ``line`` and ``text`` say
    where in the PTX, ``block`` and ``thread`` are the indices (x, y, z) of the first thread that did it.
    """

    def __init__(
        self,
        kind: str,
        reason: str,
        *,
        kernel: str = "",
        line: int = 0,
        text: str = "",
        block: tuple[int, int, int] = (0, 0, 0),
        thread: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        super().__init__(f"{kind}: {reason}, at PTX line {line} `{text}` of {kernel}, block {block}, thread {thread}")
        self.kind = kind
        self.reason = reason
        self.kernel = kernel
        self.line = line
        self.text = text
        self.block = block
        self.thread = thread

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is sent from one process to another."""
        place: dict[str, Any] = dict(
            kernel=self.kernel, line=self.line, text=self.text, block=self.block, thread=self.thread
        )
        return functools.partial(KernelFault, **place), (self.kind, self.reason)


class DeviceError(ConvgenError, RuntimeError):
    """The CUDA driver refuses a call. ``call`` is the function's name, ``code`` the name of the error, ``text`` what it means."""

    def __init__(self, call: str, code: str, text: str) -> None:
        super().__init__(f"{call} fails with {code}: {text}")
        self.call = call
        self.code = code
        self.text = text


class CacheWarning(UserWarning):
    """The kernel cache or the tuning database could not be read or written; results stay correct."""


class FleetWarning(UserWarning):
    """A job of a fleet was lost with its worker."""


class WaitWarning(UserWarning):
    """Another process was waited for in vain, and is done without; the message says what it was to do."""


class VerificationWarning(UserWarning):
    """A generated kernel failed verification; it is recorded and never used."""


class NoisyMachineWarning(UserWarning):
    """Other programs disturb measurements, which take longer; choices stay as sure as there is time for."""


class LockWarning(UserWarning):
    """The lockfile in force lacks a choice, and the heuristic's is taken."""


class FusedWarning(UserWarning):
    """A layer is to be trained that a batch norm was folded into."""
