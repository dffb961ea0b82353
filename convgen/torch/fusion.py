"""What torch.fx sees of a model in eval mode, with batch norms, activations and residual sums taken into the convolutions."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812

from convgen.spec import Epilogue
from convgen.torch import modules
from convgen.torch.fused import FUSED, Fused

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ACTIVATIONS: dict[object, str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
    nn.Hardswish: "hardswish",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.LeakyReLU: "leaky_relu",
    F.relu: "relu",
    torch.relu: "relu",
    F.relu6: "relu6",
    F.silu: "silu",
    F.gelu: "gelu",
    F.hardswish: "hardswish",
    F.sigmoid: "sigmoid",
    torch.sigmoid: "sigmoid",
    F.tanh: "tanh",
    F.leaky_relu: "leaky_relu",
    torch.tanh: "tanh",
    "relu": "relu",
    "relu_": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
}
_SUMS = (operator.add, torch.add, "add")
_SUMS_IN_PLACE = (operator.iadd, "add_")
_IN_PLACE_OPERATORS = frozenset(
    value for name, value in vars(operator).items() if name.startswith("i") and name[1:] in vars(operator)
)


class _Tracer(fx.Tracer):
    """Looks into everything but PyTorch's own layers and convgen's."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, modules._Convolution) or super().is_leaf_module(m, module_qualified_name)


def fuse_(model: nn.Module) -> None:
    """Rewrites the model in place, into a GraphModule, where there is something to fuse and it can be traced."""
    convolutions = [module for module in model.modules() if isinstance(module, modules._Convolution)]
    if model in convolutions or not convolutions or _has_hooks(model):
        return
    try:
        graph = _Tracer().trace(model)
    except Exception:  # tracing runs the model's own code, which may do anything with what is no tensor
        return
    # An argument that may be left out was traced as given.
    if any(node.op == "placeholder" and (node.args or str(node.target).startswith("*")) for node in graph.nodes):
        return
    traced = fx.GraphModule(model, graph)
    fusion = _Fusion(traced)
    if fusion.fold_norms() + fusion.fuse_epilogues() == 0:
        return
    for node in graph.nodes:
        node.type = None  # annotations that are strings cannot be pickled
    graph.lint()
    traced.recompile()
    traced.delete_all_unused_submodules()
    _keep_buffers(model, traced)
    kept = {name: value for name, value in vars(model).items() if name not in vars(traced) or "hooks" in name}
    model.__class__ = type(traced)
    model.__dict__ = {**vars(traced), **kept}


def _keep_buffers(model: nn.Module, traced: fx.GraphModule) -> None:
    """Which buffers are not part of the state stays as it was; those of the model itself stay, read or not."""
    originals = dict(model.named_modules())
    for name, module in traced.named_modules():
        if name in originals:
            module._non_persistent_buffers_set |= originals[name]._non_persistent_buffers_set & set(module._buffers)
    for name, buffer in model._buffers.items():
        traced.register_buffer(name, buffer, persistent=name not in model._non_persistent_buffers_set)


def _has_hooks(model: nn.Module) -> bool:
    """Whether a module inside the model has hooks, which a graph of leaves would not call."""
    return any(
        module is not model and (module._forward_hooks or module._forward_pre_hooks) for module in model.modules()
    )


@dataclass(frozen=True)
class _Chain:
    """Nodes from a convolution to the last that is computed with it, and what they do."""

    nodes: tuple[fx.Node, ...]
    steps: tuple[str, ...]
    residual: fx.Node | None
    place: fx.Node
    slope: float


class _Fusion:
    def __init__(self, traced: fx.GraphModule) -> None:
        self.graph = traced.graph
        self.modules = dict(traced.named_modules(remove_duplicate=False))
        calls = [node.target for node in self.graph.nodes if node.op == "call_module"]
        # Whose parameters are read besides is used twice as well.
        reads = [str(node.target).rpartition(".")[0] for node in self.graph.nodes if node.op == "get_attr"]
        owners = [id(self.modules[str(target)]) for target in calls]
        users = owners + [id(self.modules[owner]) for owner in reads if owner in self.modules]
        self.once = {target for target, owner in zip(calls, owners, strict=True) if users.count(owner) == 1}

    def fold_norms(self) -> int:
        """Takes batch norms with fixed statistics into the weights before them; returns how many."""
        folded = 0
        for node in list(self.graph.nodes):
            norm = self._module(node)
            if type(norm) not in _NORMS or node.kwargs or len(node.args) != 1:
                continue
            before = node.args[0]
            conv = self._convolution(before)
            assert norm is not None
            if conv is None or norm.training or norm.running_mean is None or norm.num_features != conv.out_channels:
                continue
            _fold(conv, norm)
            conv.is_folded = True
            node.replace_all_uses_with(before)
            self.graph.erase_node(node)
            folded += 1
        return folded

    def fuse_epilogues(self) -> int:
        """Takes activations and residual sums into the convolutions before them; returns how many convolutions have some."""
        fused = 0
        for node in list(self.graph.nodes):
            conv = self._convolution(node)
            if conv is None or type(conv) not in FUSED or len(node.args) != 1 or node.kwargs:
                continue
            chain = self._chain(node)
            if len(chain.nodes) == 1:
                continue
            bias = () if conv.bias is None else ("bias",)
            conv.__class__ = FUSED[type(conv)]
            conv.epilogue = Epilogue((*bias, *chain.steps), negative_slope=chain.slope)
            last = chain.nodes[-1]
            arguments = node.args if chain.residual is None else (*node.args, chain.residual)
            # Where the sum stands, which is where the residual is read; else where the convolution does.
            with self.graph.inserting_after(chain.place):
                replaced = self.graph.call_module(str(node.target), arguments)
            last.replace_all_uses_with(replaced)
            for gone in reversed(chain.nodes):
                self.graph.erase_node(gone)
            fused += 1
        return fused

    def _chain(self, conv: fx.Node) -> _Chain:
        nodes, steps = [conv], []
        residual: fx.Node | None = None
        place = conv
        slope = Epilogue().negative_slope
        while len(nodes[-1].users) == 1:
            (user,) = nodes[-1].users
            step, found = self._activation(user, nodes[-1])
            other = None if residual is not None else self._summand(user, nodes[-1])
            if step == "leaky_relu" and step in steps:
                break
            if step is not None:
                slope = found if step == "leaky_relu" else slope
                steps += [step] if step else []
            elif other is not None and not self._changes_between(conv, user, nodes):
                residual, place = other, user
                steps.append("residual")
            else:
                break
            nodes.append(user)
        return _Chain(tuple(nodes), tuple(steps), residual, place, slope)

    def _activation(self, node: fx.Node, before: fx.Node) -> tuple[str | None, float]:
        """The activation that a node applies to the one before ("" for none at all), and a leaky one's slope; else None."""
        module = self._module(node)
        if not node.args or node.args[0] is not before:
            return None, 0.0
        if isinstance(module, (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)):
            return (None if module.training and not isinstance(module, nn.Identity) else ""), 0.0
        if module is not None:
            name = _ACTIVATIONS.get(type(module))
            approximate, slope = getattr(module, "approximate", "none"), getattr(module, "negative_slope", 0.0)
        else:
            name = _ACTIVATIONS.get(node.target) if node.op in ("call_function", "call_method") else None
            given = dict(node.kwargs)
            given.pop("inplace", None)
            approximate = given.pop("approximate", "none")
            slope = given.pop("negative_slope", node.args[1] if len(node.args) > 1 and name == "leaky_relu" else 0.01)
            if given or len(node.args) > (2 if name == "leaky_relu" else 1):
                return None, 0.0
        if (name == "gelu" and approximate != "none") or not isinstance(slope, (int, float)):
            return None, 0.0
        return name, float(slope)

    def _summand(self, node: fx.Node, before: fx.Node) -> fx.Node | None:
        """What a node adds to the one before, if it is a tensor of the graph."""
        if node.op not in ("call_function", "call_method") or node.kwargs or len(node.args) != 2:
            return None
        first, second = node.args
        if node.target in _SUMS and second is before and first is not before:
            return first if isinstance(first, fx.Node) else None
        if node.target in (*_SUMS, *_SUMS_IN_PLACE) and first is before and second is not before:
            return second if isinstance(second, fx.Node) else None
        return None

    def _changes_between(self, conv: fx.Node, last: fx.Node, chain: list[fx.Node]) -> bool:
        """Whether something is changed in place after the convolution, which is now to run later."""
        node = conv.next
        while node is not last:
            if node not in chain and self._is_in_place(node):
                return True
            node = node.next
        return False

    def _is_in_place(self, node: fx.Node) -> bool:
        module = self._module(node)
        if module is not None:
            return bool(getattr(module, "inplace", False))
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        writes = bool(node.kwargs.get("inplace", False)) or "out" in node.kwargs
        ends = name.endswith("_") and not name.endswith("__")
        return node.op != "get_attr" and (writes or ends or node.target in _IN_PLACE_OPERATORS)

    def _module(self, node: object) -> Any:
        if isinstance(node, fx.Node) and node.op == "call_module":
            return self.modules[str(node.target)]
        return None

    def _convolution(self, node: object) -> Any:
        """The convolution that a node calls, if that is the only call of it and something alone uses its result."""
        conv = self._module(node)
        if not isinstance(conv, modules._Convolution) or not isinstance(node, fx.Node):
            return None
        if isinstance(conv, Fused):
            return None
        return conv if node.target in self.once and len(node.users) == 1 else None


def _fold(conv: Any, norm: Any) -> None:
    """w x + b, then (y - mean) / sqrt(var + eps) * gamma + beta: one convolution, its weights computed in float64."""
    with torch.no_grad():
        scale = torch.rsqrt(norm.running_var.double() + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        shift = -norm.running_mean.double() * scale
        if norm.bias is not None:
            shift = shift + norm.bias.double()
        if conv.bias is not None:
            shift = shift + conv.bias.double() * scale
        weight = conv.weight
        if conv.transposed:
            parts = weight.double().unflatten(0, (conv.groups, -1))
            ones = (1,) * (parts.dim() - 3)
            folded = (parts * scale.view(conv.groups, 1, -1, *ones)).flatten(0, 1)
        else:
            folded = weight.double() * scale.view(-1, *(1,) * (weight.dim() - 1))
        conv.weight = nn.Parameter(folded.to(weight), requires_grad=weight.requires_grad)
        conv.bias = nn.Parameter(shift.to(weight), requires_grad=weight.requires_grad)
