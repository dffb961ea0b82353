"""tensorize: a tile of sums is made by the processor's matrix unit."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.affine import affine
from convgen.ir.build import add, mul
from convgen.ir.nodes import (
    Alloc,
    Buffer,
    Const,
    Fma,
    For,
    If,
    Index,
    Int,
    Load,
    Program,
    Stmt,
    Store,
    TileDot,
    TileLoad,
    TileStore,
    TileZero,
    Value,
    Var,
)
from convgen.ir.rewrite import loops, map_statement, rewrite_named, substitute, variables
from convgen.ir.types import TILE_TERMS
from convgen.passes.register_tile import TileNest

# Lanes of a tile of sums.
LANES = 16
# Places inside of a tile.
_ROW, _LANE, _TERM = "tile_row", "tile_lane", "tile_term"


@dataclass(frozen=True)
class Tensorize:
    """for p in A * H: for l in B * 16: alloc acc: { acc = 0; for r in R * D: acc = fma(x[p, r], w[.., r], acc);  finish }
    →  alloc acc: tiles[A, B, H, 16]: { acc = 0; for r in R: { load tiles; acc[a, b] += x[a] . w[b] }; sums = acc }
       for p in A * H: for l in B * 16: finish[sums[p, l]]

    where w is w[l // 16, r // T, l % 16, r % T]. ``height`` is H, ``depth`` D; ``sums`` becomes local memory. A term may be
    several products of the same two buffers. A nest that sums nothing stays as it is.

    Requires: ``rows`` and ``lanes`` are perfectly nested around one alloc, of constant extents; x moves with p along one axis
    that is not its last, and with r along that one; w lies as above, its last axes being [R * D / T, 16, T]; the sum reads
    nothing outside of its buffers where a guard around the alloc does not hold. Ensures: the same products are added, in another
    order; of bfloat16 denormals are taken for zeros, see TileDot.
    """

    rows: str
    lanes: str
    reduction: str
    height: int
    depth: int
    sums: str

    def __call__(self, program: Program) -> Program:
        shapes = {buffer.name: buffer.shape for buffer in program.buffers}
        made: dict[str, Buffer] = {}

        def change(loop: For) -> tuple[Stmt, ...]:
            nest = TileNest.collect(loop, (self.rows, self.lanes), shapes)
            if not any(True for _ in loops(nest.alloc.body)):
                return (loop,)
            unit = _Unit(self, program, nest)
            made[self.sums] = unit.memory
            return unit.statements()

        rewritten = rewrite_named(program, self.rows, change)
        return replace(rewritten, buffers=(*rewritten.buffers, *made.values()))


@dataclass(frozen=True)
class _Unit:
    """One nest, as tiles."""

    step: Tensorize
    program: Program
    nest: TileNest

    @property
    def memory(self) -> Buffer:
        """The buffer of sums: [row, lane]."""
        rows, lanes = (extent for _, extent in self.nest.loops)
        return Buffer(self.step.sums, self.nest.alloc.buffer.dtype, (rows, lanes), "local")

    @property
    def counts(self) -> tuple[int, int]:
        """How many tiles the rows have, and the lanes."""
        rows, lanes = (extent.value for _, extent in self.nest.loops)
        if rows % self.step.height or lanes % LANES:
            raise IRError(f"{rows} rows and {lanes} lanes are not whole tiles of {self.step.height} x {LANES}")
        return rows // self.step.height, lanes // LANES

    def statements(self) -> tuple[Stmt, ...]:
        alloc, name = self.nest.alloc, self.nest.alloc.buffer.name
        match alloc.body:
            case (Store(first, (), Const(0)), (For() | If()) as update, *finish) if first == name and finish:
                pass
            case _:
                raise IRError(f"{name} is not one sum that begins with zero")
        factors = self._factors(update)
        x, w = factors[0]
        a, b = self.counts
        dtypes = (self.program.buffer(x.buffer).dtype, self.program.buffer(w.buffer).dtype)
        terms = TILE_TERMS.get(dtypes, 0)
        if not terms or self.step.depth % terms:
            raise IRError(f"{dtypes[0]} times {dtypes[1]} in {self.step.depth} terms is no product of tiles")
        height, depth = Int(self.step.height), self.step.depth
        dtype = alloc.buffer.dtype
        total = Buffer(name, dtype, (Int(a), Int(b), height, Int(LANES)), "tile")
        image = Buffer(f"{name}_{x.buffer}", dtypes[0], (Int(a), height, Int(depth)), "tile")
        weights = Buffer(f"{name}_{w.buffer}", dtypes[1], (Int(b), Int(depth // terms), Int(LANES * terms)), "tile")
        product = _Product(self.step, total, image, weights, factors)
        places = tuple(itertools.product(range(a), range(b)))
        body: tuple[Stmt, ...] = (
            *(TileZero(name, (Int(i), Int(j))) for i, j in places),
            product.within(update),
            *(
                TileStore(self.step.sums, (Int(i * self.step.height), Int(j * LANES)), 0, name, (Int(i), Int(j)))
                for i, j in places
            ),
        )
        for buffer in (weights, image, total):
            body = (Alloc(buffer, body),)
        return (*body, self._finish(finish))

    def _factors(self, update: Stmt) -> tuple[tuple[Load, Load], ...]:
        """The two reads of each product, in the order in which they are added; all of the same two buffers."""
        name = self.nest.alloc.buffer.name
        inner: tuple[Stmt, ...] = (update,)
        while len(inner) == 1 and isinstance(inner[0], For | If):
            inner = inner[0].body
        found: list[tuple[Load, Load]] = []
        for statement in inner:
            match statement:
                case Store(
                    total, (), Fma(Load(_, _, 1, None, 1) as x, Load(_, _, 1, None, 1) as w, Load(read, ())), 1, None
                ) if total == read == name:
                    found.append((x, w))
                case _:
                    raise IRError(f"{name} is not a sum of products of plain reads")
        if len({(x.buffer, w.buffer) for x, w in found}) != 1:
            raise IRError(f"{name} is not a sum of products of two buffers")
        return tuple(found)

    def _finish(self, finish: list[Stmt]) -> Stmt:
        name, place = self.nest.alloc.buffer.name, (Var(self.step.rows), Var(self.step.lanes))

        def visit(value: Value) -> Value:
            return Load(self.step.sums, place) if isinstance(value, Load) and value.buffer == name else value

        body = tuple(map_statement(statement, lambda index: index, visit) for statement in finish)
        for guard in reversed(self.nest.guards):
            body = (If(guard, body),)
        for var, extent in reversed(self.nest.loops):
            body = (For(var, extent, body),)
        return body[0]


@dataclass(frozen=True)
class _Product:
    """The tiles of a step of the sum, and where they lie."""

    step: Tensorize
    total: Buffer
    image: Buffer
    weights: Buffer
    factors: tuple[tuple[Load, Load], ...]

    def within(self, update: Stmt) -> Stmt:
        """The loops around the product, with that over its terms in steps of a tile."""
        match update:
            case For(self.step.reduction, Int(count), _, kind):
                if count % self.step.depth:
                    raise IRError(f"{count} terms of {self.step.reduction} are not whole tiles of {self.step.depth}")
                steps = count // self.step.depth
                begin = mul(self.step.reduction, self.step.depth) if steps > 1 else Int(0)
                return For(self.step.reduction, Int(steps), self._statements(begin), kind)
            case For(var, extent, (inner,), kind):
                return For(var, extent, (self.within(inner),), kind)
            case If(condition, (inner,)):
                return If(condition, (self.within(inner),))
            case _:
                raise IRError(f"there is no loop {self.step.reduction} in the sum")

    def _statements(self, begin: Index) -> tuple[Stmt, ...]:
        """A step from the term ``begin`` on."""
        a, b = _sizes(self.total)[:2]
        body: list[Stmt] = []
        for x, w in self.factors:
            body += [self._load_weights(w, j, begin) for j in range(b)]
            for i in range(a):
                body.append(self._load_image(x, i, begin))
                body += [
                    TileDot(self.total.name, (Int(i), Int(j)), self.image.name, (Int(i),), self.weights.name, (Int(j),))
                    for j in range(b)
                ]
        return tuple(body)

    def _load_image(self, x: Load, tile: int, begin: Index) -> Stmt:
        """Rows of the image: one axis moves with the row, the last one with the term."""
        step = self.step
        first = {step.rows: add(tile * step.height, _ROW), step.reduction: add(begin, _TERM)}
        place, moves = _moved(x, first, {_ROW: step.height, _TERM: step.depth})
        rows = [(axis, apart) for axis, (apart, _) in enumerate(moves) if apart] or [(len(place) - 2, 1)]
        terms = [(axis, apart) for axis, (_, apart) in enumerate(moves) if apart]
        if terms != [(len(place) - 1, 1)] or len(rows) != 1 or rows[0][0] == len(place) - 1 or rows[0][1] < 1:
            raise IRError(f"{x.buffer} does not lie in rows of terms")
        if step.lanes in frozenset[str]().union(*map(variables, place)):
            raise IRError(f"{x.buffer} moves with {step.lanes}")
        return TileLoad(self.image.name, (Int(tile),), x.buffer, place, *rows[0])

    def _load_weights(self, w: Load, tile: int, begin: Index) -> Stmt:
        """Rows of the weights: the last three axes move with groups of terms, lanes, and terms of a group."""
        step = self.step
        groups, columns = _sizes(self.weights)[1:]
        terms = columns // LANES
        term = add(begin, mul(_ROW, terms), _TERM)
        first = {step.lanes: add(tile * LANES, _LANE), step.reduction: term}
        place, moves = _moved(w, first, {_ROW: groups, _LANE: LANES, _TERM: terms})
        wanted = ((int(groups > 1), 0, 0), (0, 1, 0), (0, 0, 1))
        if moves[-3:] != wanted or any(any(move) for move in moves[:-3]) or place[-2:] != (Int(0), Int(0)):
            raise IRError(f"{w.buffer} does not lie in lanes of terms")
        if step.rows in frozenset[str]().union(*map(variables, place)):
            raise IRError(f"{w.buffer} moves with {step.rows}")
        return TileLoad(self.weights.name, (Int(tile),), w.buffer, place, len(place) - 3)


def _sizes(buffer: Buffer) -> tuple[int, ...]:
    return tuple(extent.value for extent in buffer.shape if isinstance(extent, Int))


def _moved(
    read: Load, first: Mapping[str, Index], ranges: Mapping[str, int]
) -> tuple[tuple[Index, ...], tuple[tuple[int, ...], ...]]:
    """Where a read begins once its variables are replaced, and by how much each axis moves with new ones that have ``ranges``
    (not at all with those that have a single value)."""
    extents: dict[str, Index] = {name: Int(count) for name, count in ranges.items()}
    single = {name: Int(0) for name, count in ranges.items() if count == 1}
    place: list[Index] = []
    moves: list[tuple[int, ...]] = []
    for index in read.index:
        form = affine(substitute(substitute(index, first), single), extents)
        moves.append(tuple(form.coefficient(Var(name)) for name in ranges))
        for name in ranges:
            form = form.without(Var(name))
        if variables(form.index()) & set(ranges):
            raise IRError(f"access to {read.buffer} does not move evenly")
        place.append(form.index())
    return tuple(place), tuple(moves)
