"""From a flat program to Python functions, one for each instruction, made once."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.errors import PtxError
from convgen.targets.cuda.interp import access, matrix, warp
from convgen.targets.cuda.interp.flatten import flatten, parameter_offsets
from convgen.targets.cuda.interp.operations import compare, convert, floating, integer, moves
from convgen.targets.cuda.interp.program import Op, Program, Segment
from convgen.targets.cuda.interp.steps import Context, Step, checked, guarded, pure_step, unknown
from convgen.targets.cuda.interp.syntax import Imm, Module, Variable

_PURE = (moves.build, compare.build, convert.build, integer.build, floating.build)
_OTHER = (access.build, warp.build, matrix.build)


@dataclass(frozen=True, slots=True)
class Code:
    """A segment's instructions as functions, in order."""

    segment: Segment
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel ready to run. Granules are the narrowest accesses to shared and to global memory, in bytes."""

    program: Program
    codes: tuple[Code, ...]
    parameters: tuple[Variable, ...]
    offsets: tuple[int, ...]
    argument_bytes: int
    shared_granule: int
    global_granule: int


def compile_kernel(module: Module, name: str | None = None) -> Compiled:
    """Compiles a module's kernel of that name, None for the only one. Raises PtxError for what is not known."""
    if name is None:
        if len(module.kernels) != 1:
            raise PtxError(f"the module has the kernels {', '.join(module.kernels) or '(none)'}: name one")
        (name,) = module.kernels
    if name not in module.kernels:
        raise PtxError(f"the module has no kernel {name!r}, only {', '.join(module.kernels) or '(none)'}")
    program = flatten(module, name)
    context = Context(program.temporary, program.doubtful)
    codes = tuple(Code(part, tuple(step_of(op, context) for op in part.ops)) for part in program.segments)
    granules = [found for part in program.segments for op in part.ops if (found := access.granule(op)) is not None]
    kernel = module.functions[name]
    offsets, size = parameter_offsets(kernel.parameters)
    for part in program.segments:
        _hold_barrier(part)
    return Compiled(
        program,
        codes,
        kernel.parameters,
        offsets,
        size,
        min((size for size, shared, _ in granules if shared), default=16),
        min((size for size, _, wide in granules if wide), default=16),
    )


def step_of(op: Op, context: Context) -> Step:
    """The function of one instruction. Raises PtxError where no family knows it."""
    for build in _PURE:
        pure = build(op)
        if pure is not None:
            return checked(op, guarded(op, pure_step(op, pure, context)), context)
    for build_step in _OTHER:
        step = build_step(op, context)
        if step is not None:
            return checked(op, guarded(op, step), context)
    raise unknown(op)


def _hold_barrier(segment: Segment) -> None:
    """Refuses barriers of parts of a block, and those that do more than wait."""
    op = getattr(segment.end, "op", None)
    if op is None or not op.is_barrier:
        return
    if op.opcode not in (("bar", "sync"), ("barrier", "sync"), ("barrier", "sync", "aligned"), ("bar", "cta", "sync")):
        raise unknown(op)
    if not op.sources or not all(isinstance(source, Imm) for source in op.sources):
        raise unknown(op, "is supported with constants alone")
