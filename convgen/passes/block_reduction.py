"""block_reduction: a sum is made in blocks of its terms, and each block is done for many sums before the next."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.build import add, ceildiv, floordiv, maximum, minimum, mod, mul, sub
from convgen.ir.nodes import (
    Alloc,
    Buffer,
    For,
    If,
    Index,
    IndexOp,
    Int,
    Less,
    Load,
    Program,
    Stmt,
    Store,
    Var,
)
from convgen.ir.rewrite import loops, map_body, reads, rewrite_loops, rewrite_named, stores, substitute_block, variables


@dataclass(frozen=True)
class BlockReduction:
    """for a: for b: alloc acc: { first; for r in R: update; finish }
    →  for r_block in max(R / F, 1): for a: for b: alloc acc:
           { first, later acc = sums[a, b]; for r in F: update[r_block * F + r]; finish, before the last block sums[a, b] = acc }

    (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008: the loop over k.) ``loop`` is r, ``around``
    is a; ``sums`` becomes a local buffer with an axis for each loop from ``around`` inwards. What stands before the outermost
    loop that holds r is ``first``, what follows it is ``finish``. With ``each``, a loop of the sum around r, no block
    reaches from one of its iterations into the next.

    Requires: factor at least 1; ``around`` and the loops in it are a perfect nest (with guards) around one alloc of a scalar,
    whose body has one loop r and stores to memory after it alone, to none that is read before it; an extent, or one of the two
    of which it is the smaller, is in sizes of the program. Ensures: each accumulator sees the terms of one block after another,
    in order, and nothing is rounded in between.
    """

    loop: str
    factor: int
    around: str
    sums: str
    each: str = ""

    def __call__(self, program: Program) -> Program:
        if self.factor < 1:
            raise IRError(f"factor={self.factor} of loop {self.loop} must be at least 1")
        made: dict[str, Buffer] = {}

        def change(loop: For) -> tuple[Stmt, ...]:
            nest, alloc = self._nest(loop)
            blocks = self._blocks(alloc)
            if variables(blocks) & {inner.var for inner in nest}:
                raise IRError(f"the extent of reduction loop {self.loop} depends on the nest around it")
            shape = tuple(_largest(inner, frozenset(program.sizes)) for inner in nest)
            made[self.sums] = Buffer(self.sums, alloc.buffer.dtype, shape, "local")
            blocked = self._blocked(alloc, blocks, tuple(Var(inner.var) for inner in nest))
            return (For(f"{self.loop}_block", blocks, (_with_alloc(loop, blocked),)),)

        rewritten = rewrite_named(program, self.around, change)
        return replace(rewritten, buffers=(*rewritten.buffers, *made.values()))

    def _nest(self, loop: For) -> tuple[list[For], Alloc]:
        nest: list[For] = []
        statement: Stmt = loop
        while not isinstance(statement, Alloc):
            match statement:
                case For(_, _, (inner,), "serial"):
                    nest.append(statement)
                    statement = inner
                case If(_, (inner,)):
                    statement = inner
                case _:
                    raise IRError(f"loop {self.around} is not a serial nest around one alloc")
        if statement.buffer.shape:
            raise IRError(f"{statement.buffer.name} is not a scalar")
        return nest, statement

    def _reduction(self, alloc: Alloc, name: str) -> For:
        found = [inner for inner in loops(alloc.body) if inner.var == name]
        if len(found) != 1:
            raise IRError(f"{alloc.buffer.name} is summed by {len(found)} loops {name}")
        return found[0]

    def _blocks_of_each(self, alloc: Alloc) -> Index:
        return ceildiv(self._reduction(alloc, self.loop).extent, self.factor)

    def _blocks(self, alloc: Alloc) -> Index:
        """How many blocks there are. A sum of nothing is one too: its result is stored."""
        blocks = self._blocks_of_each(alloc)
        if self.each:
            around = self._reduction(alloc, self.each)
            if self.loop not in {inner.var for inner in loops(around.body)}:
                raise IRError(f"loop {self.each} is not around {self.loop}")
            if self.each in variables(blocks):
                raise IRError(f"the extent of {self.loop} depends on {self.each}")
            blocks = mul(around.extent, blocks)
        return maximum(blocks, 1)

    def _blocked(self, alloc: Alloc, blocks: Index, place: tuple[Index, ...]) -> Alloc:
        name = alloc.buffer.name
        at = next(i for i, inner in enumerate(alloc.body) if any(part.var == self.loop for part in loops((inner,))))
        first, update, finish = alloc.body[:at], alloc.body[at : at + 1], alloc.body[at + 1 :]
        if any(store.buffer != name for store in stores((*first, *update))):
            raise IRError(f"memory is stored to before the sum {name} is complete")
        carried = {store.buffer for store in stores(finish)} & {read.buffer for read in reads(first)}
        if carried:
            raise IRError(f"the sum {name} begins with {sorted(carried)}, which another sum ends with")
        block = Var(f"{self.loop}_block")
        last = sub(blocks, 1)
        within: Index = block
        number: Index = Int(0)
        if self.each:
            of_each = maximum(self._blocks_of_each(alloc), 1)
            number, within = floordiv(block, of_each), mod(block, of_each)

        def shorter(loop: For) -> tuple[Stmt, ...]:
            rest = sub(loop.extent, mul(within, self.factor))
            divides = isinstance(loop.extent, Int) and loop.extent.value > 0 and loop.extent.value % self.factor == 0
            body = substitute_block(loop.body, {self.loop: add(mul(within, self.factor), self.loop)})
            return (For(loop.var, Int(self.factor) if divides else minimum(self.factor, rest), body, loop.kind),)

        def single(loop: For) -> tuple[Stmt, ...]:
            body = substitute_block(loop.body, {self.each: add(number, self.each)})
            return (For(loop.var, minimum(1, sub(loop.extent, number)), body, loop.kind),)

        shortened = rewrite_loops(update, self.loop, shorter)

        body = (
            If(Less(block, Int(1)), first),
            If(Less(Int(0), block), (Store(name, (), Load(self.sums, place)),)),
            *(rewrite_loops(shortened, self.each, single) if self.each else shortened),
            If(Less(block, last), (Store(self.sums, place, Load(name, ())),)),
            If(Less(sub(last, 1), block), finish),
        )
        return Alloc(alloc.buffer, body)


def _largest(loop: For, sizes: frozenset[str]) -> Index:
    """The most iterations of a loop, as a constant or in sizes of the program."""
    match loop.extent:
        case IndexOp("min", a, b):
            bounds: tuple[Index, ...] = (a, b)
        case extent:
            bounds = (extent,)
    for bound in bounds:
        if variables(bound) <= sizes:
            return bound
    raise IRError(f"the extent of loop {loop.var} is not bounded by the program's sizes")


def _with_alloc(statement: Stmt, alloc: Alloc) -> Stmt:
    """The nest with its alloc replaced."""
    if isinstance(statement, Alloc):
        return alloc
    return map_body(statement, lambda body: tuple(_with_alloc(inner, alloc) for inner in body))
