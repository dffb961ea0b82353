"""The trial of the matrix unit: what it compiles to, and that a machine without the unit is not asked."""

from __future__ import annotations

import llvmlite.binding as llvm
import pytest

from convgen import matrix_unit
from convgen.machine import Machine


def test_without_the_flags_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> bool:
        raise AssertionError("the operating system was asked")

    monkeypatch.setattr(matrix_unit, "_permitted", refuse)
    assert not matrix_unit.works(frozenset({"avx512f", "amx_tile", "amx_bf16"}))


def test_the_trial_is_made_of_the_units_instructions() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    features = ",".join(f"+{feature}" for feature in matrix_unit.FEATURES)
    target = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(features=features)
    assembly = target.emit_assembly(llvm.parse_assembly(matrix_unit.trial_module()))
    for name, product in (("tdpbf16ps", "tdpbf16ps"), ("tdpbssd", "tdpbssd")):
        body = assembly.split(f"{name}:")[1].split("retq")[0]
        used = [line.split()[0] for line in body.splitlines() if (line.split() and "til" in line) or "tdp" in line]
        assert used == ["ldtilecfg", "tilezero", "tileloadd", "tileloadd", product, "tilestored", "tilerelease"]


def test_the_host_has_the_unit_where_the_trial_succeeds() -> None:
    machine = Machine.host()
    assert (machine.matrix == "amx") == (machine.isa == "amx") == machine.has("amx-tile")
