"""``convgen emit`` and ``convgen show``: what a problem becomes, as a file or as text."""

from __future__ import annotations

import argparse
import json

from convgen.cli.problems import read_spec
from convgen.cli.report import print_line
from convgen.cuda.kernels import CudaConv
from convgen.cuda.kernels import compile_spec as compile_for_gpus
from convgen.cuda.plans import build_cuda_program
from convgen.driver import Plan, build_program, given_plan, lower, source_of
from convgen.errors import OptionError
from convgen.ir.printer import format_program
from convgen.machine import Machine
from convgen.planning import emit_source, plan_for
from convgen.source_files import write_text
from convgen.spec import ConvSpec
from convgen.tuning.space import Config

_CUDA_STAGES = ("ptx", "sass")


def run_emit(arguments: argparse.Namespace) -> int:
    """Writes the source and prints its path; returns 0."""
    spec, config = read_spec(arguments.spec), _config(arguments)
    if arguments.target == "cuda":
        op = _cuda(spec, arguments, config)
        path, _ = write_text(op.source, op.plan, arguments.output, suffix="_cuda")
    else:
        path = emit_source(spec, arguments.output, strategy=arguments.strategy, config=config)
    print_line(str(path))
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Prints one stage of the lowering; returns 0. Raises OptionError for a stage that the target does not have."""
    spec, config, stage = read_spec(arguments.spec), _config(arguments), arguments.stage
    if stage in _CUDA_STAGES or arguments.target == "cuda":
        text = _cuda_text(spec, arguments, config)
    else:
        text = _text(spec, stage, arguments.strategy, config)
    print_line(text.rstrip("\n"))
    return 0


def _cuda(spec: ConvSpec, arguments: argparse.Namespace, config: Config | None) -> CudaConv:
    return compile_for_gpus(spec, arguments.strategy, capability=arguments.capability, config=config)


def _cuda_text(spec: ConvSpec, arguments: argparse.Namespace, config: Config | None) -> str:
    if arguments.stage == "spec":
        return _spec_text(spec)
    op = _cuda(spec, arguments, config)
    match arguments.stage:
        case "ir":
            return format_program(build_cuda_program(op.plan, op.gpu)[0])
        case "source":
            return op.source
        case "ptx":
            return op.ptx
        case "sass":
            lines = [
                f"// {name}: {r.registers} registers, {r.shared_bytes} bytes shared, {r.spilled_bytes} bytes spilled, "
                f"occupancy {r.occupancy:.0%}"
                for name, r in op.resources.items()
            ]
            return "\n".join((*lines, op.sass()))
        case stage:
            raise OptionError(
                f"--{stage} is of the target cpu; allowed for cuda: --spec, --ir, --source, --ptx, --sass"
            )


def _config(arguments: argparse.Namespace) -> Config | None:
    if arguments.config is None:
        return None
    if arguments.strategy == "auto":
        raise OptionError(f"config={arguments.config!r} needs a strategy of its own, not strategy='auto'")
    return Config.parse(arguments.config)


def _text(spec: ConvSpec, stage: str, strategy: str, config: Config | None) -> str:
    if stage == "spec":
        return _spec_text(spec)
    machine = Machine.host()
    plan = _plan(spec, strategy, config, machine)
    if stage == "ir":
        return format_program(build_program(plan, machine)[0])
    lowered = lower(plan, machine)
    match stage:
        case "source":
            return source_of(plan, lowered)
        case "llvm":
            return lowered.llvm()
        case _:
            return lowered.assembly()


def _spec_text(spec: ConvSpec) -> str:
    return json.dumps(json.loads(spec.to_json()), indent=2)


def _plan(spec: ConvSpec, strategy: str, config: Config | None, machine: Machine) -> Plan:
    return plan_for(spec) if strategy == "auto" else given_plan(spec, strategy, config, machine)
