"""The call path: one builtin function, from templates/cpu/launch.ll, checks arguments and runs a program's stages."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import llvmlite.binding as llvm
import numpy as np

from convgen.errors import CompileError, DTypeError, OperandError, OptionError
from convgen.render import template_dir
from convgen.runtime.objects import load_object
from convgen.runtime.threads import parallel_entry, run_chunks, serial_flag

_FASTCALL = 0x80
_C_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x1, 0x100, 0x400
_PYTHON_FUNCTIONS = ("PyEval_SaveThread", "PyEval_RestoreThread", "PyLong_AsLongLong", "PyErr_Clear", "Py_IncRef")
# Sizes of object, bytes (its header and one byte) and int64 that launch.ll's offsets assume.
_OBJECT_SIZES = (16, 33, 8)


@dataclass(frozen=True)
class ArrayGuard:
    """What an array argument must be: a ``numpy.ndarray`` of ``dtype`` and ``shape``, C-contiguous and aligned."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    writable: bool = False


@dataclass(frozen=True)
class StageCall:
    """One stage: the address of ``void stage(int64_t *buffers, int64_t *sizes, int64_t begin, int64_t end, int64_t worker)``,
    where ``worker``, from 0, tells apart the threads that run a stage at the same time."""

    address: int
    tasks: int
    sizes: tuple[int, ...] = ()


class Launcher:
    """Runs ``stages`` one after another on the buffers given as arguments.

    ``guards`` has one entry for each buffer: what the array must be, or None where the argument is an address (an int).
    ``call`` is the builtin itself, for callers that count nanoseconds; calling the launcher is the same. Both return
    None, with nothing run and nothing written, when an argument does not fit its guard, and True when all stages have
    run. The GIL is released meanwhile, and any number of threads may call at once. With ``threads`` above 1 the tasks
    of a stage are shared by that many OpenMP threads (Python's where there is no OpenMP; one after a fork).
    """

    call: Callable[..., bool | None]

    def __init__(self, stages: Sequence[StageCall], guards: Sequence[ArrayGuard | None], threads: int = 1) -> None:
        """Raises OptionError for a count below its minimum, DTypeError for a dtype that is not native."""
        if threads < 1:
            raise OptionError(f"threads={threads!r} is too small; allowed: 1 and more")
        for stage in stages:
            if stage.tasks < 0 or not stage.address:
                raise OptionError(f"stages={stage!r} is not valid; allowed: tasks of 0 and more, an address")
        self._stages = tuple(stages)
        self._count = len(guards)
        self._threads = threads
        addresses = (None,) * self._count
        if threads > 1 and parallel_entry() is None:
            self._check = _builtin(_table((), guards, 1))
            self._run: Callable[..., bool | None] = self._run_on_python_threads
            self.call = self._call_on_python_threads
            return
        self._run = _builtin(_table(stages, addresses, threads))
        self.call = _builtin(_table(stages, guards, threads))

    def __call__(self, *arguments: object) -> bool | None:
        """Checks ``arguments`` and runs; True, or None when one does not fit."""
        return self.call(*arguments)

    def run(self, addresses: Sequence[int]) -> None:
        """Runs on the buffers at ``addresses``, unchecked; raises OperandError unless each guard has its int."""
        if len(addresses) != self._count or not self._run(*addresses):
            raise OperandError(f"addresses={tuple(addresses)!r} is not valid; allowed: {self._count} ints below 2**63")

    def _call_on_python_threads(self, *arguments: object) -> bool | None:
        if self._check(*arguments) is None:
            return None
        return self._run_on_python_threads(*(_address(argument) for argument in arguments))

    def _run_on_python_threads(self, *addresses: int) -> bool | None:
        if not all(type(address) is int and 0 <= address < 1 << 63 for address in addresses):
            return None
        buffers = (ctypes.c_int64 * len(addresses))(*addresses)
        for stage in self._stages:
            sizes = (ctypes.c_int64 * len(stage.sizes))(*stage.sizes)
            run_chunks(stage.address, ctypes.addressof(buffers), ctypes.addressof(sizes), stage.tasks, self._threads)
        return True


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def _address(argument: object) -> int:
    if isinstance(argument, np.ndarray):
        address: int = argument.__array_interface__["data"][0]
        return address
    assert isinstance(argument, int)
    return argument


def _table(stages: Sequence[StageCall], guards: Sequence[ArrayGuard | None], threads: int) -> bytes:
    entry = parallel_entry() if threads > 1 else None
    words = [len(guards), len(stages), threads, ctypes.addressof(serial_flag)]
    words += [id(np.ndarray), id(int), id(None), id(True)]
    words += entry or (0, 0, 0)
    for guard in guards:
        words += _guard_words(guard)
    for stage in stages:
        words += (stage.address, stage.tasks, len(stage.sizes), *stage.sizes)
    return struct.pack(f"={len(words)}q", *words)


def _guard_words(guard: ArrayGuard | None) -> tuple[int, ...]:
    if guard is None:
        return (0, 0, 0)
    # The builtin compares dtype objects by address, which is sound for the one canonical object of a type only.
    if np.dtype(guard.dtype.type) is not guard.dtype:
        raise DTypeError(f"dtype={guard.dtype!r} is not native; allowed: dtypes such as numpy.dtype('float32')")
    flags = _C_CONTIGUOUS | _ALIGNED | (_WRITEABLE if guard.writable else 0)
    return (id(guard.dtype), flags, len(guard.shape), *guard.shape)


def _builtin(table: bytes) -> Callable[..., bool | None]:
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    make.restype = ctypes.py_object
    function: Callable[..., bool | None] = make(ctypes.addressof(_method()), table, None)
    return function


@functools.cache
def _method() -> _MethodDef:
    """The builtin's definition; the cache keeps it alive, as CPython asks."""
    sizes = (object.__basicsize__, bytes.__basicsize__, struct.calcsize("P"))
    if sizes != _OBJECT_SIZES:
        raise CompileError(f"object sizes={sizes!r} do not fit; allowed: {_OBJECT_SIZES!r}, 64-bit CPython with a GIL")
    for name in _PYTHON_FUNCTIONS:
        llvm.add_symbol(name, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly((template_dir() / "cpu" / "launch.ll").read_text())
    module.verify()
    target = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(opt=3, jit=True)
    address = load_object(target.emit_object(module), "convgen_call")
    return _MethodDef(b"convgen_call", address, _FASTCALL, b"Runs a program; None when an argument does not fit.")
