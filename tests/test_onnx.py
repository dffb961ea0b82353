from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test.case.node as node_cases
import onnx.backend.test.case.node.conv
import onnx.backend.test.case.node.convtranspose
import onnx.reference
import pytest
from onnx import TensorProto, helper

from convgen.errors import MissingDependencyError, ModelError, SpecError
from convgen.onnx import ModelLayer, conv_node_spec, distinct_problems, read_model
from convgen.oracle import reference
from convgen.spec import ConvSpec, Epilogue
from convgen.suites import suite
from tests.onnx_models import CONV, IMAGE, constants, node, save

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
BN = "BatchNormalization y s b m v -> n"


def single_node_cases() -> Iterator[Any]:
    """Yields the Conv and ConvTranspose cases that load_model_tests(kind="node") finds, without making all others."""
    for case in node_cases._NodeTestCases:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in ("Conv", "ConvTranspose"):
            yield pytest.param(case, id=case.name)


def follow(path: Path, *nodes: Any, output: str, **options: Any) -> ModelLayer:
    """Returns the layer of CONV followed by ``nodes``."""
    save(path / "m.onnx", [CONV, *nodes], IMAGE, constants(), [output], **options)
    (layer,) = read_model(path / "m.onnx")
    return layer


def assert_close(result: np.ndarray, expected: np.ndarray) -> None:
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.parametrize(
    ("network", "layers", "distinct", "plain"),
    [
        ("resnet50", 53, 27, 23),
        ("densenet121", 121, 67, 67),
        ("inception_v1", 57, 49, 49),
        ("inception_v2", 69, 38, 38),
        ("shufflenet", 49, 17, 14),
        ("squeezenet", 26, 18, 18),
        ("vgg19", 16, 9, 9),
        ("zfnet512", 5, 4, 4),
        ("bvlc_alexnet", 5, 5, 5),
    ],
)
def test_networks_of_the_onnx_wheel(network: str, layers: int, distinct: int, plain: int) -> None:
    found = read_model(LIGHT / f"light_{network}.onnx")
    problems = distinct_problems(found)
    assert (len(found), len(problems)) == (layers, distinct)
    assert len({spec.replace(epilogue=()) for spec, _, _ in problems}) == plain
    assert sum(count for _, count, _ in problems) == layers
    fused = [name for layer in found for name in layer.nodes]
    assert len(fused) == len(set(fused))


def test_resnet50_layer_by_layer() -> None:
    layers = read_model(LIGHT / "light_resnet50.onnx", layout="channels_last")
    steps = Counter(layer.spec.epilogue.steps for layer in layers)
    assert steps == {
        ("scale", "shift", "relu"): 33,
        ("scale", "shift", "residual", "relu"): 16,
        ("scale", "shift"): 4,
    }
    assert layers[0].spec == ConvSpec(
        batch=1,
        in_channels=3,
        out_channels=64,
        spatial_size=(224, 224),
        kernel_size=7,
        stride=2,
        padding=3,
        layout="channels_last",
        epilogue=("scale", "shift", "relu"),
    )


@pytest.mark.parametrize("network", ["resnet50", "densenet121"])
def test_networks_are_those_of_the_papers(network: str) -> None:
    layers = read_model(LIGHT / f"light_{network}.onnx", layout="channels_last")
    found = Counter(layer.spec.replace(epilogue=()) for layer in layers if layer.spec.out_channels != 1000)
    assert found == {layer.spec: layer.count for layer in suite(network)}  # which have no classifier


def test_distinct_problems_keep_the_order_of_first_appearance() -> None:
    small = ConvSpec(batch=1, in_channels=1, out_channels=1, spatial_size=(4,), kernel_size=1)
    large = small.replace(out_channels=2)
    layers = [ModelLayer(name, spec, (name,)) for name, spec in (("a", large), ("b", small), ("c", large))]
    assert distinct_problems(layers) == ((large, 2, ("a", "c")), (small, 1, ("b",)))
    assert distinct_problems([]) == ()


@pytest.mark.parametrize("case", list(single_node_cases()))
def test_node_tests_of_the_onnx_wheel(case: Any) -> None:
    for inputs, (expected,) in case.data_sets:
        conv = case.model.graph.node[0]
        spec = conv_node_spec(conv, inputs[0].shape, inputs[1].shape, inputs[0].dtype.name, len(inputs) > 2)
        assert_close(reference(spec, *inputs[:2], bias=inputs[2] if len(inputs) > 2 else None), expected)


def test_there_are_node_tests() -> None:
    assert len(list(single_node_cases())) >= 17


@pytest.mark.parametrize(
    ("operator", "size", "weight", "attributes"),
    [
        ("Conv", (7,), (4, 3, 2), {"auto_pad": "SAME_UPPER", "strides": [2]}),
        ("Conv", (7,), (4, 3, 2), {"auto_pad": "SAME_LOWER", "dilations": [3]}),
        ("Conv", (7,), (4, 3, 2), {"auto_pad": "VALID", "strides": [3]}),
        ("Conv", (6,), (4, 3, 1), {"auto_pad": "SAME_UPPER", "strides": [2]}),
        ("Conv", (6, 7), (6, 1, 3, 2), {"group": 3, "pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}),
        ("Conv", (4, 5, 3), (2, 3, 2, 1, 3), {"pads": [0, 0, 1, 1, 0, 2]}),
        ("ConvTranspose", (5,), (3, 2, 4), {"auto_pad": "SAME_UPPER", "strides": [3]}),
        ("ConvTranspose", (5,), (3, 2, 4), {"auto_pad": "SAME_LOWER", "strides": [3]}),
        ("ConvTranspose", (4, 5), (3, 2, 3, 3), {"auto_pad": "SAME_UPPER", "output_shape": [9, 10], "strides": [2, 2]}),
        ("ConvTranspose", (4, 5), (3, 2, 3, 3), {"pads": [1, 0, 0, 2], "strides": [2, 3], "output_padding": [1, 2]}),
    ],
)
def test_geometry_means_what_onnx_means(
    tmp_path: Path, operator: str, size: tuple[int, ...], weight: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 3, *size)).astype(np.float32)
    w = rng.standard_normal(weight).astype(np.float32)
    path = save(tmp_path / "m.onnx", [node(f"{operator} x w -> y", **attributes)], {"x": x.shape}, {"w": w}, ["y"])
    (layer,) = read_model(path)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path)).graph.output[0].type.tensor_type.shape.dim
    assert layer.spec.output_shape == tuple(extent.dim_value for extent in inferred)
    (expected,) = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": x})
    assert_close(reference(layer.spec, x, w), expected)


EPILOGUES = [
    pytest.param([node(BN)], ("scale", "shift"), id="batch norm"),
    pytest.param([node("Add y channel -> n")], ("bias",), id="bias"),
    pytest.param([node("Add scalar y -> n")], ("bias",), id="scalar bias"),
    pytest.param([node("Mul y gain -> a"), node("Add channel a -> n")], ("scale", "shift"), id="scale and shift"),
    pytest.param([node("Add y image -> n")], ("residual",), id="constant residual"),
    pytest.param([node("Sum y image -> a"), node("Relu a -> n")], ("residual", "relu"), id="residual, relu"),
    pytest.param([node("Relu y -> a"), node("Add image a -> n")], ("relu", "residual"), id="relu, residual"),
    pytest.param([node("LeakyRelu y -> n", alpha=0.1)], ("leaky_relu",), id="leaky relu"),
    pytest.param([node("Clip y zero six -> n")], ("relu6",), id="relu6"),
    pytest.param([node("Sigmoid y -> n")], ("sigmoid",), id="sigmoid"),
    pytest.param([node("Tanh y -> n")], ("tanh",), id="tanh"),
    pytest.param([node("HardSwish y -> n")], ("hardswish",), id="hardswish"),
    pytest.param([node("Gelu y -> n")], ("gelu",), id="gelu"),
    pytest.param([node("Sigmoid y -> a"), node("Mul y a -> n")], ("silu",), id="silu"),
    pytest.param([node("Sigmoid y -> a"), node("Mul a y -> n")], ("silu",), id="silu, swapped"),
    pytest.param(
        [node("HardSigmoid y -> a", alpha=1 / 6), node("Mul y a -> n")], ("hardswish",), id="hardswish in two nodes"
    ),
]


@pytest.mark.parametrize(("nodes", "steps"), EPILOGUES)
def test_an_epilogue_means_what_the_nodes_mean(tmp_path: Path, nodes: list[Any], steps: tuple[str, ...]) -> None:
    layer = follow(tmp_path, *nodes, output="n")
    assert layer.spec.epilogue.steps == steps
    assert layer.nodes == ("y", *(each.output[0] for each in nodes))
    arrays = constants()
    x = np.random.default_rng(2).standard_normal((1, 3, 5, 6)).astype(np.float32)
    added = np.broadcast_to(arrays["scalar" if "scalar" in nodes[0].input else "channel"].ravel(), 4)
    scale, shift = arrays["gain"].ravel(), added
    if nodes[0].op_type == "BatchNormalization":
        scale = arrays["s"] / np.sqrt(arrays["v"] + 1e-5)
        shift = arrays["b"] - arrays["m"] * scale
    operands = {"bias": added, "scale": scale, "shift": shift, "residual": arrays["image"]}
    used = {name: operands[name] for name in layer.spec.epilogue.operands}
    (expected,) = onnx.reference.ReferenceEvaluator(str(tmp_path / "m.onnx")).run(None, {"x": x})
    assert_close(reference(layer.spec, x, arrays["w"], **used), expected)


@pytest.mark.parametrize(
    ("nodes", "steps"),
    [
        ([node("Relu y -> a"), node("MaxPool a -> n", kernel_shape=[2, 2])], ("relu",)),
        ([node("Relu y -> a"), node("Add y a -> n")], ()),
        ([node("Add y y -> n")], ()),
        ([node("Mul y y -> n")], ()),
        ([node("Sigmoid y -> a"), node("Mul a image -> n")], ("sigmoid",)),
        ([node("Sigmoid y -> a"), node("Mul y a -> c"), node("Add a c -> n")], ()),
        ([node("Mul y image -> n")], ()),
        ([node("Add y row -> n")], ()),
        ([node("Sum y image channel -> n")], ()),
        ([node("Add y image -> a"), node("Add a image -> n")], ("residual",)),
        ([node("Gelu y -> n", approximate="tanh")], ()),
        ([node("Clip y zero five -> n")], ()),
        ([node("Clip y zero -> n")], ()),
        ([node("HardSigmoid y -> a"), node("Mul y a -> n")], ()),
        ([node("LeakyRelu y -> a"), node("LeakyRelu a -> n", alpha=0.5)], ("leaky_relu",)),
        ([node("LeakyRelu y -> a", alpha=0.3), node("LeakyRelu a -> n", alpha=0.3)], ("leaky_relu", "leaky_relu")),
        ([node("BatchNormalization y s b m v -> n", training_mode=1)], ()),
        ([node(BN), node("Mul n gain -> a"), node("Add a channel -> c"), node("Relu c -> d")],
         ("scale", "shift", "relu")),
        ([node("Add y channel -> a"), node("Add a scalar -> n")], ("bias",)),
        ([node("Relu y -> a"), node("Mul a gain -> c"), node("Relu c -> d"), node("Mul d gain -> n")],
         ("relu", "scale", "relu")),
        ([node("GlobalAveragePool x -> g"), node("Conv g w2 -> h"), node("Mul y h -> n")], ()),
    ],
)  # fmt: skip
def test_where_following_stops(tmp_path: Path, nodes: list[Any], steps: tuple[str, ...]) -> None:
    save(tmp_path / "m.onnx", [CONV, *nodes], IMAGE, constants(), [nodes[-1].output[0]])
    assert read_model(tmp_path / "m.onnx")[0].spec.epilogue.steps == steps


def test_batch_norm_before_opset_7_must_say_it_is_inference(tmp_path: Path) -> None:
    for is_test, steps in ((0, ()), (1, ("scale", "shift"))):
        layer = follow(tmp_path, node(BN, is_test=is_test), output="n", opset=6)
        assert layer.spec.epilogue.steps == steps


def test_additions_before_opset_7_name_their_axis(tmp_path: Path) -> None:
    layer = follow(tmp_path, node("Add y b -> n", broadcast=1, axis=1), output="n", opset=6)
    assert layer.spec.epilogue.steps == ("bias",)


def test_clip_before_opset_11_has_attributes(tmp_path: Path) -> None:
    layer = follow(tmp_path, node("Clip y -> n", min=0.0, max=6.0), output="n", opset=10)
    assert layer.spec.epilogue.steps == ("relu6",)


def test_own_bias_comes_first_and_slopes_are_decimal(tmp_path: Path) -> None:
    nodes = [node("Conv x w b -> y"), node(BN), node("LeakyRelu n -> r", alpha=0.1)]
    (layer,) = read_model(save(tmp_path / "m.onnx", nodes, IMAGE, constants(), ["r"]))
    assert layer.spec.epilogue == Epilogue(("bias", "scale", "shift", "leaky_relu"), 0.1)


def test_a_model_output_is_not_fused_past(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [CONV, node("Relu y -> n")], IMAGE, constants(), ["y", "n"])
    assert read_model(path)[0].nodes == ("y",)
    silu = [node("Sigmoid y -> a"), node("Mul y a -> n")]
    path = save(tmp_path / "m.onnx", [CONV, *silu], IMAGE, constants(), ["a", "n"])
    assert read_model(path)[0].nodes == ("y",)


def test_a_tensor_that_a_loop_body_reads_is_not_fused_past(tmp_path: Path) -> None:
    body = helper.make_graph(
        [node("Tanh y -> t"), node("Conv x w -> inner")],
        "body",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    branch = helper.make_node("If", ["condition"], ["z"], then_branch=body, else_branch=body)
    arrays = constants() | {"condition": np.array(True)}
    path = save(tmp_path / "m.onnx", [CONV, node("Relu y -> n"), branch], IMAGE, arrays, ["n", "z"])
    assert [layer.nodes for layer in read_model(path)] == [("y",)]


@pytest.mark.parametrize("swap", [False, True])
def test_the_last_convolution_takes_the_addition(tmp_path: Path, swap: bool) -> None:
    convs = [CONV, node("Conv x w2 -> u")]
    nodes = [*(reversed(convs) if swap else convs), node("Add y u -> a"), node("Relu a -> n")]
    first, last = read_model(save(tmp_path / "m.onnx", nodes, IMAGE, constants(), ["n"]))
    assert first.spec.epilogue.steps == ()
    assert last.spec.epilogue.steps == ("residual", "relu")
    assert last.nodes == ("y" if swap else "u", "a", "n")


def test_an_open_batch_is_filled_in(tmp_path: Path) -> None:
    nodes = [CONV, node("Add y r -> n")]
    for extent in ("N", None):
        inputs = {"x": (extent, 3, 5, 6), "r": (extent, 4, 5, 6)}
        path = save(tmp_path / "m.onnx", nodes, inputs, constants(), ["n"])
        assert [read_model(path, batch=n)[0].spec.batch for n in (None, 1, 7)] == [1, 1, 7]
        assert read_model(path, batch=7)[0].spec.epilogue.steps == ("residual",)


def test_a_fixed_batch_cannot_be_changed(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [CONV], {"x": (2, 3, 5, 6)}, constants(), ["y"])
    assert read_model(path, batch=2)[0].spec.batch == 2
    with pytest.raises(ModelError, match="batch=4 does not fit"):
        read_model(path, batch=4)


@pytest.mark.parametrize(
    ("element", "dtype"),
    [(TensorProto.FLOAT16, "float16"), (TensorProto.BFLOAT16, "bfloat16"), (TensorProto.DOUBLE, "float64")],
)
def test_dtypes(tmp_path: Path, element: int, dtype: str) -> None:
    inputs = {"x": (1, 3, 5, 6), "k": (4, 3, 3, 3)}
    path = save(tmp_path / "m.onnx", [node("Conv x k -> y")], inputs, {}, ["y"], element=element)
    assert read_model(path)[0].spec.dtype == dtype


def test_local_functions_are_read(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "Block", ["x", "w"], ["n"], [CONV, node("Relu y -> n")], opsets[:1])
    call = helper.make_node("Block", ["x", "w"], ["n"], domain="mine")
    path = save(tmp_path / "m.onnx", [call], IMAGE, constants(), ["n"])
    model = onnx.load(path)
    model.functions.append(function)
    model.opset_import.append(opsets[1])
    path.write_bytes(model.SerializeToString())
    assert read_model(path)[0].spec.epilogue.steps == ("relu",)


def test_weights_need_no_data(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [CONV], IMAGE, constants(), ["y"])
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    assert read_model(path)[0].spec.weight_shape == (4, 3, 3, 3)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    whole = (LIGHT / "light_vgg19.onnx").read_bytes()
    files = {"empty": b"", "text": b"not a model", "zeros": bytes(64), "half": whole[: len(whole) // 2]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=name):
            read_model(tmp_path / name)
    for path in (tmp_path, tmp_path / "missing.onnx"):
        with pytest.raises(ModelError, match=f"{path.name}.*cannot be read"):
            read_model(path)


def test_a_model_without_convolutions(tmp_path: Path) -> None:
    path = save(tmp_path / "none.onnx", [node("Relu x -> y")], IMAGE, {}, ["y"])
    with pytest.raises(ModelError, match=r"none\.onnx' holds no Conv"):
        read_model(path)


@pytest.mark.parametrize(
    ("conv", "inputs", "message"),
    [
        (CONV, {"x": (1, 3, "H", 6)}, r"node 'y' \(Conv\): input 'x' has the unknown shape 1x3x\?x6"),
        (CONV, {"x": (1, 2, 5, 6)}, "node 'y'.*2 channels.*need 3"),
        (CONV, {"x": (1, 3, 5)}, "node 'y'.*do not fit"),
        (node("Conv x w -> y"), {"x": (1, 3, 2, 6)}, "node 'y'.*larger than the padded input"),
        (node("Conv x w -> y", kernel_shape=[2, 2]), IMAGE, "node 'y'.*kernel_shape"),
        (node("Conv x w -> y", strides=[0, 1]), IMAGE, "node 'y'.*strides"),
        (node("Conv x w -> y", strides=[1]), IMAGE, "node 'y'.*strides"),
        (node("Conv x w -> y", pads=[1, 1]), IMAGE, "node 'y'.*pads"),
        (node("Conv x w -> y", auto_pad="SAME"), IMAGE, "node 'y'.*auto_pad='SAME'"),
        (node("Conv x w -> y", group=0), IMAGE, "node 'y'.*group"),
        (node("Conv x unknown -> y"), IMAGE, "node 'y'.*weight 'unknown' has the unknown shape"),
        (node("Conv x -> y"), IMAGE, "node 'y'.*1 inputs"),
        (
            node("ConvTranspose x t -> y", output_shape=[1, 1, 6, 7]),
            {**IMAGE, "t": (3, 1, 2, 2)},
            "node 'y'.*output_shape",
        ),
    ],
)
def test_convolutions_that_cannot_be_read(
    tmp_path: Path, conv: Any, inputs: dict[str, tuple[int | str, ...]], message: str
) -> None:
    path = save(tmp_path / "m.onnx", [conv], inputs, constants(), ["y"])
    with pytest.raises(ModelError, match=message):
        read_model(path)


def test_an_unsupported_type(tmp_path: Path) -> None:
    inputs = {"x": (1, 3, 5, 6), "k": (4, 3, 3, 3)}
    path = save(tmp_path / "m.onnx", [node("Conv x k -> y")], inputs, {}, ["y"], element=TensorProto.INT8)
    with pytest.raises(ModelError, match=r"node 'y'.*unsupported type"):
        read_model(path)


@pytest.mark.parametrize("batch", [0, -1, True, 1.5, "2"])
def test_batches_that_are_none(batch: Any) -> None:
    with pytest.raises(SpecError, match="batch="):
        read_model(LIGHT / "light_vgg19.onnx", batch=batch)


def test_the_layout_is_the_models_unless_asked_for() -> None:
    path = LIGHT / "light_vgg19.onnx"
    first, last = read_model(path)[0].spec, read_model(path, layout="channels_last")[0].spec
    assert first.layout == "channels_first"
    assert first.replace(layout="channels_last") == last


def test_an_unknown_layout() -> None:
    with pytest.raises(SpecError, match="layout='nhwc'"):
        read_model(LIGHT / "light_vgg19.onnx", layout="nhwc")


def test_without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"convgen\[onnx\]"):
        read_model(LIGHT / "light_vgg19.onnx")
