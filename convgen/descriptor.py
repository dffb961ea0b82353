"""The notation of oneDNN's benchdnn for convolution problems, read and written.

    g32mb1_ic64oc64_ih56oh28kh3sh2dh0ph1_n"name" layout=channels_last dtype=float64 epilogue=bias+relu

The part before the first space or comma is benchdnn's: groups, batch, channels, then per axis (d, h, w) the input and
output size, kernel, stride, dilation (0 is undilated) and left padding; a name is read over. benchdnn's defaults hold:
mb2, g1, stride 1; an axis of which nothing is said copies the one before it (``ih56kh3`` is square, ``iw56kw3`` is 1D);
without an output size the padding is 0 and symmetric; without a padding it is the trivial one that gives the output
size; the right side follows from the output size and equals the left one if that gives the same output.

What benchdnn cannot say follows as ``key=value``, separated by spaces or commas, absent where it is the default:
layout, dtype, dir, transposed, padding_mode, padding (``1:2x0:0``, lo:hi per axis), output_padding (``1x0``),
epilogue (``bias+relu``), negative_slope, zero_point, accuracy.

Source: oneDNN, tests/benchdnn/doc/driver_conv.md and str2desc in tests/benchdnn/conv.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from convgen.errors import SpecError
from convgen.spec import ConvSpec, Epilogue

_AXES = "dhw"
_FIELD = re.compile(r"(g|mb|ic|oc|[iokspd][dhw])([0-9]+)_*")
_NAME = re.compile(r'n(?:"[^"]*"|[^\s,"]*)')
_OPTION = re.compile(r"[\s,]+([a-z_]+)=([^\s,=]*)")
_DEFAULT_BATCH = 2

_PLAIN_OPTIONS = {"layout": "layout", "dtype": "dtype", "dir": "direction", "padding_mode": "padding_mode"}
_OPTIONS = (
    *_PLAIN_OPTIONS,
    "transposed",
    "padding",
    "output_padding",
    "epilogue",
    "negative_slope",
    "zero_point",
    "accuracy",
)


@dataclass(frozen=True)
class _Axis:
    """One axis of a descriptor; ``output`` and ``padding`` are None where they are not given."""

    size: int
    kernel: int
    stride: int
    dilation: int
    output: int | None
    padding: int | None

    @property
    def reach(self) -> int:
        return self.dilation * (self.kernel - 1) + 1


def parse_descriptor(text: str) -> ConvSpec:
    """Returns the problem that ``text`` describes; raises SpecError (DTypeError for dtype) naming the part at fault."""
    if not isinstance(text, str):
        raise SpecError(f"descriptor {text!r} is not a string")
    fields, rest = _read_fields(text.strip())
    options = _read_options(text.strip(), rest)
    for name in ("ic", "oc"):
        if name not in fields:
            raise SpecError(f"descriptor {text!r} lacks {name}")
    axes = [_axis(text, letter, fields) for letter in _letters(text, fields)]
    if "padding" in options and any(axis.padding is not None for axis in axes):
        raise SpecError(f"descriptor {text!r} gives the padding twice, as a field and as padding={options['padding']}")
    try:
        spec = ConvSpec(
            batch=fields.get("mb", _DEFAULT_BATCH),
            in_channels=fields["ic"],
            out_channels=fields["oc"],
            groups=fields.get("g", 1),
            spatial_size=[axis.size for axis in axes],
            kernel_size=[axis.kernel for axis in axes],
            stride=[axis.stride for axis in axes],
            dilation=[axis.dilation for axis in axes],
            **_arguments(text, axes, options),
        )
    except SpecError as error:
        raise SpecError(f"descriptor {text!r} is not a valid problem: {error}") from None
    for letter, axis, computed in zip(_AXES[-len(axes) :], axes, spec.output_size, strict=True):
        if axis.output not in (None, computed):
            raise SpecError(f"descriptor {text!r} says o{letter}{axis.output}, but its other fields give {computed}")
    return spec


def format_descriptor(spec: ConvSpec) -> str:
    """Returns a short text from which ``parse_descriptor`` reads ``spec`` again."""
    axes = [
        _Axis(size, kernel, stride, dilation, output, max(0, lo))
        for size, kernel, stride, dilation, output, (lo, _) in zip(
            spec.spatial_size,
            spec.kernel_size,
            spec.stride,
            spec.dilation,
            spec.output_size,
            spec.padding,
            strict=True,
        )
    ]
    deduced = [_deduce(axis, spec.transposed) for axis in axes]
    said = deduced == list(zip(spec.padding, spec.output_padding, strict=True))
    groups = f"g{spec.groups}" if spec.groups != 1 else ""
    texts = []
    for letter, axis, pair in zip(_AXES[-spec.ndim :], axes, spec.padding, strict=True):
        texts.append((letter, _axis_fields(axis, with_padding=said and pair != (0, 0))))
    while len(texts) > 1 and texts[-1][1] == texts[-2][1]:
        texts.pop()
    parts = [f"{groups}mb{spec.batch}", f"ic{spec.in_channels}oc{spec.out_channels}"]
    parts += ["".join(f"{key}{letter}{value}" for key, value in fields) for letter, fields in texts]
    return " ".join(["_".join(parts), *_format_options(spec, with_padding=not said)])


def _read_fields(text: str) -> tuple[dict[str, int], int]:
    """Reads benchdnn's part; returns its fields and the position behind it."""
    fields: dict[str, int] = {}
    position = 0
    while position < len(text) and not text[position].isspace() and text[position] != ",":
        if match := _NAME.match(text, position):
            return fields, match.end()
        match = _FIELD.match(text, position)
        if match is None:
            raise SpecError(f"descriptor {text!r} cannot be read from {text[position : position + 20]!r} on")
        name, digits = match.groups()
        if name in fields:
            raise SpecError(f"descriptor {text!r} gives {name} more than once")
        try:
            fields[name] = int(digits)
        except ValueError:  # more digits than Python is willing to convert
            raise SpecError(f"descriptor field {name} has {len(digits)} digits") from None
        position = match.end()
    return fields, position


def _read_options(text: str, position: int) -> dict[str, str]:
    options: dict[str, str] = {}
    while position < len(text):
        match = _OPTION.match(text, position)
        if match is None:
            raise SpecError(f"descriptor {text!r} cannot be read from {text[position : position + 20]!r} on")
        name, value = match.groups()
        if name not in _OPTIONS:
            raise SpecError(f"descriptor {text!r} has the unknown key {name!r}; allowed: {', '.join(_OPTIONS)}")
        if name in options:
            raise SpecError(f"descriptor {text!r} gives {name} more than once")
        options[name] = value
        position = match.end()
    return options


def _letters(text: str, fields: dict[str, int]) -> str:
    """The letter whose fields each axis uses, "hh" for a square; benchdnn counts an axis of defaults as absent."""

    def is_present(letter: str) -> bool:
        sizes = any(fields.get(key + letter, 0) > 0 for key in "iokdp")
        return sizes or fields.get("s" + letter, 1) != 1

    match tuple(is_present(letter) for letter in _AXES):
        case (True, True, True):
            return "dhw"
        case (True, True, False):
            return "dhh"
        case (True, False, False):
            return "ddd"
        case (False, True, True):
            return "hw"
        case (False, True, False):
            return "hh"
        case (False, False, True):
            return "w"
        case (True, False, True):
            raise SpecError(f"descriptor {text!r} gives the axes d and w without h")
    raise SpecError(f"descriptor {text!r} gives no spatial axis, such as ih56kh3")


def _axis(text: str, letter: str, fields: dict[str, int]) -> _Axis:
    for key in "ik":
        if key + letter not in fields:
            raise SpecError(f"descriptor {text!r} lacks {key}{letter}")
    return _Axis(
        size=fields["i" + letter],
        kernel=fields["k" + letter],
        stride=fields.get("s" + letter, 1),
        dilation=fields.get("d" + letter, 0) + 1,
        output=fields.get("o" + letter) or None,
        padding=fields.get("p" + letter),
    )


def _deduce(axis: _Axis, transposed: bool) -> tuple[tuple[int, int], int]:
    """The (lo, hi) padding and output padding of an axis, preferring equal sides."""
    if axis.output is None:
        lo = axis.padding or 0
        return (lo, lo), 0
    if transposed:
        spare = (axis.size - 1) * axis.stride + axis.reach - axis.output
    else:
        spare = (axis.output - 1) * axis.stride + axis.reach - axis.size
    lo = max(0, spare) // 2 if axis.padding is None else axis.padding
    hi = spare - lo
    if transposed:
        extra = lo - hi
        return ((lo, lo), extra) if 0 <= extra < max(axis.stride, axis.dilation) else ((lo, hi), 0)
    return ((lo, lo), 0) if hi <= lo < hi + axis.stride else ((lo, hi), 0)


def _arguments(text: str, axes: list[_Axis], options: dict[str, str]) -> dict[str, Any]:
    """The keyword arguments of ConvSpec that come from the options or are deduced."""
    arguments: dict[str, Any] = {_PLAIN_OPTIONS[key]: value for key, value in options.items() if key in _PLAIN_OPTIONS}
    match options.get("transposed", "false"):
        case "true" | "false" as word:
            transposed = word == "true"
        case word:
            raise SpecError(f"transposed={word!r} is unknown; allowed: true, false")
    deduced = [_deduce(axis, transposed) for axis in axes]
    padding = [pair for pair, _ in deduced]
    output_padding = [extra for _, extra in deduced]
    if "padding" in options:
        padding = _pairs(text, options["padding"])
        output_padding = [0] * len(axes)
    if "output_padding" in options:
        output_padding = _integers(text, "output_padding", options["output_padding"].split("x"))
    if "output_padding" in options and "padding" not in options:
        padding = [(axis.padding or 0, axis.padding or 0) for axis in axes]
    steps = tuple(options["epilogue"].split("+")) if options.get("epilogue") else ()
    slope = _number(options["negative_slope"]) if "negative_slope" in options else Epilogue().negative_slope
    zero_point = _integers(text, "zero_point", [options.get("zero_point", "0")])[0]
    arguments |= {
        "transposed": transposed,
        "padding": padding,
        "output_padding": output_padding,
        "epilogue": Epilogue(steps, slope, zero_point),  # type: ignore[arg-type]
        "accuracy": _number(options.get("accuracy", "fast")),
    }
    return arguments


def _number(text: str) -> float | str:
    """The number that ``text`` says, or the text itself, which ConvSpec judges."""
    try:
        return float(text)
    except ValueError:
        return text


def _integers(text: str, name: str, values: Iterable[str]) -> list[int]:
    try:
        return [int(value) for value in values]
    except ValueError:
        raise SpecError(f"descriptor {text!r} has a {name} that is not made of integers") from None


def _pairs(text: str, value: str) -> list[tuple[int, int]]:
    pairs = []
    for entry in value.split("x"):
        pair = _integers(text, "padding", entry.split(":"))
        if len(pair) != 2:
            raise SpecError(f"descriptor {text!r} has padding={value}, where {entry!r} is not lo:hi")
        pairs.append((pair[0], pair[1]))
    return pairs


def _axis_fields(axis: _Axis, *, with_padding: bool) -> list[tuple[str, int | None]]:
    fields: list[tuple[str, int | None]] = [("i", axis.size), ("o", axis.output), ("k", axis.kernel)]
    if axis.stride != 1:
        fields.append(("s", axis.stride))
    if axis.dilation != 1:
        fields.append(("d", axis.dilation - 1))
    if with_padding:
        fields.append(("p", axis.padding))
    return fields


def _format_options(spec: ConvSpec, *, with_padding: bool) -> list[str]:
    values = {key: getattr(spec, field) for key, field in _PLAIN_OPTIONS.items()}
    defaults = {"layout": "channels_first", "dtype": "float32", "dir": "forward", "padding_mode": "zeros"}
    options = [f"{key}={value}" for key, value in values.items() if value != defaults[key]]
    if spec.transposed:
        options.append("transposed=true")
    if with_padding:
        options.append("padding=" + "x".join(f"{lo}:{hi}" for lo, hi in spec.padding))
    if with_padding and any(spec.output_padding):
        options.append("output_padding=" + "x".join(str(extra) for extra in spec.output_padding))
    if spec.epilogue.steps:
        options.append("epilogue=" + "+".join(spec.epilogue.steps))
    if spec.epilogue.negative_slope != Epilogue().negative_slope:
        options.append(f"negative_slope={spec.epilogue.negative_slope!r}")
    if spec.epilogue.zero_point:
        options.append(f"zero_point={spec.epilogue.zero_point}")
    if spec.accuracy != "fast":
        options.append(f"accuracy={spec.accuracy}")
    return options
