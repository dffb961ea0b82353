"""Features are claimed by LLVM and granted by the operating system; caches come from sysfs."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path

import pytest

from convgen.errors import OptionError
from convgen.machine import Machine, cache_sizes, granted_features, machine_named
from convgen.options import CPU_ISAS

on_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 only")


@pytest.mark.parametrize(
    ("feature", "flag"),
    [
        ("avx512f", "avx512f"),
        ("avx512vnni", "avx512_vnni"),
        ("avxvnni", "avx_vnni"),
        ("sse4.2", "sse4_2"),
        ("bmi", "bmi1"),
        ("lzcnt", "abm"),
    ],
)
def test_a_feature_needs_the_systems_flag(feature: str, flag: str) -> None:
    assert granted_features({feature: True}, frozenset({flag})) == {feature: True}
    assert granted_features({feature: True}, frozenset({"fpu"})) == {feature: False}
    assert granted_features({feature: False}, frozenset({flag})) == {feature: False}


def test_without_flags_the_claim_stands_but_for_the_matrix_unit() -> None:
    claimed = {"neon": True, "sve": False, "amx-tile": True}
    assert granted_features(claimed, frozenset()) == {"neon": True, "sve": False, "amx-tile": False}
    assert granted_features({"amx-bf16": True}, frozenset({"amx_bf16"})) == {"amx-bf16": False}


def write_cache(folder: Path, index: int, level: str, kind: str, size: str, shared: str) -> None:
    entry = folder / f"index{index}"
    entry.mkdir(parents=True)
    for field, value in {"level": level, "type": kind, "size": size, "shared_cpu_list": shared}.items():
        (entry / field).write_text(value + "\n")


def test_shared_caches_are_divided_among_cores_not_hyperthreads(tmp_path: Path) -> None:
    write_cache(tmp_path, 0, "1", "Data", "48K", "0,8")
    write_cache(tmp_path, 1, "1", "Instruction", "64K", "0,8")
    write_cache(tmp_path, 2, "2", "Unified", "2M", "0,8")
    write_cache(tmp_path, 3, "3", "Unified", "32M", "0-15")
    assert cache_sizes(tmp_path) == {1: 48 << 10, 2: 2 << 20, 3: 4 << 20}


def test_missing_or_strange_caches_have_defaults(tmp_path: Path) -> None:
    defaults = cache_sizes(tmp_path / "nothing")
    assert defaults[1] < defaults[2] < defaults[3]
    write_cache(tmp_path, 0, "1", "Data", "many", "0")
    write_cache(tmp_path, 1, "2", "Unified", "0K", "0")
    assert cache_sizes(tmp_path) == defaults


def test_the_host_is_asked_once_and_is_consistent() -> None:
    host = Machine.host()
    assert host is Machine.host()
    assert machine_named("host") is host
    assert (host.isa, host.vector_bytes) in {("avx512", 64), ("avx2", 32), ("generic", 16)}
    assert host.vector_registers in (16, 32)
    assert host.cores >= 1
    assert host.has("avx512f") == ("+avx512f" in host.features) or host.isa != "avx512"


@on_x86
def test_generic_masks_everything_vex_encoded() -> None:
    generic = machine_named("generic")
    assert (generic.isa, generic.vector_bytes, generic.vector_registers) == ("generic", 16, 16)
    on = {item[1:] for item in generic.features.split(",") if item[0] == "+"}
    assert not {name for name in on if name.startswith(("avx", "fma", "f16c", "vaes", "xop", "amx"))}
    assert "sse2" in on


@on_x86
@pytest.mark.skipif(Machine.host().isa != "avx512", reason="needs AVX-512")
def test_lower_levels_of_an_avx512_host() -> None:
    avx2 = machine_named("avx2")
    assert (avx2.isa, avx2.vector_bytes, avx2.vector_registers) == ("avx2", 32, 16)
    assert avx2.has("fma")
    assert "+avx512" not in avx2.features
    avx512 = machine_named("avx512")
    assert (avx512.isa, avx512.vector_bytes, avx512.vector_registers) == ("avx512", 64, 32)
    assert not avx512.has("avx512vnni")


@on_x86
@pytest.mark.parametrize("name", ["host", "generic"])
def test_llvm_takes_the_feature_string_at_its_word(name: str) -> None:
    import llvmlite.binding as llvm

    machine = machine_named(name)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(machine.triple).create_target_machine(machine.cpu, machine.features, opt=3)
    text = """
    define void @add(ptr %x) {
      %v = load <16 x float>, ptr %x
      %s = fadd <16 x float> %v, %v
      store <16 x float> %s, ptr %x
      ret void
    }"""
    assembly = target.emit_assembly(llvm.parse_assembly(text))
    register = {"avx512": "%zmm", "avx2": "%ymm", "generic": "%xmm"}[machine.isa]
    assert register in assembly
    assert ("vaddps" in assembly) == (machine.isa != "generic")


@pytest.mark.parametrize("name", ["AVX2", "", "sse"])
def test_unknown_machines_are_typed_errors(name: str) -> None:
    with pytest.raises(OptionError, match=f"machine={name!r}"):
        machine_named(name)


def test_a_level_the_host_lacks_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    generic = dataclasses.replace(machine_named("generic"), triple="x86_64-unknown-linux-gnu", features="+sse2,-avx2")
    monkeypatch.setattr("convgen.machine._host", lambda: generic)
    with pytest.raises(OptionError, match="machine='avx512'"):
        machine_named("avx512")


def test_the_fingerprint_depends_on_features_and_caches_not_on_affinity() -> None:
    host = Machine.host()
    assert dataclasses.replace(host, cores=host.cores + 1).fingerprint() == host.fingerprint()
    changed = [
        dataclasses.replace(host, features=host.features + ",+new"),
        dataclasses.replace(host, l2_bytes=host.l2_bytes * 2),
        dataclasses.replace(host, cpu="other"),
    ]
    assert len({machine.fingerprint() for machine in [host, *changed]}) == 4
    assert host.name in host.describe()


@pytest.mark.parametrize("level", ["avx2", "generic"])
def test_the_environment_lowers_what_kernels_may_use(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Machine.host()
    monkeypatch.setenv("CONVGEN_MAX_CPU_ISA", level)
    lowered = Machine.host()
    assert CPU_ISAS.index(lowered.isa) == max(CPU_ISAS.index(whole.isa), CPU_ISAS.index(level))
    assert (lowered.fingerprint() == whole.fingerprint()) == (lowered.isa == whole.isa)
    assert not lowered.has("avx512f")


def test_a_level_above_the_host_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Machine.host()
    monkeypatch.setenv("CONVGEN_MAX_CPU_ISA", whole.isa)
    assert Machine.host() is whole


def test_an_unknown_level_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVGEN_MAX_CPU_ISA", "sse9")
    with pytest.raises(
        OptionError, match="CONVGEN_MAX_CPU_ISA='sse9' is not allowed; allowed: amx, avx512, avx2, generic"
    ):
        Machine.host()
