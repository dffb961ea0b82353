"""im2col_gemm with the matrix of windows made at once: the same sums, and its bytes counted."""

from __future__ import annotations

from typing import Any

import pytest

import convgen
from convgen import driver
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.im2col_gemm import Im2colGemm
from tests import corpus

HOST = Machine.host()
IM2COL = Im2colGemm()

PROBLEMS: dict[str, dict[str, Any]] = {
    "plain": dict(layout="channels_last"),
    "reflect": dict(padding_mode="reflect", layout="channels_first"),
    "groups": dict(in_channels=12, out_channels=18, groups=3, stride=2, layout="channels_first"),
    "gradient": dict(direction="backward_data", layout="channels_last"),
}


def problem(name: str) -> ConvSpec:
    base: dict[str, Any] = dict(batch=2, in_channels=5, out_channels=19, spatial_size=(7, 9), kernel_size=3, padding=1)
    return ConvSpec(**{**base, **PROBLEMS[name]})


@pytest.mark.parametrize("name", PROBLEMS)
def test_gates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MIN_PARALLEL_MACS", 0)
    spec = problem(name)
    config = next(config for config in IM2COL.space(spec, HOST) if config["whole"])
    op = convgen.compile(spec, "im2col_gemm", 2, config=config)
    assert corpus.passes(op) == []
    windows = spec.batch * spec.output_size[0] * spec.output_size[1] * spec.reduced_channels * 9
    assert op.workspace_bytes >= windows * 4


def test_residue_classes_have_no_whole_matrix() -> None:
    spec = problem("gradient").replace(stride=2)
    assert {config["whole"] for config in IM2COL.space(spec, HOST)} == {0}
