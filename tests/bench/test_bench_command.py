"""``convgen bench`` from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from convgen.bench import run
from convgen.bench.contender import Peer
from convgen.bench.roofline import Roofline
from convgen.cli import main
from tests.bench.samples import OraclePeer

SPEC = "mb1_ic2ih5oc3oh5kh3ph1"
Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Peer:
        return OraclePeer(name)

    monkeypatch.setattr(run, "load_peer", load)
    monkeypatch.setattr(run, "measure_roofline", lambda *_: Roofline(1e11, ((1 << 10, 1e10), (1 << 20, 1e10))))
    monkeypatch.setattr(run, "_SETTLE_SECONDS", 0.0)


def bench(*arguments: str) -> int:
    return main(["bench", *arguments, "--strategy", "reference", "--threads", "1", "--seconds", "0"])


def test_prints_and_writes(capsys: Output, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    output = tmp_path / "new" / "tiny.v1"
    assert bench(SPEC, "--against", "torch,jax", "-o", str(output)) == 0
    printed = capsys.readouterr().out
    assert "geometric mean" in printed
    table = printed.split("strategy, best peer")[1].split("Best peer's time")[0]
    assert max(map(len, table.splitlines())) <= 100
    record = json.loads((tmp_path / "new" / "tiny.v1.json").read_text())
    assert record["setting"]["peers"] == ["torch", "jax"]
    assert "| torch GF/s | jax GF/s |" in (tmp_path / "new" / "tiny.v1.md").read_text()
    assert (tmp_path / "new" / "tiny.v1.png").stat().st_size > 0


def test_a_descriptor_keeps_its_layout(capsys: Output) -> None:
    assert bench(f"{SPEC} layout=channels_first") == 0
    assert "batch 1, channels_first" in capsys.readouterr().out


def test_options_reach_the_problems(capsys: Output) -> None:
    assert (
        bench(SPEC, "--direction", "backward_data", "--accuracy", "strict", "--batch", "3", "--dtype", "float64") == 0
    )
    assert "problems: backward_data, float64, batch 3, channels_first, accuracy strict" in capsys.readouterr().out
    assert bench(SPEC, "--accuracy", "0.001", "--layout", "channels_first") == 0
    assert "channels_first, accuracy 0.001" in capsys.readouterr().out


def test_layers_are_selected_by_name_or_problem(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convgen.cli.bench_command.run_benchmark", _record_layers)
    with pytest.raises(_SelectedError) as selected:
        main(["bench", "resnet50", "--layers", "downsample"])
    assert [layer.name for layer in selected.value.layers] == [f"layer{i}.0.downsample" for i in (2, 3, 4)]
    with pytest.raises(_SelectedError) as selected:
        main(["bench", "resnet50", "--layers", "k7x7|downsample", "--limit", "2"])
    assert [layer.name for layer in selected.value.layers] == ["conv1", "layer2.0.downsample"]


class _SelectedError(Exception):
    def __init__(self, layers: list[run.Layer]) -> None:
        self.layers = layers


def _record_layers(name: str, layers: list[run.Layer], *_: object) -> None:
    raise _SelectedError(layers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "tensorflow"], "against='tensorflow' is unknown"),
        (["--layers", "("], r"layers='\('? is not a regular expression"),
        (["--layers", "nothing"], "none is selected"),
        (["--accuracy", "perfect"], "accuracy='perfect'"),
        (["--direction", "sideways"], "direction='sideways'"),
        (["--tune", "1"], "cannot be tuned"),
        (["--limit", "0"], "allowed: integers from 1"),
    ],
)
def test_bad_options(capsys: Output, arguments: list[str], message: str) -> None:
    assert bench(SPEC, *arguments) == 2
    assert re.search(message, capsys.readouterr().err)
