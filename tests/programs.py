"""Random small programs with integer operands: affine loop nests and naive convolutions of every kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from convgen.dtypes import DTYPES
from convgen.errors import SpecError
from convgen.ir.build import add, mul
from convgen.ir.interp import buffer_shape, interpret
from convgen.ir.nodes import (
    Alloc,
    Arith,
    Buffer,
    Const,
    Fma,
    For,
    Index,
    Int,
    Load,
    PaddedLoad,
    PaddingMode,
    Program,
    Stage,
    Stmt,
    Store,
    Value,
    Var,
    Where,
)
from convgen.ir.rewrite import reads
from convgen.nests.build import build_nest
from convgen.spec import ConvSpec

PADDING_MODES: tuple[PaddingMode, ...] = get_args(PaddingMode)


@dataclass(frozen=True)
class PadRange:
    """What a copy of a buffer must hold for all its padded reads to fall inside."""

    low: tuple[int, ...]
    extents: tuple[Index, ...]
    mode: PaddingMode


@dataclass(frozen=True)
class Sample:
    """A program with values for its sizes and operands; ``pads`` says how far padded reads leave a buffer."""

    program: Program
    sizes: Mapping[str, int]
    operands: Mapping[str, np.ndarray]
    pads: Mapping[str, PadRange] = field(default_factory=dict)

    def results(self, program: Program, shuffle: int | None = None) -> dict[str, np.ndarray]:
        """What ``program`` leaves in its result buffers; ``shuffle`` seeds the order of parallel iterations."""
        order = None if shuffle is None else np.random.default_rng(shuffle)
        memory = interpret(program, self.sizes, self.operands, shuffle=order)
        return {buffer.name: memory[buffer.name] for buffer in program.buffers if buffer.space == "result"}


def random_operands(program: Program, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Integers from -3 to 3, in unsigned types from 0, for every operand: sums of their products are exact in every type."""
    rng = np.random.default_rng(seed)
    return {
        buffer.name: rng.integers(0 if buffer.dtype == "uint8" else -3, 4, buffer_shape(buffer, sizes)).astype(
            DTYPES[buffer.dtype].numpy
        )
        for buffer in program.buffers
        if buffer.space == "operand"
    }


# ---- affine nests


@dataclass(frozen=True)
class _Loops:
    """The loops of a random nest: (name, extent in the program, value of the extent)."""

    made: tuple[tuple[str, Index, int], ...]
    reduced: tuple[tuple[str, Index, int], ...]

    @property
    def values(self) -> dict[str, int]:
        return {name: value for name, _, value in (*self.made, *self.reduced)}

    @property
    def extents(self) -> dict[str, Index]:
        return {name: extent for name, extent, _ in (*self.made, *self.reduced)}


@dataclass(frozen=True)
class _Axis:
    """One axis of a random access: its index, the range of the index, and how long the buffer is."""

    index: Index
    low: int
    width: int
    extent: Index


@st.composite
def _loops(draw: st.DrawFn) -> _Loops:
    def loop(name: str, most: int) -> tuple[str, Index, int]:
        value = draw(st.integers(1, most))
        return name, Var(f"E{name}") if draw(st.booleans()) else Int(value), value

    names = ("i", "j", "l")[-draw(st.integers(1, 3)) :]
    made = tuple(loop(name, 7 if name == "l" else 4) for name in names)
    return _Loops(made, tuple(loop(name, 3) for name in ("r", "s")[: draw(st.integers(0, 2))]))


@st.composite
def _axis(draw: st.DrawFn, loops: _Loops, names: Sequence[str], *, lane: bool, mode: PaddingMode | None) -> _Axis:
    """An affine index of up to two loops, or of the vector lane alone; with a mode it may leave the buffer."""
    if lane:
        chosen: tuple[tuple[str, int], ...] = (("l", 1),)
    else:
        picked = draw(st.lists(st.sampled_from(names), max_size=2, unique=True)) if names else []
        chosen = tuple((name, draw(st.sampled_from((1, 1, 2, -1)))) for name in picked)
    values = loops.values
    spans = [factor * (values[name] - 1) for name, factor in chosen]
    width = 1 + sum(map(abs, spans))
    start = -sum(min(span, 0) for span in spans)
    if mode is None and len(chosen) == 1 and chosen[0][1] == 1 and draw(st.booleans()):
        name = chosen[0][0]
        return _Axis(Var(name), 0, width, loops.extents[name])
    below, above = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    if mode is None:
        low, extent = below, below + width + above
    else:
        low, extent = -below, max(width - below - above, 1 + max(below, above))
    index = add(*(mul(name, factor) for name, factor in chosen), start + low)
    return _Axis(index, low, width, Int(extent))


@st.composite
def _axes(draw: st.DrawFn, loops: _Loops, mode: PaddingMode | None) -> tuple[_Axis, ...]:
    """The axes of one access; usually one that a vector over l can follow."""
    friendly = draw(st.integers(0, 3)) > 0
    names = [name for name in loops.values if not (friendly and name == "l")]
    axes = [draw(_axis(loops, names, lane=False, mode=mode)) for _ in range(draw(st.integers(1, 2)))]
    if friendly and draw(st.booleans()):
        axes.append(draw(_axis(loops, names, lane=True, mode=mode)))
    return tuple(axes)


def _nest(body: tuple[Stmt, ...], loops: Sequence[tuple[str, Index, int]]) -> tuple[Stmt, ...]:
    for name, extent, _ in reversed(loops):
        body = (For(name, extent, body),)
    return body


@st.composite
def _epilogue(draw: st.DrawFn, loops: _Loops, sums: Buffer, dtype: str) -> tuple[Stage, tuple[Buffer, ...]]:
    """out[...] = f(sums[...], bias[...]) with loops of its own."""
    extents = dict(zip((name for name, _, _ in loops.made), sums.shape, strict=True))
    axes = tuple(f"{name}_out" for name in extents)
    order = draw(st.permutations(range(len(axes))))
    biased = draw(st.sampled_from(range(len(axes))))
    out = Buffer("out", DTYPES[dtype].result, tuple(sums.shape[axis] for axis in order), "result")
    bias = Buffer("bias", DTYPES[dtype].result, (sums.shape[biased],), "operand")
    x: Value = Arith("+", Load("sums", tuple(map(Var, axes))), Load("bias", (Var(axes[biased]),)))
    accumulator = DTYPES[dtype].accumulator
    if draw(st.booleans()):
        x = Where(x, Arith("*", x, Const(2.0, accumulator)), x)
    else:
        x = Arith("max", x, Const(0.0, accumulator))
    store: tuple[Stmt, ...] = (Store("out", tuple(Var(axes[axis]) for axis in order), x),)
    nest = _nest(store, [(axis, extent, 0) for axis, extent in zip(axes, sums.shape, strict=True)])
    return Stage("epilogue", nest), (bias, out)


@st.composite
def affine_samples(draw: st.DrawFn, epilogue: bool | None = None) -> Sample:
    """y[...] = sum of x[affine] * w[affine] over 0 to 2 loops, or x + w; perhaps with an epilogue."""
    loops: _Loops = draw(_loops())
    dtype = draw(st.sampled_from(("float32", "int8", "float16")))
    accumulator, result = DTYPES[dtype].accumulator, DTYPES[dtype].result
    mode = draw(st.sampled_from((None, *PADDING_MODES)))
    x, w = draw(_axes(loops, mode)), draw(_axes(loops, None))
    x_index, w_index = tuple(axis.index for axis in x), tuple(axis.index for axis in w)
    read_x: Value = Load("x", x_index) if mode is None else PaddedLoad("x", x_index, mode)
    read_w = Load("w", w_index)
    shape = tuple(extent for _, extent, _ in loops.made)
    place: tuple[Index, ...] = tuple(Var(name) for name, _, _ in loops.made)
    buffers = [
        Buffer("x", dtype, tuple(axis.extent for axis in x), "operand"),
        Buffer("w", dtype, tuple(axis.extent for axis in w), "operand"),
    ]
    fused = epilogue if epilogue is not None else draw(st.booleans())
    stages: list[Stage] = []
    if fused:
        target = Buffer("sums", accumulator, shape, "workspace")
        last, more = draw(_epilogue(loops, target, dtype))
        buffers += [*more, target]
        stages.append(last)
    else:
        spread = draw(st.integers(1, 2))
        place = (mul(spread, place[0]), *place[1:])
        target = Buffer("y", result, (mul(spread, shape[0]), *shape[1:]), "result")
        buffers.append(target)
    accumulated = draw(st.booleans())
    if loops.reduced or accumulated:
        update = Store("acc", (), Fma(read_x, read_w, Load("acc", ())))
        start = Store("acc", (), Const(0.0, accumulator))
        finish = Store(target.name, place, Load("acc", ()))
        alloc = Alloc(Buffer("acc", accumulator, (), "register"), (start, *_nest((update,), loops.reduced), finish))
        body: Stmt = alloc
    else:
        body = Store(target.name, place, Arith("+", read_x, read_w))
    stages.insert(0, Stage("main", _nest((body,), loops.made)))
    sizes = {extent.name: loops.values[name] for name, extent in loops.extents.items() if isinstance(extent, Var)}
    program = Program("random", tuple(sizes), tuple(buffers), tuple(stages))
    pads = {}
    if mode is not None:
        pads["x"] = PadRange(tuple(-axis.low for axis in x), tuple(Int(axis.width) for axis in x), mode)
    return Sample(program, sizes, random_operands(program, sizes, draw(st.integers(0, 99))), pads)


# ---- convolutions


@st.composite
def conv_specs(draw: st.DrawFn, epilogue: bool | None = None) -> ConvSpec:
    """A convolution of at most a few hundred multiplications."""
    ndim = draw(st.sampled_from((1, 1, 2, 2, 3)))
    most = (0, 6, 3, 2)[ndim]
    fused = draw(st.booleans()) if epilogue is None else epilogue
    groups = draw(st.sampled_from((1, 1, 2)))
    widest = 1 if ndim == 3 else 2
    inner, outer = draw(st.integers(1, widest)), draw(st.integers(1, 4 // ndim))
    transposed = draw(st.booleans())

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(ndim))

    kernel, stride, dilation = each(1, 3 if ndim < 3 else 2), each(1, 3), each(1, 2)
    padding = tuple(zip(each(-1, 1), each(-1, 2), strict=True))
    try:
        return ConvSpec(
            batch=draw(st.integers(1, 2)),
            in_channels=groups * inner,
            out_channels=groups * outer,
            spatial_size=each(1, most),
            kernel_size=kernel,
            stride=stride,
            padding=padding if draw(st.booleans()) else 0,
            dilation=dilation if draw(st.booleans()) else 1,
            groups=groups,
            transposed=transposed,
            output_padding=tuple(min(1, s - 1) for s in stride) if transposed and draw(st.booleans()) else 0,
            padding_mode="zeros" if transposed else draw(st.sampled_from(("zeros", *PADDING_MODES))),
            direction="forward" if fused else draw(st.sampled_from(("forward", "backward_data", "backward_weights"))),
            layout=draw(st.sampled_from(("channels_first", "channels_last"))),
            dtype=draw(st.sampled_from(("float32", "int8"))),
            epilogue=("bias", "relu", "residual") if fused else (),
        )
    except SpecError:
        reject()


def conv_sample(spec: ConvSpec, seed: int = 0) -> Sample:
    """The naive nest of a convolution."""
    nest = build_nest(spec)
    image = nest.program.buffer(nest.source)
    spatial = [axis for axis, extent in enumerate(image.shape) if isinstance(extent, Var) and extent.name[0] == "I"]
    low = [0] * len(image.shape)
    extents = list(image.shape)
    for axis, below, above in zip(spatial, nest.low, nest.high, strict=True):
        low[axis], extents[axis] = below, add(below, image.shape[axis], above)
    padded = (read for stage in nest.program.stages for read in reads(stage.body) if isinstance(read, PaddedLoad))
    pads = {read.buffer: PadRange(tuple(low), tuple(extents), read.mode) for read in padded}
    return Sample(nest.program, nest.sizes, random_operands(nest.program, nest.sizes, seed), pads)


@st.composite
def samples(draw: st.DrawFn, epilogue: bool | None = None) -> Sample:
    """A random nest or a random convolution."""
    if draw(st.integers(0, 2)):
        return draw(affine_samples(epilogue))
    return conv_sample(draw(conv_specs(epilogue)), draw(st.integers(0, 99)))
