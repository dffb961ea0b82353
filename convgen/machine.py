"""What this processor offers and the operating system grants: features, vector width, caches, cores."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import llvmlite.binding as llvm

from convgen import matrix_unit
from convgen.errors import OptionError
from convgen.options import CPU_ISAS, lower_isa, max_cpu_isa

# Linux's names for features that LLVM calls otherwise; all others are equal but for the characters "-", "." and "_".
_LINUX_NAMES = {
    "64bit": "lm",
    "bmi": "bmi1",
    "crc32": "sse4_2",
    "lzcnt": "abm",
    "pclmul": "pclmulqdq",
    "prfchw": "3dnowprefetch",
    "rdrnd": "rdrand",
    "sahf": "lahf_lm",
    "sha": "sha_ni",
    "sse3": "pni",
}
_X86 = ("x86_64", "amd64", "i386", "i686")
_AVX2_NEEDS = ("avx2", "fma")
_AVX512_NEEDS = (*_AVX2_NEEDS, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
# Everything that is encoded with VEX or EVEX: LLVM switches AVX back on when one of these stays on.
_NEEDS_AVX = ("avx", "fma", "f16c", "xop", "vaes", "vpclmulqdq", "sha512", "sm3", "sm4")
_NAMES = ("host", "amx", "avx512", "avx2", "generic")
_DEFAULT_CACHES = {1: 32 << 10, 2: 1 << 20, 3: 8 << 20}
_CPU = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One kind of processor as convgen may use it.

    ``triple``, ``cpu`` and ``features`` are what LLVM is told (``features`` names every feature with ``+`` or ``-``, so
    the name in ``cpu`` only chooses the scheduling model); ``isa`` is ``"amx"``, ``"avx512"``, ``"avx2"`` or ``"generic"``;
    ``vector_bytes`` and ``vector_registers`` describe its vector file; the caches are in bytes, one core's share;
    ``cores`` are the logical processors this process may run on; ``core`` is LLVM's name for the processor itself, whatever
    is masked; ``matrix`` says how products of tiles are made: ``"amx"`` by that unit, ``"emulated"`` in its place, ``""``
    not at all.
    """

    name: str
    triple: str
    cpu: str
    features: str
    isa: str
    vector_bytes: int
    vector_registers: int
    l1d_bytes: int
    l2_bytes: int
    l3_bytes: int
    cores: int
    core: str = ""
    matrix: str = ""

    @classmethod
    def host(cls, max_isa: str = "") -> Machine:
        """Returns the machine this process runs on, asked once, with no more features than CONVGEN_MAX_CPU_ISA and ``max_isa``
        admit."""
        return _limited(lower_isa(max_cpu_isa(), max_isa))

    def has(self, feature: str) -> bool:
        """Whether LLVM's ``feature`` (such as ``"avx512vnni"``) may be used."""
        return f"+{feature}" in self.features.split(",")

    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits, equal on equal machines; ``cores`` is left out: affinity changes it."""
        facts = dataclasses.astuple(dataclasses.replace(self, cores=0))
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def describe(self) -> str:
        """Returns one line for a reader: name, instruction set, vector width, caches and cores."""
        caches = " + ".join(f"{size >> 10} KiB" for size in (self.l1d_bytes, self.l2_bytes, self.l3_bytes))
        vectors = f"{self.vector_registers} x {self.vector_bytes}-byte vectors"
        return f"{self.name} ({self.cpu}), {self.isa}, {vectors}, caches {caches} a core, cores {self.cores}"


def machine_named(name: str) -> Machine:
    """Returns the host, or the host with every feature beyond ``name`` masked, to test lower levels on a higher one.

    ``name`` is ``"host"``, ``"amx"``, ``"avx512"``, ``"avx2"`` or ``"generic"``; raises OptionError for others and for
    what the host lacks.
    """
    host = Machine.host()
    on = {item[1:]: item[0] == "+" for item in host.features.split(",") if item}
    if name == "host":
        return host
    if name not in _NAMES:
        raise OptionError(f"machine={name!r} is not known; allowed: {', '.join(_NAMES)}")
    if name == "generic" and not _is_x86(host.triple):
        return host
    needed = {"amx": matrix_unit.FEATURES, "avx512": _AVX512_NEEDS, "avx2": _AVX2_NEEDS}.get(name, ())
    if not _has(on, needed):
        raise OptionError(f"machine={name!r} asks for more than {host.name} has; allowed: host or a lower level")
    return host if name == "amx" else _lowered(host, name)


@functools.cache
def _lowered(host: Machine, name: str) -> Machine:
    """The host with every feature beyond the level ``name`` masked."""
    masked = {item[1:]: item[0] == "+" and _within(item[1:], name) for item in host.features.split(",") if item}
    isa, vector_bytes, registers = _vectors(host.triple, masked)
    return dataclasses.replace(
        host,
        name=f"{host.name} as {name}",
        cpu={"avx512": "x86-64-v4", "avx2": "x86-64-v3"}.get(name, "x86-64"),
        features=_feature_string(masked),
        isa=isa,
        vector_bytes=vector_bytes,
        vector_registers=registers,
        matrix="",
    )


def granted_features(claimed: Mapping[str, bool], granted: frozenset[str]) -> dict[str, bool]:
    """Returns LLVM's ``claimed`` features, switched off where the system's flags ``granted`` do not list them.

    With no flags at all (not Linux, not x86) the claim stands. The matrix unit (``amx-*``) is off: see matrix_unit.py.
    """

    def allowed(feature: str) -> bool:
        return _plain(_LINUX_NAMES.get(feature, feature)) in plain or not granted

    plain = {_plain(flag) for flag in granted}
    return {
        feature: on and allowed(feature) and not feature.startswith("amx-") for feature, on in sorted(claimed.items())
    }


def _limited(level: str) -> Machine:
    """The host, lowered to a level if it has more."""
    host = _host()
    if level and CPU_ISAS.index(level) > CPU_ISAS.index(host.isa):
        return _lowered(host, level)
    return host if level == "avx512" else _with_matrix_unit(host)


@functools.cache
def _with_matrix_unit(host: Machine) -> Machine:
    """The host and its matrix unit, if it has one that this process may use."""
    flags = frozenset(_cpuinfo().get("flags", "").split())
    if not _is_x86(host.triple) or host.isa != "avx512" or not matrix_unit.works(flags):
        return host
    on = {item[1:]: item[0] == "+" for item in host.features.split(",") if item}
    features = _feature_string(on | dict.fromkeys(matrix_unit.FEATURES, True))
    return dataclasses.replace(host, features=features, isa="amx", matrix="amx")


@functools.cache
def _host() -> Machine:
    llvm.initialize_native_target()
    triple = llvm.get_process_triple()
    cpuinfo = _cpuinfo()
    flags = frozenset(cpuinfo.get("flags", "").split()) if _is_x86(triple) else frozenset()
    features = granted_features(dict(llvm.get_host_cpu_features()), flags)
    isa, vector_bytes, registers = _vectors(triple, features)
    processors = _processors()
    caches = cache_sizes(_CPU / f"cpu{processors[0]}" / "cache")
    cpu = llvm.get_host_cpu_name()
    return Machine(
        name=cpuinfo.get("model name") or platform.processor() or cpu,
        triple=triple,
        cpu=cpu,
        features=_feature_string(features),
        isa=isa,
        vector_bytes=vector_bytes,
        vector_registers=registers,
        l1d_bytes=caches[1],
        l2_bytes=caches[2],
        l3_bytes=caches[3],
        cores=len(processors),
        core=cpu,
    )


def cache_sizes(folder: Path) -> dict[int, int]:
    """Returns level -> bytes of data cache for one core, from sysfs's ``cache`` folder of a processor, with defaults.

    A cache that several cores share is divided by their number; hyper-threads of one core, which share the first level,
    count once.
    """
    sizes: dict[int, int] = {}
    sharers: dict[int, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size, shared = (
                (index / field).read_text().strip() for field in ("level", "type", "size", "shared_cpu_list")
            )
            if kind != "Instruction":
                sizes[int(level)] = _parse_size(size)
                sharers[int(level)] = _count_processors(shared)
        except (OSError, ValueError):
            continue
    found = {level: size * sharers.get(1, 1) // max(sharers[level], 1) for level, size in sizes.items()}
    return {level: found.get(level, 0) or default for level, default in _DEFAULT_CACHES.items()}


def _processors() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _parse_size(text: str) -> int:
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
    return int(text.rstrip("KMG")) * unit


def _count_processors(text: str) -> int:
    ranges = (item.partition("-") for item in text.split(","))
    return sum(int(high or low) - int(low) + 1 for low, _, high in ranges)


def _plain(feature: str) -> str:
    return feature.replace("-", "").replace(".", "").replace("_", "")


def _is_x86(triple: str) -> bool:
    return triple.split("-", 1)[0] in _X86


def _has(features: Mapping[str, bool], needed: tuple[str, ...]) -> bool:
    return all(features.get(feature, False) for feature in needed)


def _within(feature: str, level: str) -> bool:
    if feature.startswith("amx-"):
        return False
    match level:
        case "avx512":
            return feature in _AVX512_NEEDS or not feature.startswith(("avx512", "avx10"))
        case "avx2":
            return not feature.startswith(("avx512", "avx10"))
        case _:
            return not feature.startswith(_NEEDS_AVX)


def _vectors(triple: str, features: Mapping[str, bool]) -> tuple[str, int, int]:
    if not _is_x86(triple):
        return "generic", 16, 32 if triple.startswith(("aarch64", "arm64")) else 16
    if _has(features, _AVX512_NEEDS):
        return "avx512", 64, 32
    if _has(features, _AVX2_NEEDS):
        return "avx2", 32, 16
    return "generic", 16, 16


def _feature_string(features: Mapping[str, bool]) -> str:
    return ",".join(f"{'+' if on else '-'}{feature}" for feature, on in sorted(features.items()))
