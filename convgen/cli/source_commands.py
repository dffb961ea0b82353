"""``convgen emit`` and ``convgen show``: what a problem becomes, as a file or as text."""

from __future__ import annotations

import argparse
import json

from convgen.cli.problems import read_spec
from convgen.cli.report import print_line
from convgen.driver import Plan, build_program, given_plan, lower, source_of
from convgen.errors import NotApplicable, OptionError
from convgen.ir.printer import format_program
from convgen.machine import Machine
from convgen.planning import emit_source, plan_for
from convgen.spec import ConvSpec
from convgen.tuning.space import Config


def run_emit(arguments: argparse.Namespace) -> int:
    """Writes the source and prints its path; returns 0."""
    spec = read_spec(arguments.spec)
    print_line(str(emit_source(spec, arguments.output, strategy=arguments.strategy, config=_config(arguments))))
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Prints one stage of the lowering; returns 0. Raises NotApplicable for PTX, which needs a target there is not."""
    if arguments.stage == "ptx":
        raise NotApplicable(
            "--ptx needs the CUDA target, which this version lacks; allowed: --spec, --ir, --source, --llvm, --asm"
        )
    print_line(_text(read_spec(arguments.spec), arguments.stage, arguments.strategy, _config(arguments)).rstrip("\n"))
    return 0


def _config(arguments: argparse.Namespace) -> Config | None:
    if arguments.config is None:
        return None
    if arguments.strategy == "auto":
        raise OptionError(f"config={arguments.config!r} needs a strategy of its own, not strategy='auto'")
    return Config.parse(arguments.config)


def _text(spec: ConvSpec, stage: str, strategy: str, config: Config | None) -> str:
    if stage == "spec":
        return json.dumps(json.loads(spec.to_json()), indent=2)
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


def _plan(spec: ConvSpec, strategy: str, config: Config | None, machine: Machine) -> Plan:
    return plan_for(spec) if strategy == "auto" else given_plan(spec, strategy, config, machine)
