"""The command ``convgen``: tune, explain, report, emit, show, bench, verify, db, lock, doctor.

Results go to stdout, progress and errors to stderr. Exit status: 0 done, 1 something was found wrong (verify, doctor, lock
--check) or different (db diff), 2 the request was not valid, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import TextIO

from convgen.cli.arguments import parse_arguments
from convgen.errors import ConvgenError, OptionError
from convgen.options import debug_level

_INVALID = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line ``argv`` (without the program's name; the process's own if None) and returns the exit status.

    Every ConvgenError becomes one line on stderr; CONVGEN_DEBUG=1 adds the traceback. ``--help`` raises SystemExit(0).
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            status = _run(parse_arguments(argv))
            sys.stdout.flush()
        except ConvgenError as error:
            _report(str(error))
            return _INVALID
        except MemoryError as error:
            _report(f"there is not enough memory for this problem: {error}")
            return _INVALID
        except KeyboardInterrupt:
            print("convgen: interrupted", file=sys.stderr)
            return _INTERRUPTED
        except BrokenPipeError:
            # The reader (head, a pager) has seen enough; without this the interpreter complains when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return status


def _run(arguments: argparse.Namespace) -> int:
    # Each command loads only what it needs: Numba and rich take longer to import than most of them run.
    match arguments.command:
        case "tune":
            from convgen.cli.tune_command import run_tune

            return run_tune(arguments)
        case "explain":
            from convgen.cli.explain_command import run_explain

            return run_explain(arguments)
        case "report":
            from convgen.cli.report_command import run_report

            return run_report(arguments)
        case "emit":
            from convgen.cli.source_commands import run_emit

            return run_emit(arguments)
        case "show":
            from convgen.cli.source_commands import run_show

            return run_show(arguments)
        case "bench":
            from convgen.cli.bench_command import run_bench

            return run_bench(arguments)
        case "verify":
            from convgen.cli.verify_command import run_verify

            return run_verify(arguments)
        case "db":
            from convgen.cli.database_command import run_db

            return run_db(arguments)
        case "lock":
            from convgen.cli.lock_command import run_lock

            return run_lock(arguments)
        case _:
            from convgen.cli.doctor_command import run_doctor

            return run_doctor()


def _report(message: str) -> None:
    if _wants_traceback():
        traceback.print_exc()
    print(f"convgen: error: {' '.join(message.splitlines())}", file=sys.stderr)


def _wants_traceback() -> bool:
    try:
        return debug_level() >= 1
    except OptionError:
        return False


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"convgen: warning: {' '.join(str(message).splitlines())}", file=file or sys.stderr)
