"""The convolution problem: ConvSpec and its Epilogue, validated and normalised when built."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsIndex

from convgen.dtypes import DTYPES, OPERAND_DTYPES, dtype_named
from convgen.errors import DTypeError, SpecError

DIRECTIONS: tuple[str, ...] = ("forward", "backward_data", "backward_weights")
LAYOUTS: tuple[str, ...] = ("channels_first", "channels_last")
PADDING_MODES: tuple[str, ...] = ("zeros", "reflect", "replicate", "circular")
ACCURACIES: tuple[str, ...] = ("strict", "fast")
OPERAND_STEPS: tuple[str, ...] = ("bias", "scale", "shift", "residual", "requantize")
# Steps that make integers of integers, and those of them that may come before a sum of int8 is requantized.
_OF_INTEGERS = ("bias", "scale", "shift", "residual", "relu", "relu6", "requantize")
_BEFORE_REQUANTIZE = ("bias", "residual", "relu")
ACTIVATIONS: tuple[str, ...] = ("relu", "leaky_relu", "relu6", "silu", "gelu", "hardswish", "sigmoid", "tanh")

MAX_NDIM = 3

# The forms every per-axis argument may take, as PyTorch's functions take them.
PerAxis = SupportsIndex | Sequence[SupportsIndex]
AxisPadding = SupportsIndex | Sequence[SupportsIndex]
Padding = SupportsIndex | Sequence[AxisPadding] | str


@dataclass(frozen=True)
class Epilogue:
    """What is applied to each sum before it is stored: ``steps`` in order, ``negative_slope`` for leaky_relu.

    ``steps`` are names: "bias", "scale", "shift" (one number per output channel) and "residual" (an array of the
    output's shape), each at most once, and activations: relu, leaky_relu, relu6, silu, gelu (the exact form with erf),
    hardswish, sigmoid, tanh. "requantize" comes last and makes sums of int8 an int8 result: sum times one float32 per output
    channel, rounded to the nearest integer (halves to even), plus ``zero_point``, saturated, as ONNX's QLinearConv
    does. Raises SpecError.
    """

    steps: tuple[str, ...] = ()
    negative_slope: float = 0.01
    zero_point: int = 0

    if TYPE_CHECKING:  # the accepted forms are wider than the normalised fields

        def __init__(self, steps: Sequence[str] = (), negative_slope: float = 0.01, zero_point: int = 0) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", _steps(self.steps))
        object.__setattr__(self, "negative_slope", _real("epilogue.negative_slope", self.negative_slope))
        zero_point = _integer("epilogue.zero_point", self.zero_point)
        if not -128 <= zero_point <= 127:
            raise SpecError(f"epilogue.zero_point={zero_point} is not an int8; allowed: -128 to 127")
        if zero_point and "requantize" not in self.steps:
            raise SpecError(f"epilogue.zero_point={zero_point} needs the step 'requantize'")
        object.__setattr__(self, "zero_point", zero_point)

    @property
    def operands(self) -> tuple[str, ...]:
        """The steps that read an array, in the order of a call's arguments."""
        return tuple(name for name in ("bias", "residual", "scale", "shift", "requantize") if name in self.steps)


@dataclass(frozen=True, kw_only=True)
class ConvSpec:
    """One convolution problem in PyTorch's terms; immutable and hashable.

    Per-axis arguments take an int or one int per axis; the number of axes (1 to 3) is the length of the first sequence
    among spatial_size, kernel_size, stride, padding, dilation and output_padding, and 1 if all are ints. After
    construction they are tuples of ints and ``padding`` is a tuple of (lo, hi) pairs.

    ``spatial_size`` is the size of the forward input in every direction; as in PyTorch an extent may be 0 only if the
    batch or the input channels are 0. ``padding`` is an int, one int or (lo, hi) pair per axis, "same" or "valid"; a
    negative number in a pair crops. Position i of the padded axis is position i - lo of the input; where that is
    outside the input, ``padding_mode`` says what is read, always from the uncropped input.
    With ``transposed`` the padding is that of PyTorch's conv_transpose: it is taken off the output.
    ``accuracy`` is "strict", "fast" or the largest relative L2 error accepted.

    Raises SpecError, and DTypeError for ``dtype``.
    """

    batch: int
    in_channels: int
    out_channels: int
    spatial_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...] = 1  # type: ignore[assignment]
    padding: tuple[tuple[int, int], ...] = 0  # type: ignore[assignment]
    dilation: tuple[int, ...] = 1  # type: ignore[assignment]
    groups: int = 1
    output_padding: tuple[int, ...] = 0  # type: ignore[assignment]
    transposed: bool = False
    padding_mode: str = "zeros"
    direction: str = "forward"
    layout: str = "channels_first"
    dtype: str = "float32"
    epilogue: Epilogue = ()  # type: ignore[assignment]
    accuracy: str | float = "fast"

    if TYPE_CHECKING:  # the accepted forms are wider than the normalised fields

        def __init__(
            self,
            *,
            batch: SupportsIndex,
            in_channels: SupportsIndex,
            out_channels: SupportsIndex,
            spatial_size: PerAxis,
            kernel_size: PerAxis,
            stride: PerAxis = 1,
            padding: Padding = 0,
            dilation: PerAxis = 1,
            groups: SupportsIndex = 1,
            output_padding: PerAxis = 0,
            transposed: bool = False,
            padding_mode: str = "zeros",
            direction: str = "forward",
            layout: str = "channels_first",
            dtype: object = "float32",
            epilogue: Epilogue | Sequence[str] = (),
            accuracy: str | float = "fast",
        ) -> None: ...

    def __post_init__(self) -> None:
        ndim = _count_axes(self)
        normalised: dict[str, object] = {
            "batch": _at_least("batch", self.batch, 0),
            "in_channels": _at_least("in_channels", self.in_channels, 0),
            "out_channels": _at_least("out_channels", self.out_channels, 1),
            "spatial_size": _per_axis("spatial_size", self.spatial_size, ndim, 0),
            "kernel_size": _per_axis("kernel_size", self.kernel_size, ndim, 1),
            "stride": _per_axis("stride", self.stride, ndim, 1, broadcast=True),
            "dilation": _per_axis("dilation", self.dilation, ndim, 1, broadcast=True),
            "groups": _at_least("groups", self.groups, 1),
            "output_padding": _per_axis("output_padding", self.output_padding, ndim, 0, broadcast=True),
            "transposed": _flag("transposed", self.transposed),
            "padding_mode": _one_of("padding_mode", self.padding_mode, PADDING_MODES),
            "direction": _one_of("direction", self.direction, DIRECTIONS),
            "layout": _one_of("layout", self.layout, LAYOUTS),
            "dtype": _dtype_name(self.dtype),
            "epilogue": _epilogue(self.epilogue),
            "accuracy": _accuracy(self.accuracy),
        }
        for name, value in normalised.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "padding", _padding(self, ndim))
        _check_channels(self)
        _check_padding_mode(self)
        _check_output_padding(self)
        _check_sizes(self)
        if self.epilogue.steps and self.direction != "forward":
            raise SpecError(f"epilogue steps {self.epilogue.steps} need direction='forward', not {self.direction!r}")
        _check_integers(self)
        _check_requantize(self)

    @property
    def ndim(self) -> int:
        """The number of spatial axes."""
        return len(self.spatial_size)

    @property
    def output_size(self) -> tuple[int, ...]:
        """The spatial size of the forward output."""
        return tuple(self._output_extent(axis) for axis in range(self.ndim))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the forward input in ``layout``."""
        return self._in_layout(self.in_channels, self.spatial_size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(out, in/groups, *kernel), or (in, out/groups, *kernel) when transposed, in both layouts."""
        if self.transposed:
            return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the forward output in ``layout``."""
        return self._in_layout(self.out_channels, self.output_size)

    @property
    def operand_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays that a call in this direction reads, in the order of its arguments."""
        match self.direction:
            case "backward_data":
                return {"grad_output": self.output_shape, "weight": self.weight_shape}
            case "backward_weights":
                return {"input": self.input_shape, "grad_output": self.output_shape}
        shapes = {"input": self.input_shape, "weight": self.weight_shape}
        for name in self.epilogue.operands:
            shapes[name] = self.output_shape if name == "residual" else (self.out_channels,)
        return shapes

    @property
    def result_dtype(self) -> str:
        """The data type of the result: the problem's own, int32 for int8, int8 again where that is requantized."""
        return self.dtype if "requantize" in self.epilogue.steps else DTYPES[self.dtype].result

    def operand_dtype(self, name: str) -> str:
        """The data type of an operand by its name."""
        if name == "requantize":
            return "float32"
        return DTYPES[self.dtype].result if name in OPERAND_STEPS else self.dtype

    @property
    def result_shape(self) -> tuple[int, ...]:
        """The shape of the array that a call in this direction writes."""
        match self.direction:
            case "backward_data":
                return self.input_shape
            case "backward_weights":
                return self.weight_shape
        return self.output_shape

    @property
    def padding_is_zero(self) -> bool:
        """Whether nothing is padded or cropped."""
        return all(pair == (0, 0) for pair in self.padding)

    @property
    def made_channels(self) -> int:
        """Channels per group of the result; of a weight gradient, the channels of the image that is read without padding."""
        inner = self.direction == "backward_data" or (self.direction == "backward_weights" and self.transposed)
        return (self.in_channels if inner else self.out_channels) // self.groups

    @property
    def reduced_channels(self) -> int:
        """Channels per group of the image that is read with padding; forward and data gradients are summed over them."""
        inner = self.direction == "backward_data" or (self.direction == "backward_weights" and self.transposed)
        return (self.out_channels if inner else self.in_channels) // self.groups

    @property
    def writes_with_stride(self) -> bool:
        """Whether an image result falls into residue classes of the stride, each with its part of the taps."""
        return self.transposed == (self.direction == "forward")

    @property
    def is_pointwise(self) -> bool:
        """Whether each pixel of the output belongs to the pixel of the input at the same place, and to no other."""
        plain = self.padding_is_zero and not any(self.output_padding)
        return plain and all(k == 1 for k in self.kernel_size) and all(s == 1 for s in self.stride)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the direct algorithm, those with padding included; the same in every direction."""
        pixels = math.prod(self.spatial_size if self.transposed else self.output_size)
        return self.batch * pixels * math.prod(self.weight_shape)

    @property
    def flops(self) -> int:
        """2 · macs."""
        return 2 * self.macs

    @property
    def input_bytes(self) -> int:
        """The size of the forward input, or of its gradient, in bytes."""
        return self._bytes(self.input_shape, is_result=self.direction == "backward_data")

    @property
    def weight_bytes(self) -> int:
        """The size of the weights, or of their gradient, in bytes."""
        return self._bytes(self.weight_shape, is_result=self.direction == "backward_weights")

    @property
    def output_bytes(self) -> int:
        """The size of the forward output, or of the gradient that a backward direction reads, in bytes."""
        return self._bytes(self.output_shape, is_result=self.direction == "forward")

    @property
    def result_bytes(self) -> int:
        """The size of the array that a call in this direction writes, in bytes."""
        return self._bytes(self.result_shape, is_result=True)

    @property
    def bytes_moved(self) -> int:
        """Every operand read once and the result written once; epilogue operands have the result's type."""
        epilogue = (self.operand_shapes[name] for name in self.epilogue.operands)
        main = self.input_bytes + self.weight_bytes + self.output_bytes
        return main + sum(self._bytes(shape, is_result=True) for shape in epilogue)

    @property
    def arithmetic_intensity(self) -> float:
        """flops per byte moved; 0 for an empty problem."""
        return self.flops / self.bytes_moved if self.bytes_moved else 0.0

    def replace(self, **changes: Any) -> ConvSpec:
        """Returns the problem with some fields changed, validated again; raises SpecError."""
        known = [field.name for field in dataclasses.fields(self)]
        _check_names("field", changes, known)
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """Returns one line of JSON whose keys are the fields in their order of declaration."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ConvSpec:
        """Reads what ``to_json`` wrote (fields that have defaults may be missing); raises SpecError."""
        fields = _json_object(text)
        _check_names("key", fields, [field.name for field in dataclasses.fields(cls)])
        missing = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in fields]
        if missing:
            raise SpecError(f"JSON problem lacks the keys {', '.join(missing)}")
        if not isinstance(fields.get("dtype", ""), str):
            raise SpecError(f"dtype={fields['dtype']!r} in a JSON problem is not a string")
        epilogue = fields.get("epilogue", {})
        if not isinstance(epilogue, dict):
            raise SpecError(f"epilogue={epilogue!r} in a JSON problem is not an object")
        _check_names("epilogue key", epilogue, [field.name for field in dataclasses.fields(Epilogue)])
        return cls(**{**fields, "epilogue": Epilogue(**epilogue)})

    def __str__(self) -> str:
        """A short line for tables; ``descriptor.format_descriptor`` writes the form that can be read back."""
        groups = f"g{self.groups}" if self.groups != 1 else ""
        parts = [
            f"{groups}mb{self.batch}",
            f"ic{self.in_channels}i{_times(self.spatial_size)}",
            f"oc{self.out_channels}o{_times(self.output_size)}",
            f"k{_times(self.kernel_size)}",
        ]
        if set(self.stride) != {1}:
            parts.append(f"s{_times(self.stride)}")
        if not self.padding_is_zero:
            parts.append("p" + _times([lo if lo == hi else f"{lo}:{hi}" for lo, hi in self.padding]))
        if set(self.dilation) != {1}:
            parts.append(f"d{_times(n - 1 for n in self.dilation)}")
        words = [self.direction if self.direction != "forward" else "", "transposed" if self.transposed else ""]
        words += [self.padding_mode if self.padding_mode != "zeros" else "", "+".join(self.epilogue.steps)]
        return " ".join(["_".join(parts), *filter(None, words)])

    def _output_extent(self, axis: int) -> int:
        reach = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        size, stride, padding = self.spatial_size[axis], self.stride[axis], sum(self.padding[axis])
        if self.transposed:
            return (size - 1) * stride - padding + reach + self.output_padding[axis]
        return (size + padding - reach) // stride + 1

    def _in_layout(self, channels: int, size: tuple[int, ...]) -> tuple[int, ...]:
        if self.layout == "channels_first":
            return (self.batch, channels, *size)
        return (self.batch, *size, channels)

    def _bytes(self, shape: tuple[int, ...], *, is_result: bool) -> int:
        return math.prod(shape) * DTYPES[self.result_dtype if is_result else self.dtype].itemsize


def _steps(value: object) -> tuple[str, ...]:
    names = OPERAND_STEPS + ACTIVATIONS
    if not isinstance(value, (tuple, list)):
        raise SpecError(f"epilogue steps {value!r} are not a tuple of names; allowed: {', '.join(names)}")
    steps = tuple(_one_of("epilogue step", step, names) for step in value)
    for name in OPERAND_STEPS:
        if steps.count(name) > 1:
            raise SpecError(f"epilogue steps {steps} hold {name!r} more than once")
    return steps


def _epilogue(value: object) -> Epilogue:
    return value if isinstance(value, Epilogue) else Epilogue(_steps(value))


def _count_axes(spec: ConvSpec) -> int:
    for name in ("spatial_size", "kernel_size", "stride", "padding", "dilation", "output_padding"):
        value = getattr(spec, name)
        if isinstance(value, (tuple, list)):
            if not 1 <= len(value) <= MAX_NDIM:
                raise SpecError(f"{name}={value!r} has {len(value)} axes; allowed: 1 to {MAX_NDIM}")
            return len(value)
    return 1


def _check_integers(spec: ConvSpec) -> None:
    fractional = [step for step in spec.epilogue.steps if step not in _OF_INTEGERS]
    if spec.dtype == "int8" and fractional:
        allowed = ", ".join(_OF_INTEGERS)
        raise SpecError(f"epilogue step {fractional[0]!r} makes fractions of dtype='int8'; allowed: {allowed}")


def _check_requantize(spec: ConvSpec) -> None:
    steps = spec.epilogue.steps
    if "requantize" not in steps:
        return
    if spec.dtype != "int8":
        raise SpecError(f"epilogue step 'requantize' needs dtype='int8', not {spec.dtype!r}")
    if steps[-1] != "requantize" or any(step not in _BEFORE_REQUANTIZE for step in steps[:-1]):
        allowed = ", ".join(_BEFORE_REQUANTIZE)
        raise SpecError(f"epilogue steps {steps}: 'requantize' must come last; allowed before it: {allowed}")


def _integer(name: str, value: object) -> int:
    try:
        if not isinstance(value, bool):
            return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise SpecError(f"{name}={value!r} is not an integer")


def _at_least(name: str, value: object, lowest: int) -> int:
    number = _integer(name, value)
    if number < lowest:
        raise SpecError(f"{name}={number} is too small; allowed: {lowest} or more")
    return number


def _expand(name: str, value: object, ndim: int, *, broadcast: bool) -> list[object]:
    """One entry per axis; a sequence of one entry also stands for every axis where PyTorch allows it."""
    if not isinstance(value, (tuple, list)):
        return [value] * ndim
    if broadcast and len(value) == 1:
        return list(value) * ndim
    if len(value) != ndim:
        raise SpecError(f"{name}={value!r} has {len(value)} entries for {ndim} spatial axes")
    return list(value)


def _per_axis(name: str, value: object, ndim: int, lowest: int, *, broadcast: bool = False) -> tuple[int, ...]:
    return tuple(_at_least(name, entry, lowest) for entry in _expand(name, value, ndim, broadcast=broadcast))


def _padding(spec: ConvSpec, ndim: int) -> tuple[tuple[int, int], ...]:
    value: object = spec.padding
    if isinstance(value, str):
        return _named_padding(spec, value)
    return tuple(_padding_pair(entry, value) for entry in _expand("padding", value, ndim, broadcast=True))


def _named_padding(spec: ConvSpec, value: str) -> tuple[tuple[int, int], ...]:
    _one_of("padding", value, ("same", "valid"))
    if spec.transposed:
        raise SpecError(f"padding={value!r} is not allowed with transposed=True, only numbers are")
    if value == "valid":
        return ((0, 0),) * spec.ndim
    if any(step != 1 for step in spec.stride):
        raise SpecError(f"padding='same' needs stride 1 on every axis, not stride={spec.stride}")
    totals = [step * (taps - 1) for step, taps in zip(spec.dilation, spec.kernel_size, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _padding_pair(entry: object, value: object) -> tuple[int, int]:
    if isinstance(entry, (tuple, list)):
        if len(entry) != 2:
            raise SpecError(f"padding={value!r} holds {entry!r}, which is not a (lo, hi) pair")
        return _integer("padding", entry[0]), _integer("padding", entry[1])
    number = _integer("padding", entry)
    if number < 0:
        raise SpecError(f"padding={value!r} is negative; only a number in a (lo, hi) pair may be, and crops")
    return number, number


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise SpecError(f"{name}={value!r} is not a bool")
    return value


def _one_of(name: str, value: object, allowed: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise SpecError(f"{name}={value!r} is unknown; allowed: {', '.join(allowed)}")
    return value


def _dtype_name(value: object) -> str:
    if value is None:  # NumPy reads None as float64
        raise DTypeError(f"dtype=None is not supported; allowed: {', '.join(OPERAND_DTYPES)}")
    return dtype_named(value).name


def _real(name: str, value: object) -> float:
    if isinstance(value, (bool, str)):
        raise SpecError(f"{name}={value!r} is not a number")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise SpecError(f"{name}={value!r} is not a number") from None
    if not math.isfinite(number):
        raise SpecError(f"{name}={value!r} is not finite")
    return number


def _accuracy(value: object) -> str | float:
    if isinstance(value, str) and value in ACCURACIES:
        return value
    number = math.nan if isinstance(value, bool) or not isinstance(value, numbers.Real) else float(value)
    if not 0 < number < math.inf:
        raise SpecError(f"accuracy={value!r} is not allowed; allowed: {', '.join(ACCURACIES)} or a number above 0")
    return number


def _check_channels(spec: ConvSpec) -> None:
    for name in ("in_channels", "out_channels"):
        channels = getattr(spec, name)
        if channels % spec.groups:
            raise SpecError(f"{name}={channels} is not divisible by groups={spec.groups}")


def _check_padding_mode(spec: ConvSpec) -> None:
    if spec.padding_mode == "zeros":
        return
    if spec.transposed:
        raise SpecError(f"padding_mode={spec.padding_mode!r} is not allowed with transposed=True, only 'zeros' is")
    for size, pair in zip(spec.spatial_size, spec.padding, strict=True):
        if spec.padding_mode == "reflect" and max(pair) >= size:
            raise SpecError(f"padding={spec.padding} must be smaller than spatial_size={spec.spatial_size} to reflect")
        if spec.padding_mode == "circular" and max(pair) > size:
            raise SpecError(f"padding={spec.padding} wraps around spatial_size={spec.spatial_size} more than once")


def _check_output_padding(spec: ConvSpec) -> None:
    if not any(spec.output_padding):
        return
    if not spec.transposed:
        raise SpecError(f"output_padding={spec.output_padding} is only allowed with transposed=True")
    for extra, stride, dilation in zip(spec.output_padding, spec.stride, spec.dilation, strict=True):
        if extra >= max(stride, dilation):
            raise SpecError(
                f"output_padding={spec.output_padding} must be smaller than "
                f"stride={spec.stride} or dilation={spec.dilation}"
            )


def _check_sizes(spec: ConvSpec) -> None:
    if 0 in spec.spatial_size and ((spec.batch and spec.in_channels) or spec.padding_mode != "zeros"):
        raise SpecError(
            f"spatial_size={spec.spatial_size} has an extent of 0, which needs batch=0 or in_channels=0 "
            f"and padding_mode='zeros', not {spec.batch}, {spec.in_channels} and {spec.padding_mode!r}"
        )
    if spec.transposed:
        if min(spec.output_size) < 1:
            raise SpecError(f"padding={spec.padding} leaves an output of size {spec.output_size}, which is below 1")
        return
    for size, kernel, dilation, pair in zip(
        spec.spatial_size, spec.kernel_size, spec.dilation, spec.padding, strict=True
    ):
        if dilation * (kernel - 1) + 1 > size + sum(pair):
            raise SpecError(
                f"kernel_size={spec.kernel_size} with dilation={spec.dilation} is larger than the padded input, "
                f"spatial_size={spec.spatial_size} with padding={spec.padding}"
            )


def _check_names(kind: str, given: Iterable[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise SpecError(f"{kind} {name!r} is unknown; allowed: {', '.join(known)}")


def _json_object(text: object) -> dict[str, Any]:
    if not isinstance(text, str):
        raise SpecError(f"JSON problem {text!r} is not a string")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"problem {text[:80]!r} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise SpecError(f"JSON problem {text[:80]!r} is not an object")
    return fields


def _times(values: Iterable[object]) -> str:
    return "x".join(str(value) for value in values)
