"""The command line's grammar. Names of layouts, types and strategies are judged where they are used."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import NoReturn

from convgen import __version__
from convgen.cli.database_arguments import add_db, add_lock
from convgen.errors import OptionError
from convgen.gpu import DEFAULT_CAPABILITY

_SOURCE = "an ONNX file, a suite (such as resnet50), or a descriptor"
_SPEC = "a descriptor (such as mb1_ic64oc64ih56oh56kh3ph1), or a file of the JSON that `convgen show --spec` prints"
_STAGES = {
    "spec": "the problem as JSON",
    "ir": "the program after all passes",
    "source": "the generated Python",
    "llvm": "LLVM's text after optimisation",
    "asm": "the assembly",
    "ptx": "what it compiles to for GPUs (implies --target cuda)",
    "sass": "the machine code of GPUs, and what it takes of them (implies --target cuda)",
}


class _Parser(argparse.ArgumentParser):
    """Raises OptionError where argparse would end the process."""

    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message} (see `{self.prog} --help`)")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options of a command line; ``command`` names the command. Raises OptionError, or SystemExit for help."""
    parser = _Parser(
        prog="convgen",
        description="Generates convolution kernels: tuned for this machine, verified, as readable Python.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"convgen {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=f"{summary}.", allow_abbrev=False)

    _add_tune(command("tune", "find and store the fastest verified kernels of a network, and write their sources"))
    _add_explain(command("explain", "tell why a problem is computed as it is, and why everything else is not"))
    _add_report(command("report", "write what is chosen for a network, and why, as one page"))
    _add_emit(command("emit", "write a problem's source, which runs with numpy and numba alone"))
    _add_show(command("show", "print what a problem is lowered to"))
    _add_bench(command("bench", "measure convolutions side by side with other libraries"))
    _add_verify(command("verify", "hold generated kernels against the float64 oracle"))
    add_db(command("db", "look into the tuning database, and exchange what tuning has found"))
    add_lock(command("lock", "pin the choices for a network in a lockfile, or check that one is complete"), _add_source)
    command("doctor", "tell what convgen found on this machine, and compile and verify a small convolution")
    return parser.parse_args(argv)


def _add_tune(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument("--budget", type=_seconds, default=180.0, metavar="S", help="seconds in total (default 180)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of a call (default CONVGEN_NUM_THREADS or all cores)"
    )
    parser.add_argument(
        "--workspace-limit", type=int, metavar="B", help="bytes of scratch memory that a call may use (default any)"
    )
    parser.add_argument("-o", "--output", metavar="DIR", help="folder of the sources (default convgen-out/NAME)")
    parser.add_argument("--force", action="store_true", help="measure again what the database knows")
    parser.add_argument(
        "--cache", default="warm", metavar="C", help="warm (default) or cold: what calls find in the caches"
    )
    parser.add_argument("--dask", metavar="ADDRESS", help="let the workers of a Dask scheduler tune")
    parser.add_argument(
        "--emit", action=argparse.BooleanOptionalAction, default=True, help="write the sources (the default) or do not"
    )


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help=_SPEC)
    parser.add_argument("--threads", type=int, metavar="N", help="threads of a call (default as for tune)")
    parser.add_argument("--workspace-limit", type=int, metavar="B", help="bytes of scratch memory that a call may use")


def _add_report(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="threads of a call (default as for tune)")
    parser.add_argument("--bench", metavar="FILE", help="the JSON of `convgen bench`, for what other libraries take")
    parser.add_argument("--png", metavar="DIR", help="write the figures as PNG too (needs matplotlib)")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the page, HTML without other files")


def _add_emit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help=_SPEC)
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder of the source, made if need be")
    _add_strategy(parser)
    _add_target(parser)


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help=_SPEC)
    stages = parser.add_mutually_exclusive_group(required=True)
    for name, summary in _STAGES.items():
        stages.add_argument(f"--{name}", dest="stage", action="store_const", const=name, help=summary)
    _add_strategy(parser)
    _add_target(parser)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument(
        "--against", default="torch", metavar="P,P", help="among torch, onnxruntime, openvino, jax (default torch)"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of a call, and processors used (default as for tune)"
    )
    parser.add_argument("--direction", metavar="D", help="forward (default), backward_data or backward_weights")
    parser.add_argument("--accuracy", metavar="A", help="fast (default), strict, or the largest relative L2 error")
    parser.add_argument(
        "--tune", type=_seconds, metavar="S", help="tune every problem for so long first (default: do not)"
    )
    parser.add_argument("--strategy", default="auto", metavar="S", help="a strategy's name (default auto)")
    parser.add_argument(
        "--clock", default="wall", metavar="C", help="wall (default), or cpu where a machine is busy; for one thread"
    )
    parser.add_argument("--same-layout", action="store_true", help="hold peers to convgen's layout")
    parser.add_argument(
        "--layers", default="", metavar="REGEX", help="only those whose name or problem has a match (default all)"
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N of them")
    parser.add_argument("--seconds", type=_seconds, default=2.0, metavar="S", help="to measure a problem (default 2)")
    parser.add_argument("-o", "--output", metavar="PATH", help="write PATH.json, PATH.md and PATH.png")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument("--strategy", default="all", metavar="S", help="one strategy's name (default all that apply)")
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed of the random operands (default 0)")
    parser.add_argument("--full", action="store_true", help="keep a network's image sizes, which are reduced otherwise")
    _add_target(parser)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help=_SOURCE)
    parser.add_argument("--batch", type=int, metavar="N", help="batch size (default 1, or the model's or descriptor's)")
    parser.add_argument(
        "--layout", metavar="L", help="channels_last (default for networks) or channels_first (default for descriptors)"
    )
    parser.add_argument("--dtype", metavar="T", help="data type, such as float32 (default: the source's)")


def _add_strategy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strategy",
        default="auto",
        metavar="S",
        help="a strategy's name (default auto: the tuned or heuristic choice)",
    )
    parser.add_argument("--config", metavar="C", help="the strategy's configuration, as tables print it")


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", choices=("cpu", "cuda"), default="cpu", help="what kernels are for (default cpu)")
    parser.add_argument(
        "--capability",
        default=DEFAULT_CAPABILITY,
        metavar="X.Y",
        help=f"the compute capability of GPUs (default {DEFAULT_CAPABILITY}); no device is needed",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: seconds, 0 or more")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: integers from 1")
    return count


def _seed(text: str) -> int:
    seed = int(text)
    if seed < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: integers from 0")
    return seed
