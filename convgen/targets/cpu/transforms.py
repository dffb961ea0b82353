"""A constant matrix applied to registers, as lines of vector additions and multiply-adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from convgen.targets.cpu.operations import Operation
from convgen.transforms.linear import Add, Factor, LinearProgram, MulAdd, Scale, Step, Sub

Use = Callable[[Operation], str]


def transform_lines(
    linear: LinearProgram, buffer: str, registers: list[str], dtype: str, lanes: int, use: Use
) -> Iterator[str]:
    """The steps of ``linear`` on the variables ``registers``, which hold its inputs and will hold its outputs.

    The names of what is in between contain ``buffer``: a variable has one type in all of a kernel. ``use`` gives an operation's
    name and notes that it is needed.
    """
    maker = f"np.{dtype}" if lanes == 1 else use(Operation("splat", dtype, lanes))
    factors: dict[Factor, str] = {}
    for step in linear.steps:
        if isinstance(step, Scale | MulAdd) and step.factor not in factors:
            factors[step.factor] = f"factor_{buffer}{len(factors)}"
            yield f"{factors[step.factor]} = {maker}({float(step.factor)!r})"
    names = registers[: linear.inputs]
    for number, step in enumerate(linear.steps):
        yield f"part_{buffer}{number} = {_step(step, names, factors, lambda kind: use(Operation(kind, dtype, lanes)))}"
        names.append(f"part_{buffer}{number}")
    places = {output: place for place, output in enumerate(linear.outputs) if output < linear.inputs}
    for output, place in places.items():
        if output != place:
            yield f"moved_{buffer}{output} = {registers[output]}"
            names[output] = f"moved_{buffer}{output}"
    for place, output in enumerate(linear.outputs):
        if names[output] != registers[place]:
            yield f"{registers[place]} = {names[output]}"


def _step(step: Step, names: list[str], factors: dict[Factor, str], operation: Callable[[str], str]) -> str:
    match step:
        case Add(a, b):
            return f"{operation('add')}({names[a]}, {names[b]})"
        case Sub(a, b):
            return f"{operation('sub')}({names[a]}, {names[b]})"
        case Scale(a, factor):
            return f"{operation('mul')}({names[a]}, {factors[factor]})"
        case MulAdd(a, factor, b):
            return f"{operation('fma')}({names[a]}, {factors[factor]}, {names[b]})"
