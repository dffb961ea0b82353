"""The epilogue as IR: the value of each step, and the elementwise stage that applies them."""

from __future__ import annotations

import math
from collections.abc import Callable

from convgen.dtypes import DTYPES
from convgen.ir.nodes import Apply, Arith, Buffer, Const, Convert, Index, Int, Load, Stage, Store, Value, Var, Where
from convgen.nests.nest import (
    Channels,
    axis_letters,
    channel_loops,
    group_axis,
    image_buffer,
    image_index,
    loops_around,
    made_axis,
)
from convgen.spec import ConvSpec


def epilogue_buffers(spec: ConvSpec, channels: Channels) -> tuple[Buffer, ...]:
    """The epilogue's operands in the order of the call."""
    group = group_axis(channels, Int(channels.groups))
    made = made_axis(channels, Var("OC"))
    size = tuple(f"O{letter.upper()}" for letter in axis_letters(spec.ndim))
    return tuple(
        image_buffer(spec, name, spec.operand_dtype(name), (*group, *made), size, "operand")
        if name == "residual"
        else Buffer(name, spec.operand_dtype(name), (*group, *made), "operand")
        for name in spec.epilogue.operands
    )


def epilogue_stage(spec: ConvSpec, channels: Channels, sums: str, result: str) -> Stage:
    """result[i] = steps(sums[i]) over the whole result."""
    loops = [("n", Var("N")), *((f"o{letter}", Var(f"O{letter.upper()}")) for letter in axis_letters(spec.ndim))]
    # Names of their own: schedules refer to the loops of the sums by name.
    nest = tuple((f"e_{var}", extent) for var, extent in (*loops, *channel_loops(channels)))
    n, *pixel = (Var(var) for var, _ in nest[: len(loops)])
    channel = tuple(Var(var) for var, _ in nest[len(loops) :])
    place = image_index(spec, n, channel, tuple(pixel))
    value: Value = Load(sums, place)
    for step in spec.epilogue.steps:
        value = _step(spec, step, value, channel, place)
    return Stage("epilogue", loops_around((Store(result, place, value),), nest))


def _step(spec: ConvSpec, step: str, x: Value, channel: tuple[Index, ...], place: tuple[Index, ...]) -> Value:
    dtype = DTYPES[spec.dtype].accumulator

    def const(value: float) -> Const:
        return Const(value, dtype)

    match step:
        case "bias" | "shift":
            return Arith("+", x, Load(step, channel))
        case "residual":
            return Arith("+", x, Load(step, place))
        case "scale":
            return Arith("*", x, Load(step, channel))
        case "requantize":
            return _requantized(x, Load(step, channel), spec.epilogue.zero_point)
        case "relu":
            return Arith("max", x, const(0.0))
        case "relu6":
            return Arith("min", Arith("max", x, const(0.0)), const(6.0))
        case "leaky_relu":
            return Where(x, Arith("*", x, const(spec.epilogue.negative_slope)), x)
        case "sigmoid":
            return Arith("/", const(1.0), _one_plus_exp(x, const))
        case "silu":
            return Arith("/", x, _one_plus_exp(x, const))
        case "hardswish":
            gate = Arith("min", Arith("max", Arith("+", x, const(3.0)), const(0.0)), const(6.0))
            return Arith("/", Arith("*", x, gate), const(6.0))
        case "tanh":
            return Apply("tanh", x)
        case _:
            inner = Arith("+", Apply("erf", Arith("*", x, const(math.sqrt(0.5)))), const(1.0))
            return Arith("*", Arith("*", x, const(0.5)), inner)


def _requantized(x: Value, multiplier: Value, zero_point: int) -> Value:
    """Saturated before it is rounded: the limits are integers."""
    lowest, highest = (Const(float(limit - zero_point), "float32") for limit in (-128, 127))
    scaled = Arith("*", Convert(x, "float32"), multiplier)
    rounded = Convert(Arith("min", Arith("max", scaled, lowest), highest), "int32")
    return Arith("+", rounded, Const(zero_point, "int32")) if zero_point else rounded


def _one_plus_exp(x: Value, const: Callable[[float], Const]) -> Value:
    """1 + e**-x, what x's sigmoid is the inverse of."""
    return Arith("+", const(1.0), Apply("exp", Arith("-", const(0.0), x)))
