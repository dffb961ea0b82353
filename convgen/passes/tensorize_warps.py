"""tensorize_warps: a block of sums is made by the matrix units of a task's warps."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.build import add, floordiv, mod, mul
from convgen.ir.nodes import (
    Alloc,
    Barrier,
    Buffer,
    Const,
    Fma,
    For,
    Index,
    Int,
    Load,
    Program,
    Stage,
    Stmt,
    TileDot,
    TileLoad,
    TileStore,
    TileZero,
    Value,
    Var,
)
from convgen.ir.rewrite import loops, map_statement, reads, stores

WARP_LOOP = "warp"


@dataclass(frozen=True)
class TensorizeWarps:
    """alloc acc[A, B]: { for a: for b: acc = 0;  for r: for a: for b: acc[a, b] += x[a, r] * w[b, r];  for a: for b: finish }
    →  alloc acc: tiles[V, A', B', m, n]: { warp for v: acc[v] = 0;  warp for v: for r: { load; acc[v, a, b] += x[a] . w[b] };
       barrier;  warp for v: sums = acc;  for a: for b: finish[sums[a, b]] }

    of every stage that begins with ``stage``. ``loops`` are a and b, ``reduction`` is r; ``warps`` is how many there are along
    each of a and b, ``shape`` the (m, n, k) of the unit's product. x and w are local; their axes stand in either order.

    Requires: extents are constant and whole tiles for every warp; the sums begin with zero and each update is one product of two
    local buffers of one type. Ensures: the same products are added, in another order, see TileDot.
    """

    stage: str
    loops: tuple[str, str]
    reduction: str
    warps: tuple[int, int]
    shape: tuple[int, int, int]
    sums: str
    pad: int = 0

    def __call__(self, program: Program) -> Program:
        made: dict[str, Buffer] = {}
        stages = tuple(
            replace(stage, body=self._block(stage, stage.body, program, made))
            if stage.name.startswith(self.stage)
            else stage
            for stage in program.stages
        )
        return replace(program, stages=stages, buffers=(*program.buffers, *made.values()))

    def _block(
        self, stage: Stage, body: tuple[Stmt, ...], program: Program, made: dict[str, Buffer]
    ) -> tuple[Stmt, ...]:
        """The block with the alloc of the sums rewritten."""
        result: list[Stmt] = []
        for statement in body:
            match statement:
                case Alloc(Buffer(shape=(Int(), Int())) as buffer, inner):
                    unit = _Unit(self, program, buffer)
                    made[self.sums] = unit.memory
                    result.append(Alloc(unit.tiles, unit.block(inner)))
                case For(_, _, inner):
                    result.append(replace(statement, body=self._block(stage, inner, program, made)))
                case _:
                    raise IRError(f"stage {stage.name} is not loops around one block of sums")
        return tuple(result)


@dataclass(frozen=True)
class _Unit:
    """The sums of one task."""

    step: TensorizeWarps
    program: Program
    register: Buffer

    @property
    def extents(self) -> tuple[int, int]:
        a, b = (extent.value for extent in self.register.shape if isinstance(extent, Int))
        return a, b

    @property
    def counts(self) -> tuple[int, int]:
        """Tiles of a warp along both loops; raises IRError where they are not whole."""
        found = []
        for extent, warps, size in zip(self.extents, self.step.warps, self.step.shape[:2], strict=True):
            if extent % (warps * size):
                raise IRError(f"{extent} sums are not whole tiles of {size} for {warps} warps")
            found.append(extent // (warps * size))
        return found[0], found[1]

    @property
    def warp_count(self) -> int:
        return self.step.warps[0] * self.step.warps[1]

    @property
    def memory(self) -> Buffer:
        a, b = self.extents
        return Buffer(self.step.sums, self.register.dtype, (Int(a), Int(b + self.step.pad)), "local")

    @property
    def tiles(self) -> Buffer:
        m, n, _ = self.step.shape
        counts = (self.warp_count, *self.counts)
        return Buffer(self.register.name, self.register.dtype, (*map(Int, counts), Int(m), Int(n)), "tile")

    def block(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        result: list[Stmt] = []
        name = self.register.name
        collected = False
        for statement in body:
            stored = {store.buffer for store in stores((statement,))}
            read = {access.buffer for access in reads((statement,))}
            if name in stored and name in read:
                result.append(self._update(statement))
            elif name in stored:
                result.append(self._zero(statement))
            elif name in read:
                if not collected:
                    # The sums may lie where the factors were.
                    result += [Barrier(), self._collect()]
                    collected = True
                result.append(self._redirected(statement))
            else:
                result.append(statement)
        return tuple(result)

    def _warps(self, *body: Stmt) -> For:
        return For(WARP_LOOP, Int(self.warp_count), body, "warp")

    def _each_tile(self) -> list[tuple[Index, ...]]:
        a, b = self.counts
        return [(Var(WARP_LOOP), Int(i), Int(j)) for i, j in itertools.product(range(a), range(b))]

    def _origin(self, side: int, tile: Index) -> Index:
        """Where a warp's tile begins along a loop: neighbouring warps go along the second."""
        along = self.step.warps[1]
        warp = floordiv(WARP_LOOP, along) if side == 0 else mod(WARP_LOOP, along)
        return mul(add(mul(warp, self.counts[side]), tile), self.step.shape[side])

    def _zero(self, statement: Stmt) -> Stmt:
        if not all(isinstance(store.value, Const) and store.value.value == 0 for store in stores((statement,))):
            raise IRError(f"{self.register.name} does not begin with zero")
        return self._warps(*(TileZero(self.register.name, tile) for tile in self._each_tile()))

    def _update(self, statement: Stmt) -> Stmt:
        """The loops around the reduction stay, with the sums of all warps inside."""
        match statement:
            case For(var, extent, body) if var != self.step.reduction and self.step.reduction in _names(body):
                changed = [self._update(s) if self.step.reduction in _names((s,)) else s for s in body]
                return For(var, extent, tuple(changed), statement.kind)
            case For(_, Int(extent), _) if extent % self.step.shape[2] == 0:
                steps = Int(extent // self.step.shape[2])
            case _:
                raise IRError(f"{self.register.name} is not summed by a loop {self.step.reduction} of whole tiles")
        (store,) = tuple(stores((statement,)))
        match store.value:
            case Fma(Load() as x, Load() as w, Load(sums)) if sums == self.register.name and self._are_local(x, w):
                pass
            case _:
                raise IRError(f"{self.register.name} is not a sum of products of two local buffers")
        sides = self._side(x), self._side(w)
        if sides == (1, 0):
            x, w = w, x
        elif sides != (0, 1):
            raise IRError(f"{x.buffer} and {w.buffer} are both read along {self.step.loops[sides[0]]}")
        tiles = [self._operand(0, x), self._operand(1, w)]
        dots = [
            TileDot(self.register.name, (warp, i, j), tiles[0].name, (i,), tiles[1].name, (j,), turned=True)
            for warp, i, j in self._each_tile()
        ]
        step: tuple[Stmt, ...] = (*self._loads(0, x, tiles[0]), *self._loads(1, w, tiles[1]), *dots)
        inner: tuple[Stmt, ...] = (Alloc(tiles[0], (Alloc(tiles[1], step),)),)
        return self._warps(For(f"{self.step.reduction}_step", steps, inner))

    def _are_local(self, *factors: Load) -> bool:
        names = [factor.buffer for factor in factors]
        return all(self.program.has_buffer(name) and self.program.buffer(name).space == "local" for name in names)

    def _side(self, load: Load) -> int:
        """Which of the loops the factor runs along."""
        for side, loop in enumerate(self.step.loops):
            if set(load.index) == {Var(loop), Var(self.step.reduction)}:
                return side
        raise IRError(f"{load.buffer} is not read at one of {self.step.loops} and {self.step.reduction}")

    def _operand(self, side: int, load: Load) -> Buffer:
        dtype = self.program.buffer(load.buffer).dtype
        shape = (Int(self.counts[side]), Int(self.step.shape[side]), Int(self.step.shape[2]))
        return Buffer(f"{self.register.name}_{load.buffer}", dtype, shape, "tile")

    def _loads(self, side: int, load: Load, tile: Buffer) -> list[Stmt]:
        turned = load.index[0] == Var(self.step.reduction)
        term = mul(f"{self.step.reduction}_step", self.step.shape[2])
        found: list[Stmt] = []
        for i in range(self.counts[side]):
            origin = self._origin(side, Int(i))
            place = (term, origin) if turned else (origin, term)
            found.append(TileLoad(tile.name, (Int(i),), load.buffer, place, 0, turned=turned))
        return found

    def _collect(self) -> Stmt:
        return self._warps(
            *(
                TileStore(self.step.sums, (self._origin(0, i), self._origin(1, j)), 0, self.register.name, (warp, i, j))
                for warp, i, j in self._each_tile()
            )
        )

    def _redirected(self, statement: Stmt) -> Stmt:
        def visit(value: Value) -> Value:
            match value:
                case Load(buffer, index) if buffer == self.register.name:
                    return Load(self.step.sums, index)
                case _:
                    return value

        return map_statement(statement, lambda index: index, visit)


def _names(body: tuple[Stmt, ...]) -> frozenset[str]:
    return frozenset(loop.var for loop in loops(body))
