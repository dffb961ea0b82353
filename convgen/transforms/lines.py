"""A constant matrix applied to registers, as lines of additions and multiply-adds of a kernel's source."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from convgen.transforms.linear import Add, Factor, LinearProgram, MulAdd, Scale, Step, Sub

# The function for "add", "sub", "mul" or "fma".
Named = Callable[[str], str]


def transform_lines(
    linear: LinearProgram, buffer: str, registers: list[str], constant: Callable[[float], str], named: Named
) -> Iterator[str]:
    """The steps of ``linear`` on the variables ``registers``, which hold its inputs and will hold its outputs.

    The names of what is in between contain ``buffer``: a variable has one type in all of a kernel. ``constant`` spells a number,
    ``named`` gives an operation's name and notes that it is needed.
    """
    factors: dict[Factor, str] = {}
    for step in linear.steps:
        if isinstance(step, Scale | MulAdd) and step.factor not in factors:
            factors[step.factor] = f"factor_{buffer}{len(factors)}"
            yield f"{factors[step.factor]} = {constant(float(step.factor))}"
    names = registers[: linear.inputs]
    for number, step in enumerate(linear.steps):
        yield f"part_{buffer}{number} = {_step(step, names, factors, named)}"
        names.append(f"part_{buffer}{number}")
    places = {output: place for place, output in enumerate(linear.outputs) if output < linear.inputs}
    for output, place in places.items():
        if output != place:
            yield f"moved_{buffer}{output} = {registers[output]}"
            names[output] = f"moved_{buffer}{output}"
    for place, output in enumerate(linear.outputs):
        if names[output] != registers[place]:
            yield f"{registers[place]} = {names[output]}"


def _step(step: Step, names: list[str], factors: dict[Factor, str], named: Named) -> str:
    match step:
        case Add(a, b):
            return f"{named('add')}({names[a]}, {names[b]})"
        case Sub(a, b):
            return f"{named('sub')}({names[a]}, {names[b]})"
        case Scale(a, factor):
            return f"{named('mul')}({names[a]}, {factors[factor]})"
        case MulAdd(a, factor, b):
            return f"{named('fma')}({names[a]}, {factors[factor]}, {names[b]})"
