"""Tables, numbers and progress on a terminal, and the same text without control characters anywhere else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TextIO

from rich.box import Box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from convgen.spec import ConvSpec
from convgen.tuning.space import Config

# Columns of a table that no terminal limits.
PLAIN_WIDTH = 100

# A line below the header, one space between columns: every other column counts when a row must fit 100.
_LINED_HEADER = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)

Column = tuple[str, Literal["left", "right"]]
Advance = Callable[[str], None]


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table to stdout as wide as the terminal, or at most 100 columns where there is none; long cells wrap."""
    console = _console(sys.stdout)
    table = Table(box=_LINED_HEADER, padding=0, pad_edge=False, show_edge=False)
    for header, justify in columns:
        # A number must not wrap, and a folded word can still be read.
        table.add_column(header, justify=justify, no_wrap=justify == "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_line(text: str = "") -> None:
    """Prints one line to stdout as it is."""
    print(text)


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """A progress bar on stderr, if that is a terminal; call the value with a label after each of ``total`` steps.

    The bar is drawn between steps only: a thread that draws would disturb what is being measured.
    """
    if not sys.stderr.isatty():
        yield lambda label: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    label_column = TextColumn("{task.fields[label]}", markup=False)
    with Progress(*columns, label_column, console=_console(sys.stderr), auto_refresh=False, transient=True) as bar:
        task = bar.add_task(what, total=total, label="")
        bar.refresh()

        def advance(label: str) -> None:
            bar.update(task, advance=1, label=label)
            bar.refresh()

        yield advance


def milliseconds(seconds: float) -> str:
    """A time in ms, with as many decimals as short kernels need."""
    return f"{1e3 * seconds:.{4 if seconds < 0.01 else 3}f}"


def shape(spec: ConvSpec) -> str:
    """A problem in a cell: its shape, and its direction, padding mode and epilogue on a second line."""
    return str(spec).replace(" ", "\n", 1)


def choice(strategy: str, config: Config) -> str:
    """A strategy in a cell, with its configuration, if it has one, on a second line."""
    return f"{strategy}\n{config}" if config.values else strategy


def _console(stream: TextIO) -> Console:
    is_terminal = stream.isatty()
    return Console(
        file=stream,
        force_terminal=is_terminal,
        color_system="auto" if is_terminal else None,
        width=None if is_terminal else PLAIN_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )
