"""Reading the convolutions of an ONNX model as problems, with what follows each of them fused into its epilogue.

Only shapes matter: weights may be missing, external or computed. Convolutions inside the bodies of If, Loop and Scan
are left out, since how often they run is not known; those in model-local functions are read. Quantised operators
(ConvInteger, QLinearConv) are no convolutions here.

The operators are those of the ONNX specification, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import contextlib
import math
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from convgen.errors import DTypeError, MissingDependencyError, ModelError, SpecError
from convgen.spec import LAYOUTS, ConvSpec, Epilogue

Shape = tuple[int | None, ...]

CONVOLUTIONS: tuple[str, ...] = ("Conv", "ConvTranspose")

# TensorProto.DataType, fixed by the format.
_DTYPES = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}

_STANDARD_DOMAINS = ("", "ai.onnx")
_PLAIN_ACTIVATIONS = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSwish": "hardswish"}

# Operators that only rearrange or make constants: their results are constant if their inputs are.
_CONSTANT_PRESERVING = frozenset({"Cast", "ConstantOfShape", "Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze"})

# Weights beyond this many elements are dropped before shape inference, which reads only the small constants.
_LARGEST_KEPT = 1024


@dataclass(frozen=True)
class ModelLayer:
    """One convolution of a model: its name (that of its first output if it has none), its problem, and ``nodes``, the
    names of the convolution and the nodes fused into its epilogue, in the order they are applied."""

    name: str
    spec: ConvSpec
    nodes: tuple[str, ...]


def read_model(
    path: str | os.PathLike[str], *, batch: int | None = None, layout: str = "channels_first"
) -> tuple[ModelLayer, ...]:
    """Returns the Conv and ConvTranspose nodes of an ONNX file in graph order.

    A leading extent of a model input that the model leaves open is the batch: ``batch``, or 1 if that is None. The
    problems have the given ``layout``; the model's own is always channels first.

    The only reader of a convolution's result is fused as long as it is an inference BatchNormalization ("scale",
    "shift"), an addition or multiplication with a constant per channel ("bias" or "shift", "scale"; consecutive ones
    merge), an addition of a tensor of the same shape ("residual"; if it joins two convolutions, only the later one
    takes it), or an activation. Tensors that are model outputs, or are read more than once, end it.

    Raises ModelError for a file that cannot be read, is no model or holds no convolution, and for a convolution whose
    sizes are unknown or not valid; SpecError for ``batch`` and ``layout``; MissingDependencyError without onnx.
    """
    if layout not in LAYOUTS:
        raise SpecError(f"layout={layout!r} is not allowed; allowed: {', '.join(LAYOUTS)}")
    graph = _read_graph(Path(path), None if batch is None else _checked_batch(batch))
    found = [index for index, node in enumerate(graph.nodes) if _operator(node) in CONVOLUTIONS]
    if not found:
        raise ModelError(f"model {str(path)!r} holds no Conv or ConvTranspose node")
    claimed: set[int] = set()
    layers = []
    for index in reversed(found):  # the last convolution before an addition is the one that takes it
        spec = _plain_spec(graph, index).replace(layout=layout)
        chain = _follow(graph, index, spec, claimed)
        claimed.update(chain.nodes)
        epilogue = Epilogue(chain.steps) if chain.slope is None else Epilogue(chain.steps, chain.slope)
        nodes = tuple(_name(graph.nodes[fused]) for fused in chain.nodes)
        layers.append(ModelLayer(nodes[0], spec.replace(epilogue=epilogue), nodes))
    return tuple(reversed(layers))


def distinct_problems(layers: Iterable[ModelLayer]) -> tuple[tuple[ConvSpec, int, tuple[str, ...]], ...]:
    """Returns (problem, how often it occurs, names of its layers) for each distinct problem, first met first."""
    names: dict[ConvSpec, list[str]] = {}
    for layer in layers:
        names.setdefault(layer.spec, []).append(layer.name)
    return tuple((spec, len(found), tuple(found)) for spec, found in names.items())


def conv_node_spec(
    node: Any, input_shape: Sequence[int], weight_shape: Sequence[int], dtype: str, has_bias: bool
) -> ConvSpec:
    """Returns the problem of one Conv or ConvTranspose ``NodeProto``, channels first, with at most a "bias" step.

    ``input_shape`` is (N, C, *spatial), ``weight_shape`` is (out, in/groups, *kernel), or (in, out/groups, *kernel)
    for ConvTranspose. Raises ModelError, which names the node.
    """
    ndim = len(input_shape) - 2
    if ndim < 1 or len(weight_shape) != len(input_shape):
        raise _error(node, f"input of shape {tuple(input_shape)} and weight of shape {tuple(weight_shape)} do not fit")
    transposed = node.op_type == "ConvTranspose"
    groups = int(_attribute(node, "group", 1))
    kernel = tuple(weight_shape[2:])
    if _integers(node, "kernel_shape", kernel, ndim) != kernel:
        raise _error(node, f"kernel_shape={_attribute(node, 'kernel_shape', ())} differs from the weight's {kernel}")
    first, second = weight_shape[0], weight_shape[1] * groups
    in_channels, out_channels = (first, second) if transposed else (second, first)
    if input_shape[1] != in_channels:
        raise _error(node, f"the input has {input_shape[1]} channels; its weight and group={groups} need {in_channels}")
    try:
        return ConvSpec(
            batch=input_shape[0],
            in_channels=in_channels,
            out_channels=out_channels,
            spatial_size=tuple(input_shape[2:]),
            kernel_size=kernel,
            stride=_integers(node, "strides", (1,) * ndim, ndim),
            padding=_padding(node, tuple(input_shape[2:]), kernel),
            dilation=_integers(node, "dilations", (1,) * ndim, ndim),
            groups=groups,
            output_padding=_integers(node, "output_padding", (0,) * ndim, ndim) if transposed else 0,
            transposed=transposed,
            dtype=dtype,
            epilogue=("bias",) if has_bias else (),
        )
    except (SpecError, DTypeError) as error:
        raise _error(node, str(error)) from error


def _padding(node: Any, size: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The (lo, hi) pairs of a node: given, none, or derived from the output size that auto_pad or output_shape ask for.

    The specification rounds halves down; an output_shape beyond the natural size makes the total negative.
    """
    ndim = len(size)
    stride = _integers(node, "strides", (1,) * ndim, ndim)
    if min(stride) < 1:
        raise _error(node, f"strides={stride} must be at least 1")
    auto = _text(node, "auto_pad", "NOTSET")
    wanted: tuple[int, ...] | None = None
    if node.op_type == "ConvTranspose" and _attribute(node, "output_shape", None):
        wanted = _integers(node, "output_shape", (), ndim)
    match auto:
        case "SAME_UPPER" | "SAME_LOWER" if wanted is None:
            grown = [n * s for n, s in zip(size, stride, strict=True)]
            shrunk = [-(-n // s) for n, s in zip(size, stride, strict=True)]
            wanted = tuple(grown if node.op_type == "ConvTranspose" else shrunk)
        case "NOTSET" | "VALID" | "SAME_UPPER" | "SAME_LOWER":
            pass
        case _:
            allowed = "NOTSET, SAME_UPPER, SAME_LOWER, VALID"
            raise _error(node, f"auto_pad={auto!r} is not allowed; allowed: {allowed}")
    if wanted is None:
        pads = _integers(node, "pads", (0,) * 2 * ndim, 2 * ndim) if auto == "NOTSET" else (0,) * 2 * ndim
        return tuple(zip(pads[:ndim], pads[ndim:], strict=True))
    totals = _total_padding(node, size, kernel, stride, wanted)
    halves = [(total // 2, total - total // 2) for total in totals]
    return tuple((small, large) if auto == "SAME_UPPER" else (large, small) for small, large in halves)


def _total_padding(
    node: Any, size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], wanted: tuple[int, ...]
) -> list[int]:
    """The padding per axis, both sides together, with which the output has the size ``wanted``."""
    ndim = len(size)
    dilation = _integers(node, "dilations", (1,) * ndim, ndim)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if node.op_type == "Conv":
        return [max(0, (w - 1) * s + r - n) for n, s, r, w in zip(size, stride, reach, wanted, strict=True)]
    extra = _integers(node, "output_padding", (0,) * ndim, ndim)
    return [(n - 1) * s + r + e - w for n, s, r, e, w in zip(size, stride, reach, extra, wanted, strict=True)]


@dataclass(frozen=True)
class _Graph:
    """What is needed of a model's main graph.

    ``readers`` holds the index of a node for each time it reads a tensor; ``escaping`` the tensors that are read from
    outside: model outputs and what bodies of control flow use; ``scalars`` the values of one-element constants.
    """

    nodes: tuple[Any, ...]
    shapes: Mapping[str, Shape]
    types: Mapping[str, int]
    readers: Mapping[str, tuple[int, ...]]
    escaping: frozenset[str]
    constants: frozenset[str]
    scalars: Mapping[str, float]
    opset: int
    batch: int


@dataclass(frozen=True)
class _Chain:
    """A convolution and what is fused into it so far: ``tensor`` is the result."""

    nodes: tuple[int, ...]
    tensor: str
    steps: tuple[str, ...]
    slope: float | None = None

    def then(self, graph: _Graph, indices: Iterable[int], steps: tuple[str, ...] | None) -> _Chain | None:
        """The chain grown by nodes to ``steps``, or None if those are None."""
        if steps is None:
            return None
        nodes = (*self.nodes, *indices)
        return replace(self, nodes=nodes, tensor=graph.nodes[nodes[-1]].output[0], steps=steps)


def _follow(graph: _Graph, index: int, spec: ConvSpec, claimed: set[int]) -> _Chain:
    """The longest chain from the convolution at ``index`` that uses no claimed node."""
    shape = (spec.batch, spec.out_channels, *spec.output_size)
    chain = _Chain((index,), graph.nodes[index].output[0], spec.epilogue.steps)
    while True:
        longer = _extend(graph, chain, shape)
        if longer is None or not claimed.isdisjoint(longer.nodes):
            return chain
        chain = longer


def _extend(graph: _Graph, chain: _Chain, shape: tuple[int, ...]) -> _Chain | None:
    if chain.tensor in graph.escaping:
        return None
    match graph.readers.get(chain.tensor, ()):
        case (index,):
            return _absorb(graph, chain, index, shape)
        case (first, second):
            return _gate(graph, chain, first, second) or _gate(graph, chain, second, first)
        case _:
            return None


def _absorb(graph: _Graph, chain: _Chain, index: int, shape: tuple[int, ...]) -> _Chain | None:
    """The chain grown by the only node that reads its result, or None if that node cannot be fused."""
    node = graph.nodes[index]
    match _operator(node):
        case "BatchNormalization" if node.input[0] == chain.tensor and _is_inference(graph, node):
            return chain.then(graph, (index,), _shifted(_scaled(chain.steps)))
        case "Add" | "Sum" | "Mul" if len(node.input) == 2:
            return chain.then(graph, (index,), _joined(graph, chain, node, shape))
        case "LeakyRelu":
            slope = float(str(np.float32(_attribute(node, "alpha", 0.01))))  # 0.1, not 0.10000000149
            if chain.slope not in (None, slope):
                return None
            return replace(chain, slope=slope).then(graph, (index,), (*chain.steps, "leaky_relu"))
        case name:
            step = _activation(graph, node, name)
            return chain.then(graph, (index,), (*chain.steps, step) if step else None)


def _joined(graph: _Graph, chain: _Chain, node: Any, shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """The steps after an Add, Sum or Mul of the chain's result and another tensor."""
    other = node.input[1] if node.input[0] == chain.tensor else node.input[0]
    operand = graph.shapes.get(other)
    if operand is None:
        return None
    if other in graph.constants and _is_per_channel(node, operand, shape):
        return _scaled(chain.steps) if node.op_type == "Mul" else _shifted(chain.steps)
    same = len(operand) == len(shape) and (graph.batch if operand[0] is None else operand[0], *operand[1:]) == shape
    if node.op_type == "Mul" or not same or "residual" in chain.steps:
        return None
    return (*chain.steps, "residual")


def _is_per_channel(node: Any, operand: Shape, shape: tuple[int, ...]) -> bool:
    """Whether a tensor holds one number, or one for each channel, of a tensor of ``shape``."""
    axis = _attribute(node, "axis", None)  # before opset 7: where the operand's axes start
    behind = 0 if axis is None else len(shape) - axis - len(operand)
    if behind < 0 or len(operand) + behind > len(shape):
        return False
    full = (*(1,) * (len(shape) - len(operand) - behind), *operand, *(1,) * behind)
    return full[1] in (1, shape[1]) and math.prod(n or 0 for n in full) == full[1]


def _scaled(steps: tuple[str, ...]) -> tuple[str, ...] | None:
    """The steps with a multiplication per channel, which merges with a scale and shift just before it."""
    if steps[-1:] == ("scale",) or steps[-2:] == ("scale", "shift"):
        return steps
    return None if "scale" in steps else (*steps, "scale")


def _shifted(steps: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The steps with an addition per channel, which merges with one just before it."""
    if steps is None or steps[-1:] in (("bias",), ("shift",)):
        return steps
    names = ("shift", "bias") if steps[-1:] == ("scale",) else ("bias", "shift")
    free = next((name for name in names if name not in steps), None)
    return (*steps, free) if free else None


def _activation(graph: _Graph, node: Any, name: str) -> str | None:
    """The epilogue's step for a node of the operator ``name``, if that is an activation."""
    match name:
        case "Gelu" if _text(node, "approximate", "none") == "none":
            return "gelu"
        case "Swish" if _attribute(node, "alpha", 1.0) == 1.0:
            return "silu"
        case "Clip" if _clip_bounds(graph, node) == (0.0, 6.0):
            return "relu6"
        case _:
            return _PLAIN_ACTIVATIONS.get(name)


def _clip_bounds(graph: _Graph, node: Any) -> tuple[float | None, float | None]:
    """The bounds of a Clip, inputs since opset 11 and attributes before; None where absent or not constant."""
    if graph.opset < 11:
        return _attribute(node, "min", None), _attribute(node, "max", None)
    low, high = ([*node.input, "", ""])[1:3]
    return graph.scalars.get(low), graph.scalars.get(high)


def _gate(graph: _Graph, chain: _Chain, index: int, product: int) -> _Chain | None:
    """The chain grown by x·sigmoid(x) or x·hardsigmoid(x), written as the two nodes at ``index`` and ``product``."""
    node = graph.nodes[index]
    match _operator(node):
        case "Sigmoid":
            step = "silu"
        case "HardSigmoid" if _is_close(node, "alpha", 0.2, 1 / 6) and _is_close(node, "beta", 0.5, 0.5):
            step = "hardswish"
        case _:
            return None
    inner = node.output[0]
    multiplies = _operator(graph.nodes[product]) == "Mul" and inner in graph.nodes[product].input
    if not multiplies or inner in graph.escaping or graph.readers[inner] != (product,):
        return None
    return chain.then(graph, (index, product), (*chain.steps, step))


def _is_close(node: Any, name: str, default: float, value: float) -> bool:
    return math.isclose(_attribute(node, name, default), value, rel_tol=1e-4)


def _is_inference(graph: _Graph, node: Any) -> bool:
    """Whether a BatchNormalization only scales and shifts each channel; how it says so has changed with the opsets."""
    if _attribute(node, "training_mode", 0) or not _attribute(node, "spatial", 1) or any(node.output[1:]):
        return False
    return graph.opset >= 7 or bool(_attribute(node, "is_test", 0))


def _plain_spec(graph: _Graph, index: int) -> ConvSpec:
    """The problem of the convolution at ``index`` with at most a bias."""
    node = graph.nodes[index]
    if len(node.input) < 2:
        raise _error(node, f"has {len(node.input)} inputs; at least 2 are expected")
    source, weight = node.input[0], node.input[1]
    input_shape, weight_shape = graph.shapes.get(source), graph.shapes.get(weight)
    if weight_shape is None or None in weight_shape or len(weight_shape) < 3:
        raise _error(node, f"weight {weight!r} has the unknown shape {_written(weight_shape)}")
    if input_shape is None or None in input_shape[2:] or len(input_shape) < 3:
        raise _error(node, f"input {source!r} has the unknown shape {_written(input_shape)}; the model must fix it")
    dtype = _DTYPES.get(graph.types.get(source) or graph.types.get(weight, 0))
    if dtype is None:
        raise _error(node, f"input {source!r} has an unsupported type; allowed: {', '.join(_DTYPES.values())}")
    kernel = tuple(extent or 0 for extent in weight_shape)
    groups = _attribute(node, "group", 1)
    implied = kernel[0] if node.op_type == "ConvTranspose" else kernel[1] * groups
    batch, channels = input_shape[:2]
    known = (
        graph.batch if batch is None else batch,
        implied if channels is None else channels,
        *(extent or 0 for extent in input_shape[2:]),
    )
    return conv_node_spec(node, known, kernel, dtype, has_bias=len(node.input) > 2 and bool(node.input[2]))


def _checked_batch(batch: object) -> int:
    if isinstance(batch, bool) or not isinstance(batch, SupportsIndex) or operator.index(batch) < 1:
        raise SpecError(f"batch={batch!r} is not allowed; allowed: integers from 1, or None")
    return operator.index(batch)


def _read_graph(path: Path, batch: int | None) -> _Graph:
    onnx = _import_onnx()
    model = _load(onnx, path)
    _fix_batch(model.graph, path, batch)
    _drop_weights(model.graph)
    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (RuntimeError, ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"model {str(path)!r} does not let its shapes be inferred: {error}") from error
    graph = model.graph
    shapes, types = _tensors(graph)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tensors |= {node.output[0]: a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute}
    readers: dict[str, tuple[int, ...]] = {}
    for index, node in enumerate(graph.node):
        for name in node.input:
            readers[name] = (*readers.get(name, ()), index)
    return _Graph(
        nodes=tuple(graph.node),
        shapes=shapes,
        types=types,
        readers=readers,
        escaping=frozenset([*(output.name for output in graph.output), *_names_in_bodies(graph)]),
        constants=_constants(graph),
        scalars=_scalars(onnx, tensors),
        opset=max((entry.version for entry in model.opset_import if entry.domain in _STANDARD_DOMAINS), default=1),
        batch=1 if batch is None else batch,
    )


def _import_onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.inliner
        import onnx.numpy_helper
        import onnx.shape_inference
    except ImportError as error:
        message = "reading an ONNX model needs the package onnx, which `pip install 'convgen[onnx]'` installs"
        raise MissingDependencyError(message) from error
    return onnx


def _load(onnx: Any, path: Path) -> Any:
    """The model without its external data; raises ModelError."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"model {str(path)!r} cannot be read: {error.strerror}") from error
    try:
        return onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelError(f"model {str(path)!r} is no ONNX model, or is truncated") from error


def _fix_batch(graph: Any, path: Path, batch: int | None) -> None:
    """Writes the batch into the model inputs that leave their leading extent open."""
    initialised = {tensor.name for tensor in graph.initializer}
    shapes = [value.type.tensor_type.shape for value in graph.input if value.name not in initialised]
    leading = [shape.dim[0] for shape in shapes if shape.dim]
    unknown = [extent for extent in leading if _extent(extent) is None]
    if batch is not None and not unknown and batch not in map(_extent, leading):
        fixed = ", ".join(str(_extent(extent)) for extent in leading) or "none"
        raise ModelError(f"batch={batch} does not fit model {str(path)!r}, whose inputs fix leading extents: {fixed}")
    for extent in unknown:
        extent.dim_value = 1 if batch is None else batch


def _drop_weights(graph: Any) -> None:
    for tensor in graph.initializer:
        if math.prod(tensor.dims) > _LARGEST_KEPT:
            for field in ("raw_data", "float_data", "double_data", "int32_data", "int64_data"):
                tensor.ClearField(field)


def _tensors(graph: Any) -> tuple[dict[str, Shape], dict[str, int]]:
    """The known shapes and element types of a graph's tensors."""
    shapes: dict[str, Shape] = {}
    types: dict[str, int] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if not value.type.HasField("tensor_type"):
            continue
        types[value.name] = value.type.tensor_type.elem_type
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = tuple(map(_extent, value.type.tensor_type.shape.dim))
    for tensor in graph.initializer:
        types[tensor.name], shapes[tensor.name] = tensor.data_type, tuple(tensor.dims)
    return shapes, types


def _extent(dim: Any) -> int | None:
    return dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None


def _constants(graph: Any) -> frozenset[str]:
    """The tensors that do not depend on the model's inputs, as far as simple operators make them."""
    names = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        rearranged = _operator(node) in _CONSTANT_PRESERVING and names.issuperset(filter(None, node.input))
        if _operator(node) == "Constant" or rearranged:
            names.update(node.output)
    return frozenset(names)


def _scalars(onnx: Any, tensors: Mapping[str, Any]) -> dict[str, float]:
    """The values of floating-point constants of one element that the file itself holds."""
    values = {}
    for name, tensor in tensors.items():
        if tensor.data_type in _DTYPES and math.prod(tensor.dims) == 1 and not tensor.external_data:
            with contextlib.suppress(ValueError):  # declared, but without data
                values[name] = float(onnx.numpy_helper.to_array(tensor).reshape(()))
    return values


def _names_in_bodies(graph: Any) -> Iterator[str]:
    """Yields the tensors that nodes inside the bodies of control flow read, at any depth."""
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from (name for inner in body.node for name in inner.input)
                yield from (output.name for output in body.output)
                yield from _names_in_bodies(body)


def _operator(node: Any) -> str:
    """The name of a standard operator, with its domain in front for any other."""
    return str(node.op_type if node.domain in _STANDARD_DOMAINS else f"{node.domain}.{node.op_type}")


def _name(node: Any) -> str:
    return str(node.name or next(iter(node.output), ""))


def _error(node: Any, reason: str) -> ModelError:
    return ModelError(f"node {_name(node)!r} ({node.op_type}): {reason}")


def _attribute(node: Any, name: str, default: Any) -> Any:
    """The value of a number, list of integers or string attribute."""
    for attribute in node.attribute:
        if attribute.name == name:
            return _value(attribute)
    return default


def _value(attribute: Any) -> Any:
    """The one field that is set: the attribute's type is a number fixed by the format (AttributeProto)."""
    match attribute.type:
        case 1:
            return attribute.f
        case 2:
            return attribute.i
        case 3:
            return attribute.s.decode(errors="replace")
        case 7:
            return tuple(attribute.ints)
        case _:
            return None


def _text(node: Any, name: str, default: str) -> str:
    return str(_attribute(node, name, default))


def _integers(node: Any, name: str, default: tuple[int, ...], length: int) -> tuple[int, ...]:
    """The list attribute ``name``, or ``default`` if it is absent or empty; raises ModelError for another length."""
    values = _attribute(node, name, default) or default
    if not isinstance(values, tuple) or len(values) != length:
        raise _error(node, f"{name}={values!r} is not a list of {length} integers")
    return values


def _written(shape: Shape | None) -> str:
    return "?" if shape is None else "x".join("?" if extent is None else str(extent) for extent in shape)
