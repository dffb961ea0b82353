"""What the benchmark for GPUs found, as Markdown and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from convgen.gpu import Gpu
from convgen.spec import ConvSpec
from convgen.targets.cuda.driver import DeviceFacts

# Floating-point operations of a multiprocessor in a cycle on matrix units, with float32 sums: NVIDIA's data sheets, divided by
# multiprocessors and clock.
_MATRIX_RATE = {"7.5": 1024, "8.0": 2048, "8.6": 512, "8.9": 512, "9.0": 4096, "10.0": 8192}


@dataclass(frozen=True)
class Row:
    """One problem. Seconds are None where there is none to compare with; ``flaw`` says why it was not timed."""

    layer: str
    count: int
    problem: str
    strategy: str
    seconds: float | None = None
    peer_seconds: float | None = None
    roofline_seconds: float | None = None
    registers: int = 0
    spilled_bytes: int = 0
    flaw: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times faster than the peer."""
        return self.peer_seconds / self.seconds if self.seconds and self.peer_seconds else None

    @property
    def of_roofline(self) -> float | None:
        """The part of what the device could do at most."""
        return self.roofline_seconds / self.seconds if self.seconds and self.roofline_seconds else None


@dataclass
class Table:
    """The rows of one group of problems."""

    title: str
    rows: list[Row] = field(default_factory=list)
    left_out: int = 0

    def geometric_mean(self) -> float | None:
        """Of the ratios to the peer."""
        ratios = [row.ratio for row in self.rows if row.ratio]
        return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if ratios else None

    def summary(self) -> str:
        """One sentence."""
        flaws = sum(bool(row.flaw) for row in self.rows)
        parts = [f"{len(self.rows)} problems"]
        mean = self.geometric_mean()
        if mean is not None:
            worst = min((row for row in self.rows if row.ratio), key=lambda row: row.ratio or math.inf)
            parts.append(
                f"cuDNN's time over convgen's: geometric mean {mean:.2f}, worst {worst.ratio:.2f} ({worst.layer})"
            )
        shares = [row.of_roofline for row in self.rows if row.of_roofline]
        if shares:
            parts.append(f"mean part of the roofline {sum(shares) / len(shares):.0%}")
        if flaws:
            parts.append(f"{flaws} not right or not compiled")
        if self.left_out:
            parts.append(f"{self.left_out} not measured, because the time was over")
        return "; ".join(parts) + "."


def roofline_seconds(spec: ConvSpec, gpu: Gpu, facts: DeviceFacts) -> float:
    """The least time a device needs by its clocks and data sheet: for the multiply-adds, or for moving every array once."""
    matrix = spec.dtype in ("bfloat16", "float16") or (spec.dtype == "float32" and not isinstance(spec.accuracy, str))
    rate = _MATRIX_RATE[gpu.name] / (2 if spec.dtype == "float32" else 1) if matrix else 2 * gpu.lanes
    return max(spec.flops / (rate * facts.multiprocessors * facts.clock), spec.bytes_moved / facts.bandwidth)


def markdown(title: str, facts: Sequence[tuple[str, str]], tables: Sequence[Table]) -> str:
    """The facts, the groups' summaries, and a table a group."""
    lines = [f"# {title}", "", *(f"- {name}: {value}" for name, value in facts), ""]
    lines += [f"- **{table.title}**: {table.summary()}" for table in tables]
    for table in tables:
        lines += ["", f"## {table.title}", ""]
        lines += ["| layer | × | problem | strategy, config | µs | cuDNN µs | ratio | roofline | registers, spilled |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        lines += [_cells(row) for row in table.rows]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> str:
    times = [f"{1e6 * value:.1f}" if value else "" for value in (row.seconds, row.peer_seconds)]
    ratio = f"{row.ratio:.2f}" if row.ratio else row.flaw.replace("|", "/")
    share = f"{row.of_roofline:.0%}" if row.of_roofline else ""
    cells = [row.layer, str(row.count), row.problem, row.strategy, *times, ratio, share]
    return f"| {' | '.join(cells)} | {row.registers}, {row.spilled_bytes} |"


def as_json(facts: Sequence[tuple[str, str]], tables: Sequence[Table]) -> str:
    """Everything, with what is derived."""
    record = {
        "facts": dict(facts),
        "groups": [
            {
                "title": table.title,
                "geometric_mean": table.geometric_mean(),
                "left_out": table.left_out,
                "rows": [asdict(row) | {"ratio": row.ratio, "of_roofline": row.of_roofline} for row in table.rows],
            }
            for table in tables
        ],
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"
