"""Random schedules: each move looks at a program and proposes passes that fit it, with what must come before them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from convgen.errors import PassError
from convgen.ir.interp import evaluate_index
from convgen.ir.nodes import Alloc, For, If, Index, Int, Less, Load, PaddedLoad, Program, Stage, Stmt, Var
from convgen.ir.rewrite import loops, reads, statements, stores, values, variables
from convgen.passes.assume import Assume
from convgen.passes.block_reduction import BlockReduction
from convgen.passes.copy_in import CopiedAxis, CopyIn
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.flatten import Flatten
from convgen.passes.fuse_epilogue import FuseEpilogue
from convgen.passes.launch_grid import LaunchGrid
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.pad import Pad
from convgen.passes.parallelize import Parallelize
from convgen.passes.peel_border import PeelBorder
from convgen.passes.pipeline import Pass, run_passes
from convgen.passes.predicate import Predicate
from convgen.passes.register_tile import RegisterTile
from convgen.passes.relayout import Relayout
from convgen.passes.reorder import Reorder
from convgen.passes.share_loops import ShareLoops
from convgen.passes.simplify import Simplify
from convgen.passes.skip import Skip
from convgen.passes.split_border import SplitBorder
from convgen.passes.split_sum import SplitSum
from convgen.passes.tile import Tile
from convgen.passes.trim import Trim
from convgen.passes.unpack import Unpack
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from tests.programs import Sample

MOVES: tuple[str, ...] = (
    "Assume",
    "BlockReduction",
    "CopyIn",
    "ExpandPadding",
    "Flatten",
    "FuseEpilogue",
    "LaunchGrid",
    "Pack",
    "Pad",
    "Parallelize",
    "Predicate",
    "RegisterTile",
    "Relayout",
    "Reorder",
    "ShareLoops",
    "PeelBorder",
    "Simplify",
    "Skip",
    "SplitBorder",
    "SplitSum",
    "Tile",
    "Trim",
    "Unpack",
    "Unroll",
    "Vectorize",
)


def chain(stage: Stage) -> list[For]:
    """The loops of a stage that are nested perfectly from the outside."""
    found: list[For] = []
    body = stage.body
    while len(body) == 1 and isinstance(body[0], For):
        found.append(body[0])
        body = body[0].body
    return found


@dataclass
class Schedule:
    """A program on its way through random passes; ``applied`` counts those that changed it."""

    draw: Callable[..., Any]
    sample: Sample
    program: Program
    applied: Counter[str] = field(default_factory=Counter)
    history: list[Pass] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def move(self, kind: str) -> None:
        """Makes one move; a refusal, which must be a PassError that names the pass, ends it."""
        for step in self._proposed(kind):
            name = type(step).__name__
            try:
                changed = run_passes(self.program, [step])
            except PassError as error:
                if not str(error).startswith(f"{name}: "):
                    raise
                return
            if changed != self.program:
                self.applied[name] += 1
                self.history.append(step)
            self.program = changed

    def _proposed(self, kind: str) -> Sequence[Pass]:
        match kind:
            case "Assume" | "PeelBorder" | "Skip" | "SplitBorder" | "Trim":
                return self._on_padded_sums(kind)
            case "ExpandPadding":
                return (ExpandPadding(()),)
            case "FuseEpilogue":
                return (FuseEpilogue("epilogue", "sums"),)
            case "LaunchGrid":
                return self._launch_grid()
            case "Predicate":
                return (*self._tile(), Predicate())
            case "ShareLoops":
                return self._share_loops()
            case "SplitSum":
                return self._split_sum()
            case "Simplify":
                return (Simplify(keep_unit_loops=self.draw(st.booleans())),)
            case "Vectorize":
                return self._vectorize()
            case "RegisterTile":
                return self._register_tile()
            case "Tile":
                return self._tile()
            case "Unroll":
                return self._on_loops(Unroll, 4)
            case "Parallelize":
                return self._parallelize()
            case "Reorder":
                return self._reorder()
            case "BlockReduction":
                return self._block_reduction()
            case "CopyIn":
                return self._copy_in()
            case "Flatten":
                return self._flatten()
            case _:
                return self._copies(kind)

    def _pick(self, values: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(values))

    def _fresh(self, name: str) -> str:
        return f"{name}_{next(self.numbers)}"

    def _stage(self) -> Stage:
        return self._pick(self.program.stages)

    def _tile_of(self, loop: str) -> Tile:
        factor = self.draw(st.integers(1, 4))
        tail = self._pick(("guard", "clamp", "overlap" if self._is_as_long_as(factor, loop) else "clamp"))
        return Tile(loop, factor, self._fresh(loop), self._fresh(loop), tail)

    def _is_as_long_as(self, least: int, name: str) -> bool:
        """Whether all loops of that name run at least so often, as far as the sizes tell."""
        for stage in self.program.stages:
            known = dict(self.sample.sizes)
            known |= {bound: evaluate_index(value, known) for bound, value in stage.bindings}
            for loop in loops(stage.body):
                if loop.var == name and not variables(loop.extent) <= set(known):
                    return False
                if loop.var == name and evaluate_index(loop.extent, known) < least:
                    return False
        return True

    def _tile(self) -> Sequence[Pass]:
        names = sorted({loop.var for loop in loops(self._stage().body)})
        return (self._tile_of(self._pick(names)),) if names else ()

    def _on_loops(self, make: type[Unroll], most: int) -> Sequence[Pass]:
        names = [
            loop.var for stage in self.program.stages for loop in loops(stage.body)
            if isinstance(loop.extent, Int) and loop.extent.value <= most
        ]  # fmt: skip
        return (make(self._pick(sorted(set(names)))),) if names else ()

    def _on_padded_sums(self, kind: str) -> Sequence[Pass]:
        """Padded reads with their tests in the open; all that is known of the sizes."""
        taps = sorted({loop.var for stage in self.program.stages for loop in loops(stage.body) if loop.var[0] == "k"})
        match kind:
            case "Assume":
                facts = ((Less(Var(n), Int(v + 1)), Less(Int(v - 1), Var(n))) for n, v in self.sample.sizes.items())
                return (ExpandPadding(()), Assume(self._stage().name, tuple(f for pair in facts for f in pair)))
            case "PeelBorder":
                outer = sorted({loop.var for stage in self.program.stages for loop in loops(stage.body)} - {*taps})
                return (ExpandPadding(()), Skip(), PeelBorder(self._pick(outer))) if outer else ()
            case "Trim":
                return (ExpandPadding(()), Trim(self._pick(taps))) if taps else ()
            case "SplitBorder":
                return (ExpandPadding(()), SplitBorder(self._pick(taps))) if taps else ()
            case _:
                return (ExpandPadding(()), Skip())

    def _parallelize(self) -> Sequence[Pass]:
        stage = self._stage()
        nest = chain(stage)
        if not nest:
            return ()
        return (Parallelize(stage.name, tuple(loop.var for loop in nest[: self.draw(st.integers(1, len(nest)))])),)

    def _independent(self, stage: Stage) -> list[For]:
        """The loops of a stage, where no iteration depends on another; else nothing."""
        nest = chain(stage)
        try:
            run_passes(self.program, [Parallelize(stage.name, tuple(loop.var for loop in nest))])
        except PassError:
            return []
        return nest

    def _launch_grid(self) -> Sequence[Pass]:
        stage = self._stage()
        alone = [other.name for other in self.program.stages if other.name.startswith(stage.name)] == [stage.name]
        nest = self._independent(stage)
        if not alone or not nest:
            return ()
        return (LaunchGrid(stage.name, self.draw(st.integers(1, 5))),)

    def _share_loops(self) -> Sequence[Pass]:
        """The innermost loops of constant extents, of names that no other stage has."""
        stage = self._stage()
        names: list[str] = []
        for loop in reversed(self._independent(stage)):
            owners = [s.name for s in self.program.stages for other in loops(s.body) if other.var == loop.var]
            if not isinstance(loop.extent, Int) or owners != [stage.name]:
                break
            names.insert(0, loop.var)
        if not names:
            return ()
        return (ShareLoops(tuple(names), self._fresh("shared"), self.draw(st.integers(1, 5)), self._pick((1, 1, 2))),)

    def _split_sum(self) -> Sequence[Pass]:
        found = [
            (stage.name, inner.var)
            for stage in self.program.stages
            for statement in statements(stage.body)
            if isinstance(statement, Alloc)
            for inner in statement.body
            if isinstance(inner, For)
        ]
        if not found:
            return ()
        stage, loop = self._pick(found)
        return (SplitSum(stage, loop, self.draw(st.integers(2, 3)), self._fresh("parts")),)

    def _reorder(self) -> Sequence[Pass]:
        deep = [stage for stage in self.program.stages if len(chain(stage)) > 1]
        if not deep:
            return ()
        stage = self._pick(deep)
        names = [loop.var for loop in chain(stage)]
        first = self.draw(st.integers(0, len(names) - 2))
        last = self.draw(st.integers(first + 2, len(names)))
        window = names[first:last]
        return (Reorder(stage.name, tuple(self.draw(st.permutations(window).filter(lambda order: order != window)))),)

    def _register_tile(self) -> Sequence[Pass]:
        """The innermost one or two loops around an accumulator, made constant by tiling."""
        nests = [around for stage in self.program.stages if (around := self._around_alloc(stage))]
        if not nests:
            return ()
        chosen: list[For] = self._pick(nests)
        passes: list[Pass] = []
        names: list[str] = []
        for loop in chosen[-self.draw(st.integers(1, 2)) :]:
            if isinstance(loop.extent, Int) or len(names):
                names.append(loop.var)
            else:
                tile = Tile(loop.var, self.draw(st.integers(1, 3)), self._fresh(loop.var), self._fresh(loop.var))
                passes.append(tile)
                names.append(tile.inner)
        return (*passes, *([Simplify()] if self.draw(st.booleans()) else []), RegisterTile(tuple(names)))

    def _block_reduction(self) -> Sequence[Pass]:
        """Any loop of a sum, in blocks around any of the loops that the sum stands in."""
        stages = [stage for stage in self.program.stages if self._around_alloc(stage)]
        found = [
            (around.var, inner.var)
            for stage in stages
            for around in self._around_alloc(stage)
            for statement in statements(stage.body)
            if isinstance(statement, Alloc)
            for inner in loops(statement.body)
        ]
        if not found:
            return ()
        around, inner = self._pick(found)
        return (BlockReduction(inner, self.draw(st.integers(1, 3)), around, self._fresh("partial")),)

    def _copy_in(self) -> Sequence[Pass]:
        """What one loop reads of a buffer, by all the loops inside it; guards and choices might keep a read inside its buffer."""
        found = [
            (loop, read)
            for stage in self.program.stages
            for loop in loops(stage.body)
            if not any(isinstance(statement, If) for statement in statements(loop.body))
            for store in stores(loop.body)
            for read in values(store.value, conditional=False)
            if isinstance(read, Load | PaddedLoad)
            if self.program.has_buffer(read.buffer) and self._inner(loops(loop.body), read)
        ]
        if not found:
            return ()
        loop, read = self._pick(found)
        inner = self._inner(loops(loop.body), read)
        where: str | None = loop.var
        if (whole := self._inner(self._outermost(loop), read)) and not self.draw(st.integers(0, 3)):
            inner, where = whole, None
        axes = tuple(CopiedAxis(other.var, self._largest(other), Var(other.var)) for other in inner)
        order = tuple(self.draw(st.permutations([axis.label for axis in axes])))
        return (CopyIn(read.buffer, self._fresh("copy"), where, axes, order=order),)

    def _outermost(self, loop: For) -> list[For]:
        """A loop that is all of a stage, and those inside it; else nothing."""
        whole = any(stage.body == (loop,) for stage in self.program.stages)
        return [loop, *loops(loop.body)] if whole else []

    def _inner(self, found: Iterable[For], read: Load | PaddedLoad) -> list[For]:
        """Those of the loops that the read moves with, or nothing where an extent is not in sizes."""
        used = frozenset[str]().union(*map(variables, read.index))
        inner = [loop for loop in found if loop.var in used]
        names = [loop.var for loop in inner]
        known = all(variables(loop.extent) <= set(self.program.sizes) for loop in inner)
        return inner if known and len(set(names)) == len(names) else []

    def _largest(self, loop: For) -> Index:
        """The largest extent of the loops of that name, in any stage."""
        found = [same.extent for stage in self.program.stages for same in loops(stage.body) if same.var == loop.var]
        constant = [extent.value for extent in found if isinstance(extent, Int)]
        return Int(max(constant)) if len(constant) == len(found) else loop.extent

    def _flatten(self) -> Sequence[Pass]:
        wide = [b for b in self.program.buffers if b.space in ("operand", "workspace") and len(b.shape) > 1]
        if not wide:
            return ()
        chosen = self._pick(wide)
        return (Flatten((chosen.name,), self.draw(st.integers(1, len(chosen.shape)))),)

    @staticmethod
    def _around_alloc(stage: Stage) -> list[For]:
        found: list[For] = []
        body: tuple[Stmt, ...] = stage.body
        while len(body) == 1:
            match body[0]:
                case For() as loop:
                    found.append(loop)
                    body = loop.body
                case If(_, inner):
                    body = inner
                case Alloc():
                    return found
                case _:
                    break
        return []

    def _vectorize(self) -> Sequence[Pass]:
        """Makes the loop along the last axis of a result the innermost, and its loads run along their last axes."""
        candidates = [(stage, lane) for stage in self.program.stages if (lane := self._lane(stage))]
        if not candidates:
            return ()
        stage, lane = self._pick(candidates)
        nest = [loop.var for loop in chain(stage)]
        factor = self.draw(st.integers(2, 4))
        block, inner = self._fresh(lane), self._fresh(lane)
        passes: list[Pass] = []
        moving = [read for read in reads(stage.body) if any(lane in variables(index) for index in read.index)]
        for buffer in sorted({read.buffer for read in moving if isinstance(read, PaddedLoad)}):
            passes.append(self._pad(buffer, reverse=False))
        for read in {read.buffer: read for read in moving if isinstance(read, Load)}.values():
            if any(lane in variables(index) for index in read.index[:-1]) and self.program.has_buffer(read.buffer):
                passes.append(self._pack_for(read, lane, factor))
        if nest[-1] != lane:
            passes.append(Reorder(stage.name, (*nest[nest.index(lane) + 1 :], lane)))
        overlap = self._is_as_long_as(factor, lane) and self.draw(st.booleans())
        passes += [Tile(lane, factor, block, inner, "overlap" if overlap else "guard"), Simplify()]
        if any(isinstance(statement, Alloc) for statement in statements(stage.body)):
            passes.append(RegisterTile((inner,)))
        return (*passes, Vectorize(inner))

    def _lane(self, stage: Stage) -> str:
        """The loop along the last axis of the first memory buffer that the stage stores to, or nothing."""
        nest = [loop.var for loop in chain(stage)]
        last = next(store.index[-1] for store in stores(stage.body) if self.program.has_buffer(store.buffer))
        return max(set(nest) & variables(last), key=nest.index, default="")

    def _pack_for(self, read: Load, lane: str, factor: int) -> Pack:
        axis = next(i for i, index in enumerate(read.index) if lane in variables(index))
        others = tuple(PackedAxis(i) for i in range(len(read.index)) if i != axis)
        split = PackedAxis(axis, "block", factor), PackedAxis(axis, "place", factor)
        return Pack(read.buffer, self._fresh(read.buffer), (split[0], *others, split[1]))

    def _pad(self, buffer: str, *, reverse: bool) -> Pass:
        around = self.sample.pads[buffer]
        axes = range(len(around.low))
        order = tuple(reversed(axes)) if reverse else tuple(axes)
        return Pad(buffer, self._fresh(buffer), around.low, around.extents, order, around.mode)

    def _copies(self, kind: str) -> Sequence[Pass]:
        rank = {buffer.name: len(buffer.shape) for buffer in self.program.buffers}
        match kind:
            case "Pad":
                seen = {read.buffer for read in self._reads() if isinstance(read, PaddedLoad)} & set(self.sample.pads)
                return [self._pad(self._pick(sorted(seen)), reverse=self.draw(st.booleans()))] if seen else ()
            case "Pack":
                plain = {read.buffer for read in self._reads() if isinstance(read, Load)} & set(self.sample.operands)
                return [self._pack(self._pick(sorted(plain)), rank)] if plain else ()
            case "Unpack":
                out = next(buffer.name for buffer in self.program.buffers if buffer.space == "result")
                return (Unpack(out, self._fresh(out), self._permutation(rank[out])),)
            case _:
                work = [buffer.name for buffer in self.program.buffers if buffer.space == "workspace"]
                if not work:
                    return ()
                name = self._pick(work)
                return (Relayout(name, self._permutation(rank[name])),)

    def _permutation(self, rank: int) -> tuple[int, ...]:
        return tuple(self.draw(st.permutations(range(rank))))

    def _reads(self) -> list[Load | PaddedLoad]:
        return [read for stage in self.program.stages for read in reads(stage.body)]

    def _pack(self, buffer: str, rank: dict[str, int]) -> Pack:
        layout: list[PackedAxis] = []
        for axis in range(rank[buffer]):
            if self.draw(st.booleans()):
                factor = self.draw(st.integers(1, 4))
                layout += [PackedAxis(axis, "block", factor), PackedAxis(axis, "place", factor)]
            else:
                layout.append(PackedAxis(axis))
        return Pack(buffer, self._fresh(buffer), tuple(self.draw(st.permutations(layout))))
