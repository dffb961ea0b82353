"""A page that needs no other file, whose figures are drawn to scale, and the same figures as PNG."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from convgen import __version__
from convgen.bench.roofline import Roofline
from convgen.choices import database
from convgen.cli import main, report_command
from convgen.descriptor import format_descriptor
from convgen.driver import heuristic_plan
from convgen.errors import OptionError
from convgen.machine import Machine
from convgen.report.figures import ratio_figure, roofline_figure, speedup_figure
from convgen.report.layers import ReportedLayer, read_comparisons, report_layer, totals
from convgen.spec import ConvSpec
from convgen.tuning.record import Candidate, Record, current_tools

HOST = Machine.host()
SPEC = ConvSpec(batch=1, in_channels=16, out_channels=32, spatial_size=(14, 14), kernel_size=3, padding=1)
OTHER = SPEC.replace(out_channels=16)
ROOFLINE = Roofline(1e11, ((1 << 15, 2e11), (1 << 26, 1e10)))
BENCH = {
    "layers": [
        {
            "problem": format_descriptor(SPEC),
            "own": {"seconds": 2e-4},
            "peers": [
                {"peer": "torch", "variant": "slow", "seconds": 5e-4},
                {"peer": "torch", "variant": "packed", "seconds": 3e-4},
                {"peer": "jax", "variant": "channels_last", "seconds": 4e-4},
            ],
        },
        {"problem": "another", "own": {"seconds": 1e-4}, "peers": []},
    ]
}


class Page(HTMLParser):
    """Elements that are open at the end, and whatever a browser would fetch."""

    EMPTY = ("meta", "line", "path", "rect", "circle", "polyline", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta",):
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "data") and value]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(autouse=True)
def _stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One problem's result in a database of its own, and a machine that need not be measured."""
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(report_command, "calibrated_roofline", lambda *_: ROOFLINE)
    plan = heuristic_plan(SPEC, HOST)
    database().store(
        Record(
            problem=SPEC.to_json(),
            fingerprint=HOST.fingerprint(),
            threads=1,
            version=__version__,
            strategy=plan.strategy,
            config=plan.config,
            seconds=1e-4,
            baseline_seconds=1.5e-4,
            error=1e-7,
            verified="gates A and B",
            created="2026-01-02T03:04:05+00:00",
            candidates=(Candidate(plan.strategy, plan.config, 1e-4, 0.9e-4, 1.1e-4, 21),),
            tools=current_tools(),
            host="<host & co>",
        )
    )


def layers(bench: Path | None = None) -> list[ReportedLayer]:
    comparisons = read_comparisons(bench) if bench else {}
    return [
        report_layer(name, count, spec, HOST, 1, ROOFLINE, comparisons)
        for name, count, spec in (("first", 3, SPEC), ("second", 1, OTHER))
    ]


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(BENCH))
    return path


def test_sums_count_repeated_layers_and_what_was_measured(bench: Path) -> None:
    found = totals(layers(bench))
    assert (found.layers, found.problems, found.measured) == (4, 2, 1)
    assert found.seconds == pytest.approx(3e-4)
    assert found.ratio == pytest.approx(1.5)
    assert totals(layers()).ratio is None


def test_a_peer_is_its_fastest_variant(bench: Path) -> None:
    comparison = layers(bench)[0].comparison
    assert comparison is not None
    assert [(peer.name, peer.variant) for peer in comparison.peers] == [("torch", "packed"), ("jax", "channels_last")]
    assert layers(bench)[1].comparison is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"layers": [1]}', '{"layers": [{"problem": "p"}]}'])
def test_a_file_of_another_kind_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(OptionError, match=r"bench='.*other\.json'"):
        read_comparisons(tmp_path / "other.json")
    with pytest.raises(OptionError, match="cannot be read"):
        read_comparisons(tmp_path / "absent.json")


def test_bars_and_points_are_to_scale(bench: Path) -> None:
    measured = layers(bench)
    bars = ratio_figure(measured)
    assert bars is not None
    (bar,) = bars.bars
    (one,) = bars.lines
    assert bar.width == pytest.approx(1.5 * (float(one.points.split(",")[0]) - bar.x), abs=0.2)
    assert (bar.value, bar.kind) == ("1.50", "win")
    tuned = speedup_figure(measured)
    assert tuned is not None
    assert [each.value for each in tuned.bars] == ["1.50"]
    assert ratio_figure(layers()) is None
    figure = roofline_figure(measured, ROOFLINE)
    (dot,) = figure.dots
    left, top, right, bottom = figure.frame
    assert left < dot.x < right
    assert top < dot.y < bottom
    corners = [tuple(map(float, pair.split(","))) for pair in figure.lines[0].points.split()]
    assert corners[0][0] >= left
    assert corners[-1][0] == right
    assert corners[1][1] == corners[-1][1] > top


def test_the_page_is_whole_and_needs_nothing_else(bench: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    arguments = ["report", format_descriptor(SPEC), "--threads", "1", "--bench", str(bench), "-o", str(path)]
    assert main([*arguments, "--png", str(tmp_path / "png")]) == 0
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert all(link.startswith("#") for link in page.fetched)
    assert not re.search(r"https?://|@import|url\(", text)
    assert page.seen.count("svg") == 3
    assert page.seen.count("details") == 2
    assert "&lt;host &amp; co&gt;" in text
    for part in ("1.50", "torch", "gates A and B", "def ", "chosen", "refused: kernel_size=(3, 3)"):
        assert part in text
    assert {file.name for file in (tmp_path / "png").iterdir()} == {"peers.png", "tuning.png", "roofline.png"}
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in (tmp_path / "png").iterdir())


def test_a_problem_that_was_never_tuned_has_a_page_too(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert main(["report", format_descriptor(OTHER), "--threads", "1", "-o", str(path)]) == 0
    text = path.read_text()
    assert Page(text).seen.count("svg") == 1
    assert "nothing has been measured" in text


def test_what_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", format_descriptor(OTHER), "-o", "/dev/null/page.html"]) == 2
    assert "output='/dev/null" in capsys.readouterr().err
