"""Programs of chance with nested branches and loops: each thread must get what it would get alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from convgen.targets.cuda.interp import parse, run
from tests.targets.cuda.interp.snippets import kernel

# Each way to write a statement down: lines of PTX, and what it does to a thread's registers.
State = dict[str, int]
Statement = tuple[list[str], Callable[[State], None]]
REGISTERS = [f"%r{number}" for number in range(1, 7)]
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add.u32": lambda a, b: a + b,
    "sub.u32": lambda a, b: a - b,
    "mul.lo.u32": lambda a, b: a * b,
    "xor.b32": lambda a, b: a ^ b,
    "min.u32": min,
    "max.u32": max,
}


class Writer:
    """Draws statements."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.labels = 0
        self.counters = 0

    def label(self) -> str:
        self.labels += 1
        return f"$L{self.labels}"

    def block(self, depth: int) -> Statement:
        parts = [self.statement(depth) for _ in range(self.random.randint(1, 3))]

        def act(state: State) -> None:
            for _, part in parts:
                part(state)

        return [line for lines, _ in parts for line in lines], act

    def statement(self, depth: int) -> Statement:
        kind = self.random.choice(["assign", "assign", "guarded", "if", "loop"] if depth else ["assign", "guarded"])
        match kind:
            case "assign":
                return self.assignment("")
            case "guarded":
                return self.guarded()
            case "if":
                return self.branch(depth)
            case _:
                return self.loop(depth)

    def assignment(self, guard: str) -> Statement:
        name, function = self.random.choice(list(OPERATIONS.items()))
        result, a = self.random.choice(REGISTERS), self.random.choice(REGISTERS)
        choices: list[str | int] = [*REGISTERS, self.random.randint(0, 9)]
        b = self.random.choice(choices)

        def act(state: State) -> None:
            state[result] = function(state[a], b if isinstance(b, int) else state[b]) % 2**32

        return [f"\t{guard}{name} {result}, {a}, {b};"], act

    def condition(self) -> tuple[str, Callable[[State], bool]]:
        a, bit = self.random.choice(REGISTERS), self.random.randint(0, 4)
        text = f"\tshr.u32 %r20, {a}, {bit};\n\tand.b32 %r20, %r20, 1;\n\tsetp.eq.u32 %p1, %r20, 1;"
        return text, lambda state: bool(state[a] >> bit & 1)

    def guarded(self) -> Statement:
        text, holds = self.condition()
        lines, act = self.assignment("@%p1 ")
        return [text, *lines], lambda state: act(state) if holds(state) else None

    def branch(self, depth: int) -> Statement:
        text, holds = self.condition()
        (yes, do_yes), (no, do_no) = self.block(depth - 1), self.block(depth - 1)
        other, end = self.label(), self.label()
        lines = [text, f"\t@!%p1 bra {other};", *yes, f"\tbra.uni {end};", f"{other}:", *no, f"{end}:"]
        if self.random.random() < 0.2:
            lines = [text, f"\t@%p1 bra {other};", *no, f"\tbra {end};", f"{other}:", *yes, f"{end}:"]
        return lines, lambda state: do_yes(state) if holds(state) else do_no(state)

    def loop(self, depth: int) -> Statement:
        """As often as a register says, up to three times."""
        self.counters += 1
        counter, source = f"%r{30 + self.counters}", self.random.choice(REGISTERS)
        body, act = self.block(depth - 1)
        again, end = self.label(), self.label()
        lines = [
            f"\tand.b32 {counter}, {source}, 3;",
            f"{again}:",
            f"\tsetp.eq.u32 %p2, {counter}, 0;",
            f"\t@%p2 bra {end};",
            *body,
            f"\tsub.u32 {counter}, {counter}, 1;",
            f"\tbra {again};",
            f"{end}:",
        ]

        def repeat(state: State) -> None:
            for _ in range(state[source] & 3):
                act(state)

        return lines, repeat


@pytest.mark.parametrize("seed", range(25))
def test_threads_do_what_they_would_do_alone(seed: int) -> None:
    writer = Writer(seed)
    lines, act = writer.block(3)
    start = [f"\tmul.lo.u32 {name}, %r10, {7919 * number};" for number, name in enumerate(REGISTERS, 1)]
    place = "\tmad.lo.u32 %r10, %block, 48, %t;\n\tmad.wide.u32 %rd9, %r10, 24, %rd1;"
    stores = [f"\tst.global.u32 [%rd9+{4 * number}], {name};" for number, name in enumerate(REGISTERS)]
    module = parse(kernel("\n".join([place, *start, *lines, *stores]), 1))
    expected = []
    for thread in range(3 * 48):
        state = {name: 7919 * number * thread % 2**32 for number, name in enumerate(REGISTERS, 1)}
        act(state)
        expected.append([state[name] for name in REGISTERS])
    for order in (None, seed):
        made = np.zeros((3 * 48, len(REGISTERS)), np.uint32)
        run(module, grid=(3,), block=(48,), arguments=[made], seed=order)
        assert made.tolist() == expected
