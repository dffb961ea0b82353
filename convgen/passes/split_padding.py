"""split_padding: a copy with padding becomes a copy without tests, and what lies outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.affine import affine
from convgen.ir.build import add, ceildiv, continued, maximum, minimum, mul, sub
from convgen.ir.nodes import Const, For, If, Index, Int, Less, Load, PaddedLoad, Program, Stmt, Store, Var
from convgen.ir.rewrite import perfect_nest, rewrite_named, substitute_block, variables
from convgen.ir.types import compute_dtype


@dataclass(frozen=True)
class SplitPadding:
    """for v in E: y[v] = padded[zeros] x[v - p]  →  for v_fill in E: y[v_fill] = 0
                                                     for v in I: y[v + p] = x[v]   for the I that lie inside x

    ``nest`` is the first loop of a nest around the copy; ``axes`` are the axes of x along which it may be left. Those that move
    with a loop of the nest shorten it, others become guards. With a mode that is not zeros the first nest runs over what is
    outside along ``nest`` alone, and copies what the mode names; indices along other axes are remapped.

    Requires: a perfect nest around one padded copy, whose indices along ``axes`` move with one loop of the nest each, forwards,
    or with none; with a mode that is not zeros by 1. Ensures: no padded load remains in it; every element is stored at least
    once, the last time as before.
    """

    nest: str
    axes: tuple[int, ...]

    def __call__(self, program: Program) -> Program:
        return rewrite_named(program, self.nest, lambda loop: _Copy.collect(program, loop).split(self.axes))


@dataclass(frozen=True)
class _Copy:
    """A nest around a padded copy; ``shape`` is that of what is read, ``zero`` a zero of its type."""

    nest: tuple[For, ...]
    store: Store
    load: PaddedLoad
    shape: tuple[Index, ...]
    zero: Const

    @staticmethod
    def collect(program: Program, loop: For) -> _Copy:
        nest, body = perfect_nest((loop,))
        match body:
            case (Store(_, _, PaddedLoad() as load) as store,):
                source = program.buffer(load.buffer)
                return _Copy(nest, store, load, source.shape, Const(0.0, compute_dtype(source.dtype)))
            case _:
                raise IRError(f"loop {loop.var} is not a perfect nest around one padded copy")

    def split(self, axes: tuple[int, ...]) -> tuple[Stmt, ...]:
        moving = {axis: var for axis in axes if (var := self._loop_of(axis)) is not None}
        if self.load.mode == "zeros":
            return self._with_zeros(axes, moving)
        return self._with_borders(axes, {axis: var for axis, var in moving.items() if var == self.nest[0].var})

    def _loop_of(self, axis: int) -> str | None:
        """The loop of the nest that moves along the axis."""
        index = self.load.index[axis]
        found = [loop.var for loop in self.nest if loop.var in variables(index)]
        if not found:
            return None
        step = affine(index).coefficient(Var(found[0]))
        if len(found) > 1 or step < 1 or (step > 1 and self.load.mode != "zeros"):
            raise IRError(f"{self.load.buffer} is not read in steps of one loop along axis {axis}")
        return found[0]

    def _inside(self, moving: Mapping[int, str]) -> dict[str, tuple[Index, Index]]:
        """For each loop the part, from first to end, that reads inside."""
        parts: dict[str, tuple[Index, Index]] = {}
        for axis, var in moving.items():
            extent = next(loop.extent for loop in self.nest if loop.var == var)
            form = affine(self.load.index[axis])
            offset, step = form.without(Var(var)).index(), form.coefficient(Var(var))
            first = minimum(maximum(ceildiv(sub(0, offset), step), 0), extent)
            parts[var] = first, maximum(minimum(ceildiv(sub(self.shape[axis], offset), step), extent), first)
        return parts

    def _with_zeros(self, axes: tuple[int, ...], moving: Mapping[int, str]) -> tuple[Stmt, ...]:
        copy = self._copied(self._inside(moving), Load(self.load.buffer, self.load.index))
        for axis in axes:
            if axis not in moving:
                index = self.load.index[axis]
                copy = (If(Less(Int(-1), index), (If(Less(index, self.shape[axis]), copy),)),)
        fill = {loop.var: Var(f"{loop.var}_fill") for loop in self.nest}
        return (*self._loops(self.zero, {}, fill, dict(fill)), *copy)

    def _with_borders(self, axes: tuple[int, ...], moving: Mapping[int, str]) -> tuple[Stmt, ...]:
        parts = self._inside(moving)
        copy = self._copied(parts, self._mapped(tuple(axis for axis in axes if axis not in moving)))
        if not parts:
            return copy
        fill = {loop.var: Var(f"{loop.var}_fill") for loop in self.nest}
        ((var, (first, end)),) = parts.items()
        # Borders are numbered from the left; those on the right come after what is inside.
        right = minimum(maximum(sub(add(fill[var], 1), first), 0), 1)
        places: dict[str, Index] = {**fill, var: add(fill[var], mul(right, sub(end, first)))}
        outside = sub(self.nest[0].extent, sub(end, first))
        return (*self._loops(self._mapped(axes), {var: outside}, fill, places), *copy)

    def _mapped(self, axes: tuple[int, ...]) -> Load:
        pairs = enumerate(zip(self.load.index, self.shape, strict=True))
        mode = self.load.mode
        return Load(self.load.buffer, tuple(continued(i, n, mode) if axis in axes else i for axis, (i, n) in pairs))

    def _copied(self, parts: Mapping[str, tuple[Index, Index]], load: Load) -> tuple[Stmt, ...]:
        extents = {var: sub(end, first) for var, (first, end) in parts.items()}
        return self._loops(load, extents, {}, {var: add(var, first) for var, (first, _) in parts.items()})

    def _loops(
        self,
        value: Const | Load,
        extents: Mapping[str, Index],
        names: Mapping[str, Var],
        places: Mapping[str, Index],
    ) -> tuple[Stmt, ...]:
        """The nest around a store of ``value``, loops renamed and of other extents, their variables replaced by places."""
        body: tuple[Stmt, ...] = substitute_block((replace(self.store, value=value),), places)
        for loop in reversed(self.nest):
            name = names.get(loop.var, Var(loop.var)).name
            body = (For(name, extents.get(loop.var, loop.extent), body, loop.kind),)
        return body
