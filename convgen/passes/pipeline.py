"""Runs passes in order and checks the program before the first and after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from convgen.errors import IRError, PassError
from convgen.ir.check import check
from convgen.ir.nodes import Program


class Pass(Protocol):
    """One rewrite: the program means the same afterwards."""

    def __call__(self, program: Program) -> Program: ...


Observer = Callable[[str, Program], None]


def run_passes(program: Program, passes: Sequence[Pass], observer: Observer | None = None) -> Program:
    """Applies the passes; ``observer`` sees (name of the pass, program) after each. Raises PassError naming the pass that was
    given, or has made, a program that breaks a rule."""
    try:
        check(program)
    except IRError as error:
        raise PassError(f"before the first pass: {error}") from error
    for rewrite in passes:
        name = type(rewrite).__name__
        try:
            program = rewrite(program)
            check(program)
        except IRError as error:
            raise PassError(f"{name}: {error}") from error
        if observer is not None:
            observer(name, program)
    return program
