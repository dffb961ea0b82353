"""The layers: PyTorch's parameters and state, and packed weights that are never stale."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import convgen.torch as ct  # noqa: E402
from convgen.torch.packing import WHOLE, PackedCache  # noqa: E402
from tests.torch.operands import integers  # noqa: E402

PAIRS: dict[str, tuple[Any, dict[str, Any], tuple[int, ...]]] = {
    "Conv1d": ((3, 5, 3), dict(padding=1), (2, 3, 9)),
    "Conv2d": ((4, 6, 3), dict(padding="same", padding_mode="reflect", groups=2), (2, 4, 7, 6)),
    "Conv3d": ((2, 3, 2), dict(stride=2, bias=False), (1, 2, 5, 4, 5)),
    "ConvTranspose1d": ((3, 5, 3), dict(stride=2), (2, 3, 6)),
    "ConvTranspose2d": ((4, 6, 3), dict(stride=2, padding=1, groups=2), (1, 4, 4, 5)),
    "ConvTranspose3d": ((2, 3, 2), dict(stride=2, output_padding=1, dilation=2), (1, 2, 3, 3, 2)),
}


def with_integers(layer: Any, seed: int = 0) -> Any:
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(integers(tuple(parameter.shape), parameter.dtype, seed + number))
    return layer


@pytest.mark.parametrize("name", PAIRS)
def test_a_layer_has_pytorchs_state_and_numbers(name: str) -> None:
    arguments, options, shape = PAIRS[name]
    theirs = with_integers(getattr(nn, name)(*arguments, **options))
    ours = getattr(ct, name)(*arguments, **options)
    ours.load_state_dict(theirs.state_dict())
    assert isinstance(ours, getattr(nn, name))
    x = integers(shape, seed=9).requires_grad_()
    expected = theirs(x)
    assert torch.equal(ours(x), expected)
    assert torch.equal(ours(x[0]), theirs(x[0]))
    expected.sum().backward()
    ours(x.detach()).sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)
    with torch.no_grad():
        assert torch.equal(ours(x), expected)


def test_an_output_size_may_be_asked_for() -> None:
    theirs = with_integers(nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1))
    ours = ct.ConvTranspose2d(3, 4, 3, stride=2, padding=1)
    ours.load_state_dict(theirs.state_dict())
    x = integers((1, 3, 5, 5))
    for size in ([9, 10], [10, 9]):
        assert torch.equal(ours(x, size), theirs(x, size))
    with pytest.raises(ValueError, match="output size"):
        ours(x, [20, 20])


# ---- packed weights


def _in_place(layer: Any) -> Any:
    layer.weight.add_(1)
    return layer


def _one_element(layer: Any) -> Any:
    layer.weight.data[0, 1, 0, 0] += 2
    return layer


def _through_data(layer: Any) -> Any:
    layer.weight.data.mul_(-1)
    return layer


def _rearranged(layer: Any) -> Any:
    layer.weight.data.copy_(layer.weight.data.flip(0))
    return layer


def _balanced(layer: Any) -> Any:
    """As many ones as minus ones, and then their negatives."""
    with torch.no_grad():
        layer.weight.copy_((torch.arange(layer.weight.numel()) % 2 * 2.0 - 1).view_as(layer.weight))
    layer(integers((1, 4, 6, 6)))
    layer.weight.data.neg_()
    return layer


def _another_parameter(layer: Any) -> Any:
    layer.weight = nn.Parameter(layer.weight + 1)
    return layer


def _another_storage(layer: Any) -> Any:
    layer.weight.data = layer.weight.data + 1
    return layer


def _loaded(layer: Any) -> Any:
    layer.load_state_dict({name: value - 1 for name, value in layer.state_dict().items()})
    return layer


def _optimised(layer: Any) -> Any:
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    with torch.enable_grad():
        layer(integers((1, 4, 6, 6))).sum().backward()
    optimizer.step()
    return layer


def _copied_and_changed(layer: Any) -> Any:
    return _in_place(copy.deepcopy(layer))


def _pickled_and_changed(layer: Any) -> Any:
    return _in_place(pickle.loads(pickle.dumps(layer)))


CHANGES: tuple[Callable[[Any], Any], ...] = (
    _in_place,
    _one_element,
    _through_data,
    _rearranged,
    _balanced,
    _another_parameter,
    _another_storage,
    _loaded,
    _optimised,
    _copied_and_changed,
    _pickled_and_changed,
    lambda layer: layer.double().float(),
    lambda layer: layer.to(memory_format=torch.channels_last),
)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("channels", [4, 40])
def test_packed_weights_are_never_stale(change: Callable[[Any], Any], channels: int) -> None:
    if change is _one_element and channels > 4:
        pytest.skip("of many weights a sample is compared")
    layer = with_integers(ct.Conv2d(4, channels, (3, 36 if channels > 4 else 3), padding="same"))
    assert (layer.weight.numel() > WHOLE) == (channels > 4)
    x = integers((1, 4, 6, 6), seed=5)
    with torch.no_grad():
        layer(x)
        assert "_packed_weights" in vars(layer)
        changed = change(layer)
        for _ in range(2):
            expected = nn.functional.conv2d(x, changed.weight, changed.bias, padding="same")
            assert torch.equal(changed(x), expected)


@pytest.mark.parametrize("sizes", [((2, 28), (28, 2)), ((3, 28), (28, 3), (14, 14))])
def test_images_of_other_shapes_have_weights_packed_for_them(sizes: tuple[tuple[int, int], ...]) -> None:
    layer = with_integers(ct.Conv2d(64, 64, 3, padding=1)).eval()
    with torch.no_grad():
        for size in sizes * 2:
            x = integers((4, 64, *size))
            exact = nn.functional.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
            torch.testing.assert_close(layer(x).double(), exact, rtol=0, atol=0.05)


@pytest.mark.parametrize("index", [(slice(None), 5), (slice(None), slice(None), 1, 1), 7], ids=str)
def test_a_slice_changed_through_data_is_noticed(index: Any) -> None:
    layer = with_integers(ct.Conv2d(64, 64, 3)).eval()
    x = integers((1, 64, 6, 6))
    with torch.no_grad():
        layer(x)
        layer.weight.data[index] = 5
        exact = nn.functional.conv2d(x.double(), layer.weight.double(), layer.bias.double())
        torch.testing.assert_close(layer(x).double(), exact, rtol=0, atol=0.05)


def test_weights_that_come_and_go() -> None:
    layer = with_integers(ct.Conv2d(64, 64, 3)).eval()
    x = integers((1, 64, 6, 6))
    with torch.no_grad():
        for step in range(6):
            weight = layer.weight.clone()
            weight[0, 0, 0, step % 3] += 64
            result = torch.func.functional_call(layer, {"weight": weight}, (x,))
            exact = nn.functional.conv2d(x.double(), weight.double(), layer.bias.double())
            torch.testing.assert_close(result.double(), exact, rtol=0, atol=0.05)
            del weight


def test_another_tensor_of_the_same_memory() -> None:
    layer = with_integers(ct.Conv2d(4, 4, 3)).eval()
    x = integers((1, 4, 6, 6))
    alias = layer.weight.detach()
    with torch.no_grad():
        for _ in range(2):
            for weight in (layer.weight, alias):
                result = torch.func.functional_call(layer, {"weight": weight}, (x,))
                assert torch.equal(result, nn.functional.conv2d(x, weight, layer.bias))


def test_another_dtype() -> None:
    layer = with_integers(ct.Conv2d(4, 4, 3))
    x = integers((1, 4, 6, 6))
    with torch.no_grad():
        before = layer(x)
        assert torch.equal(layer.bfloat16()(x.bfloat16()).float(), before)
        assert torch.equal(layer.double()(x.double()).float(), before)


def test_weights_are_packed_once_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    from convgen.operator import CompiledConv

    packed = []
    pack_at = CompiledConv.pack_at

    def counted(op: CompiledConv, address: int) -> Any:
        packed.append(op)
        return pack_at(op, address)

    monkeypatch.setattr(CompiledConv, "pack_at", counted)
    layer = with_integers(ct.Conv2d(4, 4, 3))
    with torch.no_grad():
        for size in (40, 40, 41, 40):
            layer(integers((1, 4, size, size)))
        assert len(packed) == 1
        layer.eval()
        layer(integers((1, 4, 40, 40)))
        assert len(packed) == 2
    assert isinstance(pickle.loads(pickle.dumps(PackedCache())), PackedCache)


def test_weights_made_in_inference_mode() -> None:
    with torch.inference_mode():
        layer = with_integers(ct.Conv2d(4, 4, 3))
        x = integers((1, 4, 6, 6))
        for step in (1, 2):
            layer.weight.add_(step)
            assert torch.equal(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias))


def test_threads_share_a_layer() -> None:
    layer = with_integers(ct.Conv2d(8, 16, 3, padding=1))
    images = [integers((2, 8, 12, 12), seed=seed) for seed in range(16)]
    with torch.no_grad():
        expected = [nn.functional.conv2d(x, layer.weight, layer.bias, padding=1) for x in images]

    def run(x: Any) -> Any:
        with torch.no_grad():
            return layer(x)

    with ThreadPoolExecutor(4) as pool:
        for result, exact in zip(pool.map(run, images * 4), expected * 4, strict=True):
            # The layer may take an algorithm that rounds; integers are one apart.
            torch.testing.assert_close(result, exact, rtol=0, atol=0.01)


class _Convolved(torch.utils.data.Dataset):  # type: ignore[name-defined]
    """A data set that convolves each of its items."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __len__(self) -> int:
        return 6

    def __getitem__(self, item: int) -> Any:
        with torch.no_grad():
            return self.layer(integers((4, 6, 6), seed=item))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader(method: str) -> None:
    layer = with_integers(ct.Conv2d(4, 4, 3))
    data = _Convolved(layer)
    expected = torch.stack([data[item] for item in range(len(data))])
    loader = torch.utils.data.DataLoader(data, batch_size=3, num_workers=2, multiprocessing_context=method)
    assert torch.equal(torch.cat(list(loader)), expected)
