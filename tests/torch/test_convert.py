"""convert_: layers swapped in place, and what is fused computes what was written."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from convgen.errors import FusedWarning, OperandError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

import convgen.torch as ct  # noqa: E402
from convgen.torch.fused import FusedConv1d, FusedConv2d  # noqa: E402


def spread_statistics(model: Any) -> Any:
    """Parameters and running statistics that are neither ones nor zeros."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            if module.affine:
                with torch.no_grad():
                    module.weight.copy_(torch.randn(module.num_features, generator=generator))
                    module.bias.copy_(torch.randn(module.num_features, generator=generator))
    return model


def check(model: Any, x: Any, *, fused: int, left: tuple[type, ...] = ()) -> Any:
    """Converts a model in eval mode and holds it against itself in float64, with and without autograd."""
    model = spread_statistics(model).eval()
    expected = copy.deepcopy(model).double()(x.double().clone())
    converted = ct.convert_(copy.deepcopy(model))
    with torch.no_grad():
        torch.testing.assert_close(converted(x.clone()).double(), expected, rtol=1e-5, atol=1e-5)
    watched = converted(x.clone())
    torch.testing.assert_close(watched.double(), expected, rtol=1e-5, atol=1e-5)
    assert watched.requires_grad
    found = sum(isinstance(m, (FusedConv1d, FusedConv2d)) for m in converted.modules())
    assert found == fused
    for kind in left:
        assert any(isinstance(m, kind) for m in converted.modules())
    if not left:
        assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in converted.modules())
    return converted


X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_layers_are_swapped_in_place() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Sequential(nn.ConvTranspose2d(8, 4, 2), nn.Linear(8, 8)))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = list(model.parameters())
    seen: list[str] = []

    def chooses(layer: Any, name: str) -> bool:
        seen.append(name)
        return True

    assert ct.convert_(model, chooses) is model
    assert seen == ["0", "1.0"]
    assert type(model[0]) is ct.Conv2d
    assert type(model[1][0]) is ct.ConvTranspose2d
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert model.state_dict().keys() == state.keys()
    assert ct.convert_(model) is model


def test_the_filter_chooses() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 3))
    ct.convert_(model, lambda layer, name: layer.kernel_size != (1, 1))
    assert type(model[0]) is nn.Conv2d
    assert type(model[1]) is ct.Conv2d


def test_what_is_not_eligible_stays() -> None:
    class Mine(nn.Conv2d):
        pass

    model = nn.Sequential(Mine(2, 2, 1), nn.LazyConv2d(3, 1), nn.Conv2d(2, 2, 1, dtype=torch.complex64))
    kinds = [type(layer) for layer in model]
    ct.convert_(model)
    assert [type(layer) for layer in model] == kinds
    with pytest.raises(OperandError, match="model is a int"):
        ct.convert_(3)


def test_training_is_as_before() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3))
    ours = ct.convert_(copy.deepcopy(model))
    assert type(ours[1]) is nn.BatchNorm2d
    for network in (model, ours):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            network(X).square().mean().backward()
            optimizer.step()
    for (name, mine), other in zip(ours.state_dict().items(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.ReLU6(),
        nn.SiLU(),
        nn.GELU(),
        nn.Hardswish(),
        nn.Sigmoid(),
        nn.Tanh(),
        nn.LeakyReLU(0.2),
    ],
    ids=str,
)
def test_activations(activation: Any) -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), activation, nn.Dropout(), nn.Conv2d(8, 4, 1, bias=False)
    )
    check(model, X, fused=1)


def test_an_activation_that_kernels_do_not_have_stays() -> None:
    check(nn.Sequential(nn.Conv2d(4, 8, 3), nn.GELU("tanh"), nn.Conv2d(8, 4, 1), nn.ELU()), X, fused=0)


@pytest.mark.parametrize("affine", [True, False])
def test_norms_after_other_convolutions(affine: bool) -> None:
    check(nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8, affine=affine), nn.ReLU()), X[..., 0], fused=1)
    grouped = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)
    check(nn.Sequential(grouped, nn.BatchNorm2d(6, affine=affine)), X, fused=0)


def test_a_norm_without_statistics_stays() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU())
    check(model, X, fused=0, left=(nn.BatchNorm2d,))


class Residual(nn.Module):
    """Two convolutions and a sum, written in one of many ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first, self.norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 4, 1)

    def forward(self, x: Any) -> Any:
        y = F.relu(self.norm(self.first(x)))
        z = self.second(y)
        match self.way:
            case "x + z":
                return F.relu(x + z)
            case "z += x":
                z += x
                return z.relu_()
            case "torch.add":
                return torch.add(z, x)
            case "activation first":
                return F.silu(z) + x
            case "two convolutions":
                return torch.relu(z + self.third(x))
            case "broadcast":
                return z + x.mean((2, 3), keepdim=True)
            case "scaled":
                return torch.add(z, x, alpha=2)
            case "x += z":
                x += z
                return x * 2
            case "changed between":
                y.add_(1)
                return x + z
            case "used twice":
                return (x + z) * z
            case "constant":
                return z + 1.0
            case "itself":
                return z + z
        raise AssertionError(self.way)


@pytest.mark.parametrize(
    ("way", "fused"),
    [
        ("x + z", 2),
        ("z += x", 2),
        ("torch.add", 2),
        ("activation first", 2),
        ("two convolutions", 2),
        ("broadcast", 2),
        ("scaled", 1),
        ("x += z", 2),
        ("changed between", 1),
        ("used twice", 1),
        ("constant", 1),
        ("itself", 1),
    ],
)
def test_residual_sums(way: str, fused: int) -> None:
    check(Residual(way), X, fused=fused)


class Shared(nn.Module):
    """One convolution, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Any) -> Any:
        return torch.relu(self.conv(self.norm(self.conv(x))))


def test_a_convolution_that_is_called_twice_is_left_alone() -> None:
    check(Shared(), X, fused=0, left=(nn.BatchNorm2d,))


class Branching(nn.Module):
    """What torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Any) -> Any:
        y = self.norm(self.conv(x))
        return y if y.sum() > 0 else -y


def test_what_cannot_be_traced_is_not_fused() -> None:
    converted = check(Branching(), X, fused=0, left=(nn.BatchNorm2d,))
    assert type(converted) is Branching
    assert type(converted.conv) is ct.Conv2d


def test_a_norm_after_a_fused_activation_stays() -> None:
    model = spread_statistics(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))).eval()
    expected = model(X)
    for _ in range(2):
        ct.convert_(model)
        with torch.no_grad():
            torch.testing.assert_close(model(X), expected, rtol=1e-5, atol=1e-5)


class InPlaceBetween(nn.Module):
    """The image is changed after the convolution, before its activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        z = F.relu(x, inplace=True)
        return F.relu(y) * 2 + z


class ReadTwice(nn.Module):
    """The weights of a convolution are used by a function as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Any) -> Any:
        return self.norm(self.conv(x)) + F.conv2d(x, self.conv.weight, padding=1)


class Optional(nn.Module):
    """A summand that may be left out, and a buffer that is no part of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, x: Any, other: Any = None) -> Any:
        y = self.conv(x)
        return F.relu(y if other is None else y + other) * self.scale


class Buffered(nn.Module):
    """The same without the choice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, x: Any) -> Any:
        return F.leaky_relu(self.conv(x), 0.3) * self.scale


def test_what_else_a_graph_may_do() -> None:
    check(InPlaceBetween(), X, fused=1)
    check(ReadTwice(), X, fused=0, left=(nn.BatchNorm2d,))
    converted = check(Optional(), X, fused=0)
    torch.testing.assert_close(converted(X, X), F.relu(converted.conv(X) + X))
    converted = check(Buffered(), X, fused=1)
    assert list(converted.state_dict()) == ["conv.weight", "conv.bias"]
    with pytest.raises(OperandError, match="residual is given"):
        converted.conv(X, X)


def test_hooks_are_not_lost() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    called = []
    model[1].register_forward_hook(lambda *_: called.append(1))
    ct.convert_(model)
    with torch.no_grad():
        model(X)
    assert called == [1]


def test_a_fused_model_is_copied_pickled_and_keeps_its_attributes() -> None:
    model = Residual("x + z")
    model.classes = 10
    converted = check(model, X, fused=2)
    assert converted.classes == 10
    with torch.no_grad():
        expected = converted(X)
        for twin in (copy.deepcopy(converted), pickle.loads(pickle.dumps(converted))):
            assert torch.equal(twin(X), expected)
        converted.second.weight.mul_(2)
        assert not torch.equal(converted(X), expected)


def test_training_without_its_norms_is_warned_of() -> None:
    model = ct.convert_(spread_statistics(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))).eval())
    with pytest.warns(FusedWarning, match="fuse=False"):
        pickle.loads(pickle.dumps(model)).train()


def test_fusing_can_be_left_out() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).eval()
    ct.convert_(model, fuse=False)
    assert type(model) is nn.Sequential
    assert type(model[1]) is nn.BatchNorm2d


def test_a_converted_model_compiles_and_exports() -> None:
    model = ct.convert_(nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3)))
    expected = model(X)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    result = compiled(X)
    torch.testing.assert_close(result, expected)
    result.sum().backward()
    mine = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    expected.sum().backward()
    for one, parameter in zip(mine, model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)
    exported = torch.export.export(model, (X,))
    torch.testing.assert_close(exported.module()(X), expected)
