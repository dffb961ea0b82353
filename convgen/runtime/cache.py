"""Compiled kernels on disk, shared by processes, and in memory."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import struct
import tempfile
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from convgen.errors import CacheWarning, OptionError
from convgen.machine import Machine

FORMAT_VERSION = 2
_MAGIC = b"CONVGENK"
# magic, format version, length of the symbol, length of the code, SHA-256 over key, symbol, code and source
_HEADER = struct.Struct("<8sIIQ32s")
_KEY = re.compile(r"[0-9a-f]{8,128}")
_UNINSTALLED_VERSION = "0+uninstalled"
_DISTRIBUTIONS = ("convgen", "numpy", "numba", "llvmlite")
_COMPILER_SETTINGS = (
    "NUMBA_BOUNDSCHECK",
    "NUMBA_CPU_FEATURES",
    "NUMBA_CPU_NAME",
    "NUMBA_DEBUGINFO",
    "NUMBA_DEBUG_NRT",
    "NUMBA_DISABLE_INTEL_SVML",
    "NUMBA_ENABLE_AVX",
    "NUMBA_EXTEND_VARIABLE_LIFETIMES",
    "NUMBA_LLVM_REFPRUNE_FLAGS",
    "NUMBA_LLVM_REFPRUNE_PASS",
    "NUMBA_LOOP_VECTORIZE",
    "NUMBA_NRT_STATS",
    "NUMBA_OPT",
    "NUMBA_SLP_VECTORIZE",
)

# Directories this process has already warned about.
_warned: dict[Path, object] = {}


@dataclass(frozen=True)
class Entry:
    """One compiled kernel: the function's symbol, the object code that defines it, and the source it came from."""

    symbol: str
    code: bytes
    source: str


class KernelCache:
    """Kernels by key (8 to 128 lower-case hexadecimal digits), in memory and in ``directory``/kernels.

    On disk a kernel is ``KEY.py``, its source to read, and ``KEY.obj``, a header and the object code. Files appear
    whole or not at all, so any number of processes may share a directory. Nothing that is wrong with the directory
    stops a caller: the entry counts as absent or is kept in memory only, and one CacheWarning per process and directory
    says so.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self._kernels = self.directory / "kernels"
        self._memory: dict[str, Entry] = {}

    def get(self, key: str) -> Entry | None:
        """Returns the entry stored under ``key``, or None; raises OptionError when ``key`` is malformed."""
        self._check(key)
        if key in self._memory:
            return self._memory[key]
        try:
            stored = (self._kernels / f"{key}.obj").read_bytes()
            source = (self._kernels / f"{key}.py").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"cannot be read ({error})")
            return None
        entry = _decode(key, stored, source)
        if entry is None:
            self._warn(f"holds a damaged or foreign entry {key}.obj, which is compiled anew")
            return None
        return self._memory.setdefault(key, entry)

    def put(self, key: str, entry: Entry) -> None:
        """Stores ``entry`` under ``key``; raises OptionError when ``key`` is malformed."""
        self._check(key)
        self._memory[key] = entry
        source = entry.source.encode()
        try:
            self._kernels.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The object code last: where it is, its source is.
            _write_atomically(self._kernels / f"{key}.py", source)
            _write_atomically(self._kernels / f"{key}.obj", _encode(key, entry, source))
        except OSError as error:
            self._warn(f"cannot be written ({error})")

    def _check(self, key: str) -> None:
        if not _KEY.fullmatch(key):
            raise OptionError(f"key={key!r} is not valid; allowed: 8 to 128 lower-case hexadecimal digits")

    def _warn(self, what: str) -> None:
        directory = self.directory.absolute()
        token = object()
        if _warned.setdefault(directory, token) is token:
            message = f"the kernel cache {str(directory)!r} {what}; results stay correct, first calls are slower"
            warnings.warn(message, CacheWarning, stacklevel=3)


@functools.cache
def toolchain_key(machine: Machine) -> str:
    """Returns a SHA-256 digest of all that decides what source becomes for ``machine``, the source aside.

    That is: the versions of convgen, Python, NumPy, Numba, llvmlite and of the cache's format, the processor and its
    features, and the NUMBA_* settings of the environment that change generated code, as they are on the first call.
    """
    facts = [("format", str(FORMAT_VERSION))]
    facts += [("python", f"{platform.python_implementation()} {platform.python_version()}")]
    facts += [(name, _version(name)) for name in _DISTRIBUTIONS]
    facts += [("triple", machine.triple), ("cpu", machine.cpu), ("features", machine.features)]
    facts += [(name, os.environ[name]) for name in _COMPILER_SETTINGS if name in os.environ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return _UNINSTALLED_VERSION


def _digest(key: str, symbol: bytes, code: bytes, source: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in (key.encode(), symbol, code, source):
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)
    return digest.digest()


def _encode(key: str, entry: Entry, source: bytes) -> bytes:
    symbol = entry.symbol.encode()
    digest = _digest(key, symbol, entry.code, source)
    header = _HEADER.pack(_MAGIC, FORMAT_VERSION, len(symbol), len(entry.code), digest)
    return header + symbol + entry.code


def _decode(key: str, stored: bytes, source: bytes) -> Entry | None:
    """Returns the entry, or None when ``stored`` and ``source`` are not what was written under ``key``."""
    if len(stored) < _HEADER.size:
        return None
    magic, version, symbol_length, code_length, digest = _HEADER.unpack_from(stored)
    if magic != _MAGIC or version != FORMAT_VERSION or len(stored) != _HEADER.size + symbol_length + code_length:
        return None
    symbol = stored[_HEADER.size : _HEADER.size + symbol_length]
    code = stored[_HEADER.size + symbol_length :]
    if _digest(key, symbol, code, source) != digest:
        return None
    return Entry(symbol.decode(), code, source.decode())


def _write_atomically(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
