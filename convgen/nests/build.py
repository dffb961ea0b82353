"""The naive program of a problem in any direction, layout and number of dimensions."""

from __future__ import annotations

from convgen.dtypes import DTYPES
from convgen.ir.build import add, mul, sub
from convgen.ir.nodes import (
    Alloc,
    Buffer,
    Const,
    Fma,
    Index,
    Int,
    Load,
    PaddedLoad,
    Program,
    Space,
    Stage,
    Store,
    Value,
    Var,
)
from convgen.nests.classes import AxisClass, gather_classes
from convgen.nests.epilogue import epilogue_buffers, epilogue_stage
from convgen.nests.fold import FoldedAxis, fold
from convgen.nests.nest import (
    Channels,
    Nest,
    axis_letters,
    channel_loops,
    group_axis,
    image_buffer,
    image_index,
    loops_around,
    made_axis,
    pad_mode,
    reduced_axis,
    spatial_axes,
)
from convgen.spec import ConvSpec

SUMS = "sums"


def build_nest(spec: ConvSpec, *, keeps_made: bool = False) -> Nest:
    """The naive program: one accumulator a result element, summed over taps and channels in order.

    Stages are called ``conv`` (with a number per residue class where the result is written with a stride), ``epilogue`` and
    ``fold_*`` (the adjoint of a padding mode). With ``keeps_made`` results have an axis of made channels even if it is one.
    """
    match spec.direction:
        case "backward_weights":
            return _weight_gradient(spec)
        case "backward_data" if spec.padding_mode != "zeros":
            return _folded_data_gradient(spec, keeps_made=keeps_made)
        case _:
            return _gather(spec, keeps_made=keeps_made)


def _gather(spec: ConvSpec, result_space: Space = "result", *, keeps_made: bool) -> Nest:
    """Forward and data-gradient problems."""
    channels = Channels(spec.groups, spec.reduced_channels, spec.made_channels, keeps_made)
    letters = axis_letters(spec.ndim)
    forward = spec.direction == "forward"
    source, result = ("input", "output") if forward else ("grad_output", "grad_input")
    source_size, result_size = spec.spatial_size, spec.output_size
    if not forward:
        source_size, result_size = result_size, source_size
    dtype = DTYPES[spec.dtype]
    group = group_axis(channels, Int(channels.groups))
    made = made_axis(channels, Var("OC"))
    reads, writes = tuple(f"I{c.upper()}" for c in letters), tuple(f"O{c.upper()}" for c in letters)
    image = image_buffer(
        spec, source, spec.dtype, (*group, *reduced_axis(channels, Int(channels.reduced))), reads, "operand"
    )
    weight = Buffer(
        "weight",
        spec.dtype,
        weight_index(spec, channels, Int(channels.groups), Var("OC"), Int(channels.reduced), _taps(spec)),
        "operand",
    )
    operands = (image, weight, *(epilogue_buffers(spec, channels) if forward else ()))
    has_epilogue = bool(spec.epilogue.steps)
    stored = image_buffer(spec, result, spec.result_dtype, (*group, *made), writes, result_space)
    sums = image_buffer(spec, SUMS, dtype.accumulator, (*group, *made), writes, "workspace")
    classes = gather_classes(spec)
    many = len(classes) > 1
    stages = tuple(
        _gather_stage(spec, channels, f"conv{i}" if many else "conv", axes, (source, SUMS if has_epilogue else result))
        for i, axes in enumerate(classes)
    )
    if has_epilogue:
        stages += (epilogue_stage(spec, channels, SUMS, result),)
    buffers = (*operands, stored, *((sums,) if has_epilogue else ()))
    sizes = {"N": spec.batch}
    sizes |= dict(zip(reads, source_size, strict=True)) | dict(zip(writes, result_size, strict=True))
    sizes["OC"] = channels.made
    low = tuple(max(0, -min((axes[a].lowest for axes in classes), default=0)) for a in range(spec.ndim))
    high = tuple(
        max(0, max((axes[a].highest for axes in classes), default=0) - source_size[a] + 1) for a in range(spec.ndim)
    )
    sizes |= _padded_sizes(letters, source_size, low, high)
    program = Program("conv", tuple(sizes), buffers, stages)
    return Nest(program, sizes, channels, source, result, low, high)


def _padded_sizes(letters: str, size: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> dict[str, int]:
    """PD, PH, PW: the source's sizes with all that is read around it."""
    return {f"P{c.upper()}": lo + n + hi for c, n, lo, hi in zip(letters, size, low, high, strict=True)}


def _taps(spec: ConvSpec) -> tuple[Index, ...]:
    return tuple(map(Int, spec.kernel_size))


def weight_index(
    spec: ConvSpec, channels: Channels, g: Index, made: Index, reduced: Index, taps: tuple[Index, ...]
) -> tuple[Index, ...]:
    """An index into the weights, or their shape: (out, in/groups, *kernel), transposed (in, out/groups, *kernel)."""
    made_part, reduced_part = made_axis(channels, made), reduced_axis(channels, reduced)
    made_first = spec.transposed == (spec.direction == "backward_data")
    pair = (*made_part, *reduced_part) if made_first else (*reduced_part, *made_part)
    return (*group_axis(channels, g), *pair, *taps)


def weight_axes(spec: ConvSpec, channels: Channels) -> dict[str, int]:
    """Which axis of the weights the loops ``g``, ``oc`` and ``ic`` run along, where there are such axes; the taps come last."""
    index = weight_index(spec, channels, Var("g"), Var("oc"), Var("ic"), ())
    return {part.name: axis for axis, part in enumerate(index) if isinstance(part, Var)}


def _gather_stage(
    spec: ConvSpec, channels: Channels, name: str, axes: tuple[AxisClass, ...], buffers: tuple[str, str]
) -> Stage:
    """One residue class. What differs between classes of as many taps is bound per stage, so that they share a kernel."""
    source, result = buffers
    letters = axis_letters(spec.ndim)
    bound = name != "conv"
    bindings: list[tuple[str, Index]] = []

    def size(label: str, value: int) -> Index:
        if not bound:
            return Int(value)
        bindings.append((label, Int(value)))
        return Var(label)

    pixels: list[tuple[str, Index]] = []
    source_index: list[Index] = []
    result_index: list[Index] = []
    taps: list[Index] = []
    for letter, axis in zip(letters, axes, strict=True):
        pixel, tap = Var(f"o{letter}"), Var(f"k{letter}")
        count = size(f"count_{letter}", axis.count) if bound else Var(f"O{letter.upper()}")
        pixels.append((pixel.name, count))
        offset = size(f"offset_{letter}", axis.offset)
        source_index.append(add(mul(pixel, axis.source_step), mul(tap, axis.tap_source_step), offset))
        result_index.append(add(mul(pixel, axis.step), size(f"start_{letter}", axis.start)))
        taps.append(add(mul(tap, axis.tap_step), size(f"tap_{letter}", axis.first_tap)))
    g, oc, ic = Var("g"), Var("oc"), Var("ic")
    dtype = DTYPES[spec.dtype].accumulator
    read = image_index(spec, Var("n"), (*group_axis(channels, g), *reduced_axis(channels, ic)), tuple(source_index))
    image: Value = PaddedLoad(source, read, pad_mode(spec))
    weight = Load("weight", weight_index(spec, channels, g, oc, ic, tuple(taps)))
    reduction = tuple((f"k{letter}", Int(axis.taps)) for letter, axis in zip(letters, axes, strict=True))
    if channels.has_reduced:
        reduction += (("ic", Int(channels.reduced)),)
    place = image_index(spec, Var("n"), (*group_axis(channels, g), *made_axis(channels, oc)), tuple(result_index))
    update = Store("acc", (), Fma(image, weight, Load("acc", ())))
    body = (
        Store("acc", (), Const(0.0, dtype)),
        *loops_around((update,), reduction),
        Store(result, place, Load("acc", ())),
    )
    alloc = Alloc(Buffer("acc", dtype, (), "register"), body)
    return Stage(name, loops_around((alloc,), (("n", Var("N")), *pixels, *channel_loops(channels))), tuple(bindings))


def unfolded_problem(spec: ConvSpec) -> ConvSpec:
    """The problem whose residue classes are computed: a data gradient under a padding mode is that of the padded image."""
    if spec.direction != "backward_data" or spec.padding_mode == "zeros":
        return spec
    padded = tuple(lo + size + hi for (lo, hi), size in zip(spec.padding, spec.spatial_size, strict=True))
    return spec.replace(padding=0, padding_mode="zeros", spatial_size=padded)


def _folded_data_gradient(spec: ConvSpec, *, keeps_made: bool) -> Nest:
    """The data gradient under a padding mode: that of the padded image, folded back."""
    letters = axis_letters(spec.ndim)
    inner = _gather(unfolded_problem(spec), "workspace", keeps_made=keeps_made)
    channels = inner.channels
    names = tuple(f"F{letter.upper()}" for letter in letters)
    group, made = group_axis(channels, Int(channels.groups)), made_axis(channels, Var("OC"))
    result = image_buffer(spec, "folded", DTYPES[spec.dtype].result, (*group, *made), names, "result")
    sizes = dict(inner.sizes) | dict(zip(names, spec.spatial_size, strict=True))
    program = inner.program
    unfolded = tuple(
        Buffer(b.name, DTYPES[spec.dtype].accumulator, b.shape, "workspace") if b.name == inner.result else b
        for b in program.buffers
    )
    axes = tuple(
        FoldedAxis(axis, lo, hi, Var(name), spec.padding_mode)
        for axis, (lo, hi), name in zip(spatial_axes(spec, len(result.shape)), spec.padding, names, strict=True)
    )
    operands = tuple(b for b in unfolded if b.space == "operand")
    others = tuple(b for b in unfolded if b.space != "operand")
    program = Program(program.name, tuple(sizes), (*operands, result, *others), program.stages)
    folded = fold(program, inner.result, "folded", axes)
    return Nest(folded, sizes, channels, inner.source, inner.result, inner.low, inner.high)


def _weight_gradient(spec: ConvSpec) -> Nest:
    """dw[made, reduced, tap] = sum over n, pixels of plain[n, pixel, .] * padded[n, pixel * stride + tap * dilation - low, .]

    The plain image is the one with a pixel per window: the output's gradient, or the input of a transposed convolution.
    """
    letters = axis_letters(spec.ndim)
    plain, source = ("input", "grad_output") if spec.transposed else ("grad_output", "input")
    channels = Channels(spec.groups, spec.reduced_channels, spec.made_channels)
    plain_size, source_size = spec.output_size, spec.spatial_size
    if spec.transposed:
        plain_size, source_size = source_size, plain_size
    g, oc, ic = Var("g"), Var("oc"), Var("ic")
    pixel = tuple(Var(f"o{letter}") for letter in letters)
    tap = tuple(Var(f"k{letter}") for letter in letters)
    reads, counts = tuple(f"I{c.upper()}" for c in letters), tuple(f"O{c.upper()}" for c in letters)
    group = group_axis(channels, Int(channels.groups))
    images = {
        source: image_buffer(
            spec, source, spec.dtype, (*group, *reduced_axis(channels, Int(channels.reduced))), reads, "operand"
        ),
        plain: image_buffer(spec, plain, spec.dtype, (*group, *made_axis(channels, Var("OC"))), counts, "operand"),
    }

    def gradient_index(group: Index, made: Index, reduced: Index, taps: tuple[Index, ...]) -> tuple[Index, ...]:
        return (*group_axis(channels, group), *made_axis(channels, made), *reduced_axis(channels, reduced), *taps)

    shape = gradient_index(Int(channels.groups), Var("OC"), Int(channels.reduced), _taps(spec))
    result = Buffer("grad_weight", DTYPES[spec.dtype].result, shape, "result")
    dtype = DTYPES[spec.dtype].accumulator
    position = tuple(
        sub(add(mul(p, stride), mul(t, dilation)), low)
        for p, t, stride, dilation, (low, _) in zip(pixel, tap, spec.stride, spec.dilation, spec.padding, strict=True)
    )
    padded: Value = PaddedLoad(
        source,
        image_index(spec, Var("n"), (*group_axis(channels, g), *reduced_axis(channels, ic)), position),
        pad_mode(spec),
    )
    other = Load(plain, image_index(spec, Var("n"), (*group_axis(channels, g), *made_axis(channels, oc)), pixel))
    reduction = (("n", Var("N")), *((p.name, Var(count)) for p, count in zip(pixel, counts, strict=True)))
    update = Store("acc", (), Fma(padded, other, Load("acc", ())))
    body = (
        Store("acc", (), Const(0.0, dtype)),
        *loops_around((update,), reduction),
        Store("grad_weight", gradient_index(g, oc, ic, tap), Load("acc", ())),
    )
    alloc = Alloc(Buffer("acc", dtype, (), "register"), body)
    outer_loops = tuple((t.name, Int(k)) for t, k in zip(tap, spec.kernel_size, strict=True))
    if channels.has_reduced:
        reduced_loop: tuple[tuple[str, Index], ...] = (("ic", Int(channels.reduced)),)
    else:
        reduced_loop = ()
    stage = Stage("conv", loops_around((alloc,), (*outer_loops, *channel_loops(channels), *reduced_loop)))
    sizes = {
        "N": spec.batch,
        **dict(zip(reads, source_size, strict=True)),
        **dict(zip(counts, plain_size, strict=True)),
    }
    sizes["OC"] = channels.made
    highest = tuple(
        (count - 1) * stride + (k - 1) * dilation - low - size + 1
        for count, stride, k, dilation, (low, _), size in zip(
            plain_size, spec.stride, spec.kernel_size, spec.dilation, spec.padding, source_size, strict=True
        )
    )
    low, high = tuple(max(0, lo) for lo, _ in spec.padding), tuple(max(0, h) for h in highest)
    sizes |= _padded_sizes(letters, source_size, low, high)
    program = Program("conv", tuple(sizes), (images["input"], images["grad_output"], result), (stage,))
    return Nest(program, sizes, channels, source, "grad_weight", low, high)
