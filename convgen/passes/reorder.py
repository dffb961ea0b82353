"""reorder: loops of a perfect nest change places."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.nodes import Alloc, For, Program, Stmt
from convgen.ir.rewrite import loops, reads, statements, stores, variables


@dataclass(frozen=True)
class Reorder:
    """for a: for b: for c: S   →   for c: for a: for b: S   for order ("c", "a", "b")

    Requires: in the named stage the loops are perfectly nested in one place, no extent depends on another of them, and
    iterations are independent (no memory buffer is both read and stored in the nest). Ensures: the same iterations run, in
    another order.
    """

    stage: str
    order: tuple[str, ...]

    def __call__(self, program: Program) -> Program:
        return replace(
            program,
            stages=tuple(
                replace(stage, body=self._reorder(stage.body)) if stage.name.startswith(self.stage) else stage
                for stage in program.stages
            ),
        )

    def _reorder(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        holders = [at for at, part in enumerate(body) if any(loop.var in self.order for loop in loops((part,)))]
        if len(holders) != 1 or not isinstance(body[holders[0]], For):
            raise IRError(f"stage {self.stage} has not one loop nest of {self.order}")
        (at,) = holders
        loop = body[at]
        assert isinstance(loop, For)
        if loop.var in self.order:
            return (*body[:at], *self._reordered(loop), *body[at + 1 :])
        return (*body[:at], replace(loop, body=self._reorder(loop.body)), *body[at + 1 :])

    def _reordered(self, loop: For) -> tuple[Stmt, ...]:
        nest: dict[str, For] = {}
        inner: tuple[Stmt, ...] = (loop,)
        while len(nest) < len(self.order):
            if len(inner) != 1 or not isinstance(inner[0], For) or inner[0].var not in self.order:
                missing = sorted(set(self.order) - set(nest))
                raise IRError(f"loops {missing} are not perfectly nested in {sorted(nest)}")
            nest[inner[0].var] = inner[0]
            inner = inner[0].body
        self._check_independent(nest, inner)
        for var in reversed(self.order):
            inner = (replace(nest[var], body=inner),)
        return inner

    def _check_independent(self, nest: dict[str, For], body: tuple[Stmt, ...]) -> None:
        for loop in nest.values():
            if variables(loop.extent) & set(nest):
                raise IRError(f"the extent of loop {loop.var} depends on another loop of the nest")
        stored = {store.buffer for store in stores(body)}
        private = {inner.buffer.name for inner in statements(body) if isinstance(inner, Alloc)}
        shared = (stored & {read.buffer for read in reads(body)}) - private
        if shared:
            raise IRError(f"{sorted(shared)} is read and stored in the nest")
