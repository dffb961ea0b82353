"""The images of a nest as direct wants them: channels last and padded, results turned back where they must be."""

from __future__ import annotations

from convgen.ir.nodes import Int, Var
from convgen.nests.build import SUMS
from convgen.nests.nest import Nest, axis_letters, pad_mode, spatial_axes
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.fuse_epilogue import FuseEpilogue
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.relayout import Relayout
from convgen.passes.transpose_blocks import TransposeBlocks
from convgen.passes.unpack import Unpack
from convgen.spec import ConvSpec
from convgen.strategies.boxes import kept_steps
from convgen.strategies.copies import PaddedCopy
from convgen.strategies.dots import dot_of
from convgen.strategies.widening import wide_dtype
from convgen.tuning.space import Config

# So many channels are broadcast from wherever they lie.
FEW_CHANNELS = 4


def image_labels(spec: ConvSpec, has_groups: bool, has_channels: bool) -> tuple[str, ...]:
    """What the axes of an image buffer are called, in the order of the problem's layout."""
    channels = (*(("g",) if has_groups else ()), *(("c",) if has_channels else ()))
    letters = tuple(axis_letters(spec.ndim))
    return ("n", *channels, *letters) if spec.layout == "channels_first" else ("n", *letters, *channels)


def channels_last_order(spec: ConvSpec, rank: int) -> tuple[int, ...]:
    """The axes of an image buffer of the problem's layout in the order batch, spatial, channels."""
    if spec.layout == "channels_last":
        return tuple(range(rank))
    spatial = tuple(range(rank - spec.ndim, rank))
    return (0, *spatial, *range(1, rank - spec.ndim))


def vector_order(spec: ConvSpec, nest: Nest) -> tuple[int, ...]:
    """The order of the source's axes where vectors run along its channels: these last, or the groups if they are the lanes."""
    order = channels_last_order(spec, len(nest.program.buffer(nest.source).shape))
    if not nest.channels.has_made and nest.channels.has_reduced:
        return (*order[:-2], order[-1], order[-2])
    return order


def terms_lanes(config: Config) -> int:
    """How many reduced channels lie along the lanes; 0 where made channels do."""
    return config.get("terms", 0)


def source_order(spec: ConvSpec, nest: Nest, config: Config) -> tuple[int, ...]:
    """The same, but where elements of the source are broadcast: nothing is gained by turning a few channels."""
    channels, order = nest.channels, vector_order(spec, nest)
    if terms_lanes(config) or dot_of(config) > 1:
        return order
    if channels.has_made and not channels.has_groups and channels.reduced <= FEW_CHANNELS:
        return tuple(range(len(order)))
    return order


def source_copy(
    spec: ConvSpec, nest: Nest, order: tuple[int, ...], dot: int = 1, *, always: bool = False, gapless: bool = False
) -> PaddedCopy | None:
    """How the source is copied; None where it is neither padded nor in another order, unless a copy is made ``always``. Its
    channels, the last axis, are rounded up to a multiple of ``dot``. Positions that no window reads are left out where they can
    be, unless it is ``gapless``."""
    shape = nest.program.buffer(nest.source).shape
    if not always and order == tuple(range(len(shape))) and not any(nest.low) and not any(nest.high):
        return None
    low, extents = [0] * len(shape), list(shape)
    letters = axis_letters(spec.ndim)
    spatial = spatial_axes(spec, len(shape))
    for axis, before, letter in zip(spatial, nest.low, letters, strict=True):
        low[axis], extents[axis] = before, Var(f"P{letter.upper()}")
    axes = tuple(axis for axis, before, after in zip(spatial, nest.low, nest.high, strict=True) if before or after)
    if nest.channels.reduced % dot:
        extents[order[-1]] = Int(-(-nest.channels.reduced // dot) * dot)
        axes = tuple(sorted((*axes, order[-1])))
    labels = image_labels(spec, nest.channels.has_groups, nest.channels.has_reduced)
    # What is turned in squares keeps its type.
    turned = order[-1] != len(order) - 1
    dtype = spec.dtype if turned else wide_dtype(spec, dot)
    steps = [1] * len(shape)
    for axis, letter, step in zip(spatial, letters, kept_steps(spec), strict=True):
        if step > 1 and not gapless:
            steps[axis], extents[axis] = step, Var(f"O{letter.upper()}")
    return PaddedCopy(
        nest.source, order, tuple(low), tuple(extents), axes, pad_mode(spec), labels, letters[-1], dtype, tuple(steps)
    )


def source_passes(
    spec: ConvSpec,
    nest: Nest,
    square: int,
    order: tuple[int, ...],
    dot: int = 1,
    *,
    always: bool = False,
    gapless: bool = False,
) -> tuple[Pass, ...]:
    """Copies the whole source where it must be padded or brought into another order; else reads it in place, but ``always``."""
    copy = source_copy(spec, nest, order, dot, always=always, gapless=gapless)
    if copy is None:
        return (ExpandPadding(((nest.source, ()),)),)
    return copy.of_whole_image(square)


def keeps_result_apart(spec: ConvSpec, nest: Nest) -> bool:
    """Whether results are collected channels-last and turned at the end."""
    return spec.layout == "channels_first" and nest.program.buffer(nest.result).space == "result"


def unpacked_loops(spec: ConvSpec, nest: Nest) -> tuple[str, str]:
    """The loops of the copy of the result along its channels and along its width; the same where there are no channels."""
    labels = image_labels(spec, nest.channels.has_groups, nest.channels.has_made)
    channel = labels[channels_last_order(spec, len(labels))[-1]]
    return f"unpacked_{channel}", f"unpacked_{labels[-1]}"


def result_parts(spec: ConvSpec, nest: Nest) -> tuple[Pass, ...]:
    """Fuses the epilogue; channels_first results are collected in a buffer ``unpacked``, a stage turns them."""
    program = nest.program
    order = channels_last_order(spec, len(program.buffer(nest.result).shape))
    passes: list[Pass] = []
    if program.has_buffer(SUMS):
        passes.append(FuseEpilogue("epilogue", SUMS))
    if spec.layout == "channels_last":
        return tuple(passes)
    labels = image_labels(spec, nest.channels.has_groups, nest.channels.has_made)
    if not keeps_result_apart(spec, nest):
        passes.append(Relayout(nest.result, order))
        return tuple(passes)
    if "residual" in spec.epilogue.steps:
        named = tuple(labels[axis] for axis in order)
        passes.append(Pack("residual", "residual_last", tuple(map(PackedAxis, order)), "workspace", named))
    return (*passes, Unpack(nest.result, "unpacked", order, labels))


def turning_passes(nest: str, channel: str, width: str, square: int) -> tuple[Pass, ...]:
    """A whole image copied in squares of channels and pixels."""
    return () if channel == width else (TransposeBlocks(nest, channel, width, square),)


def turned_loop(channel: str, width: str) -> tuple[str, ...]:
    """The loop over blocks of channels of a copy in squares."""
    return () if channel == width else (f"{channel}_block",)


def result_passes(spec: ConvSpec, nest: Nest, square: int) -> tuple[Pass, ...]:
    """The result's parts, where whole images are turned after all is computed."""
    passes = list(result_parts(spec, nest))
    if nest.program.buffer(nest.result).space == "workspace":
        folds = [stage.name for stage in nest.program.stages if stage.name.startswith("fold")]
        passes += [Parallelize(name, ("i0",)) for name in folds]
    if keeps_result_apart(spec, nest):
        passes += residual_passes(spec, nest, square)
        channel, width = unpacked_loops(spec, nest)
        passes += turning_passes("unpacked_n", channel, width, square)
        passes.append(Parallelize("unpack", ("unpacked_n", *turned_loop(channel, width))))
    return tuple(passes)


def residual_passes(spec: ConvSpec, nest: Nest, square: int) -> tuple[Pass, ...]:
    """The copy of a channels_first residual, in squares."""
    if "residual" not in spec.epilogue.steps:
        return ()
    channel, width = (name.replace("unpacked", "residual_last") for name in unpacked_loops(spec, nest))
    return (
        *turning_passes("residual_last_n", channel, width, square),
        Parallelize("pack_residual", ("residual_last_n", *turned_loop(channel, width))),
    )
