"""CompiledConv: a compiled problem as a callable."""

from __future__ import annotations

import copy
import ctypes
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from convgen.driver import Plan, lower, source_of, worker_count
from convgen.dtypes import DTYPES
from convgen.errors import DTypeError, OperandError, ShapeError, WorkspaceLimitError
from convgen.machine import Machine
from convgen.runtime.launch import ArrayGuard, Launcher
from convgen.runtime.workspace import Allocate, WorkspacePool, aligned_empty
from convgen.spec import ConvSpec

Array = np.ndarray[Any, Any]

# Below this size an array's alignment does not show, and NumPy's own allocation is quicker.
_SMALL_BYTES = 4096
# The operands of an epilogue, in the order of a kernel's arguments.
_EPILOGUE = ("bias", "residual", "scale", "shift", "requantize")


class PackedWeights:
    """Weights in the order in which one operator's kernel reads them; made by ``CompiledConv.pack``."""

    __slots__ = ("_storage", "address", "layout")

    def __init__(self, layout: str, nbytes: int, allocate: Allocate = aligned_empty) -> None:
        self.layout = layout
        self._storage = allocate((max(nbytes, 1),), np.uint8)
        self.address = int(self._storage.ctypes.data)

    @property
    def nbytes(self) -> int:
        """The size of the packed weights in bytes."""
        return self._storage.nbytes


class CompiledConv:
    """A convolution compiled for one problem: ``op(input, weight, bias)``, by direction.

    forward: ``op(input, weight, bias=None, *, residual, scale, shift, out)`` with the operands that the epilogue names;
    backward_data: ``op(grad_output, weight)``; backward_weights: ``op(input, grad_output)``. Arrays have the problem's shapes,
    layout and dtype, with any strides and alignment. Calls may come from any number of Python threads at once.

    ``plan`` says how it is computed, ``workspace_bytes`` how much scratch memory a call uses (packed weights included where
    they are not given packed), ``source`` is the generated Python.
    """

    def __init__(self, plan: Plan, machine: Machine, threads: int, workspace_limit: int | None = None) -> None:
        self.plan = plan
        self.threads = worker_count(plan.spec, threads)
        self._lowered = lowered = lower(plan, machine, self.threads)
        self.workspace_bytes = lowered.scratch_bytes
        if workspace_limit is not None and self.workspace_bytes > workspace_limit:
            raise WorkspaceLimitError(
                f"workspace_limit={workspace_limit} bytes is too small; {plan.strategy} needs {self.workspace_bytes}"
            )
        spec = plan.spec
        self._names = tuple(spec.operand_shapes)
        self._given = tuple(name in self._names for name in _EPILOGUE)
        self._shapes = tuple(spec.operand_shapes.values())
        self._result_shape = spec.result_shape
        self._result_dtype = DTYPES[spec.result_dtype].numpy
        self._dtypes = tuple(DTYPES[spec.operand_dtype(name)].numpy for name in self._names)
        self._scratch = tuple(b for b in lowered.program.buffers if b.space in ("packed", "workspace", "local"))
        self._is_plain = len(self._names) == 2
        # Nothing but two operands and a result: the call that is worth a shortcut.
        self._is_bare = self._is_plain and not self._scratch
        nbytes = int(np.prod(self._result_shape, dtype=object)) * self._result_dtype.itemsize
        self._allocate: Callable[..., Array] = np.empty if nbytes < _SMALL_BYTES else aligned_empty
        self._use(aligned_empty)
        # Per scratch buffer: whether it is one of packed weights, and its offset in its block.
        self._offsets = tuple(
            (b.name in lowered.packed, (lowered.packed if b.name in lowered.packed else lowered.workspace)[b.name])
            for b in self._scratch
        )
        guards = tuple(map(ArrayGuard, self._dtypes, self._shapes))
        result = ArrayGuard(self._result_dtype, self._result_shape, writable=True)
        free: list[ArrayGuard | None] = [None] * len(self._scratch)
        self._guards = (*guards, result, *free)
        self._launcher = Launcher(lowered.calls(), self._guards, self.threads)
        self._call = self._launcher.call
        self._weight_index = self._names.index("weight") if "weight" in self._names else None

    def with_memory(self, allocate: Allocate) -> CompiledConv:
        """The same operator with scratch memory and packed weights from ``allocate``, aligned as ``aligned_empty`` does."""
        other = copy.copy(self)
        other._use(allocate)
        return other

    def _use(self, allocate: Allocate) -> None:
        self._allocate_scratch = allocate
        self._pool = WorkspacePool(self.workspace_bytes, allocate)
        self._packed_pool = WorkspacePool(self._lowered.workspace_bytes, allocate)

    @property
    def spec(self) -> ConvSpec:
        """The problem."""
        return self.plan.spec

    @functools.cached_property
    def source(self) -> str:
        """The generated Python source; it runs with numpy and numba alone."""
        return source_of(self.plan, self._lowered)

    def inspect_llvm(self) -> str:
        """The LLVM text of every distinct stage."""
        return self._lowered.llvm()

    def inspect_asm(self) -> str:
        """The assembly of every distinct stage."""
        return self._lowered.assembly()

    def __call__(
        self,
        first: Array,
        second: Array | PackedWeights,
        bias: Array | None = None,
        *,
        residual: Array | None = None,
        scale: Array | None = None,
        shift: Array | None = None,
        requantize: Array | None = None,
        out: Array | None = None,
    ) -> Array:
        """Computes the problem and returns the result, in ``out`` if given.

        Raises OperandError (an operand is missing, superfluous, not an array; ``out`` overlaps an operand or cannot be
        written), ShapeError and DTypeError.
        """
        if out is None and self._is_bare and bias is residual is scale is shift is requantize is None:
            result = self._allocate(self._result_shape, self._result_dtype)
            if self._call(first, second, result):
                return result
        operands: tuple[Array, ...] = ()
        fits = self._is_plain
        if not (bias is residual is scale is shift is requantize is None):
            optional = (bias, residual, scale, shift, requantize)
            operands = tuple(operand for operand in optional if operand is not None)
            fits = tuple(operand is not None for operand in optional) == self._given
        if fits and (out is None or _is_apart(out, first, second, *operands)):
            result = self._allocate(self._result_shape, self._result_dtype) if out is None else out
            if self._run(first, second, operands, result):
                return result
        named = dict(zip(_EPILOGUE, (bias, residual, scale, shift, requantize), strict=True))
        return self._checked(first, second, named, out)

    def _run(self, first: Array, second: object, operands: tuple[Array, ...], result: Array) -> bool | None:
        """Runs if the arrays are just as the kernel wants them; None if not."""
        if type(second) is PackedWeights:
            return self._run_packed(first, second, operands, result)
        if not self._offsets:
            return self._call(first, second, *operands, result)
        base = self._pool.acquire()
        try:
            scratch = self._addresses(base, base + self._lowered.packed_bytes)
            return self._call(first, second, *operands, result, *scratch)
        finally:
            self._pool.release(base)

    def _run_packed(
        self, first: Array, packed: PackedWeights, operands: tuple[Array, ...], result: Array
    ) -> bool | None:
        """The same with packed weights, which take the place of the weights and of the packed buffers."""
        if packed.layout != self.weights_layout:
            return None
        call = self._packed_launcher.call
        if not self._packed_pool.nbytes:
            return call(first, packed.address, *operands, result, *self._addresses(packed.address, 0))
        base = self._packed_pool.acquire()
        try:
            return call(first, packed.address, *operands, result, *self._addresses(packed.address, base))
        finally:
            self._packed_pool.release(base)

    def run_at(self, first: int, second: int | PackedWeights, *others: int) -> None:
        """The call on memory: ``first`` and ``second`` as in a call, then the epilogue's operands and the result, by the
        addresses of C-contiguous, aligned arrays of the problem's shapes and dtypes. Nothing but their number is checked.

        Raises OperandError.
        """
        if not self._offsets and type(second) is int:
            self._launcher.run((first, second, *others))
            return
        if isinstance(second, PackedWeights):
            self._check_packed(self._names[1], second)
            base = self._packed_pool.acquire()
            try:
                scratch = self._addresses(second.address, base)
                self._packed_launcher.run((first, second.address, *others, *scratch))
            finally:
                self._packed_pool.release(base)
            return
        base = self._pool.acquire()
        try:
            scratch = self._addresses(base, base + self._lowered.packed_bytes)
            self._launcher.run((first, second, *others, *scratch))
        finally:
            self._pool.release(base)

    def pack_at(self, address: int) -> PackedWeights:
        """``pack`` for weights in memory, as in run_at; raises OperandError."""
        at = self._where_weights_are()
        return self._packed_from(address, math.prod(self._shapes[at]) * self._dtypes[at].itemsize, at)

    def _addresses(self, packed: int, workspace: int) -> list[int]:
        """Where the scratch buffers are, given where their blocks begin."""
        return [packed + at if is_packed else workspace + at for is_packed, at in self._offsets]

    def pack(self, weight: Array) -> PackedWeights:
        """Packs constant weights once, for any number of calls; raises as a call does."""
        at = self._where_weights_are()
        array = self._prepared("weight", weight, self._shapes[at], self._dtypes[at])
        return self._packed_from(array.ctypes.data, array.nbytes, at)

    def _where_weights_are(self) -> int:
        if self._weight_index is None:
            raise OperandError("weight cannot be packed: a weight gradient has no weights")
        return self._weight_index

    def _packed_from(self, address: int, nbytes: int, at: int) -> PackedWeights:
        """Packs so many bytes of weights, operand number ``at``; where the kernel reads them as they are, they are copied."""
        if not self._lowered.packed_bytes:
            packed = PackedWeights(self.weights_layout, nbytes, self._allocate_scratch)
            ctypes.memmove(packed.address, address, nbytes)
            return packed
        packed = PackedWeights(self.weights_layout, self._lowered.packed_bytes, self._allocate_scratch)
        addresses = [0] * (len(self._names) + 1)
        addresses[at] = address
        workspace = self._packed_pool.acquire()
        try:
            self._packer.run([*addresses, *self._addresses(packed.address, workspace)])
        finally:
            self._packed_pool.release(workspace)
        return packed

    @functools.cached_property
    def _packer(self) -> Launcher:
        return Launcher(self._lowered.calls(packing=True), self._free_guards, self.threads)

    @functools.cached_property
    def _packed_launcher(self) -> Launcher:
        guards = tuple(None if i == self._weight_index else guard for i, guard in enumerate(self._guards))
        return Launcher(self._lowered.calls(packing=False), guards, self.threads)

    @property
    def _free_guards(self) -> tuple[None, ...]:
        return (None,) * len(self._lowered.program.buffers)

    @functools.cached_property
    def weights_layout(self) -> str:
        """What packed weights must have been made for."""
        shapes = [(b.name, b.dtype, self._lowered.shape(b)) for b in self._scratch if b.space == "packed"]
        packed = (self.spec.direction, self.spec.dtype, self.spec.weight_shape, shapes, self._lowered.packing_key())
        return repr((self.plan.strategy, *packed))

    def _checked(
        self, first: Array, second: Array | PackedWeights, named: dict[str, Array | None], out: Array | None
    ) -> Array:
        """The path that explains what is wrong, or copies what the kernel cannot read in place."""
        arrays = self._operands(first, second, named)
        operands = {self._names[0]: first, self._names[1]: second, **named}
        given = {name: operand for name, operand in operands.items() if isinstance(operand, np.ndarray)}
        result = self._output(out, given)
        addresses = [array.ctypes.data if isinstance(array, np.ndarray) else 0 for array in arrays]
        is_packed = isinstance(second, PackedWeights)
        pool, launcher = (self._packed_pool, self._packed_launcher) if is_packed else (self._pool, self._launcher)
        base = pool.acquire()
        try:
            if isinstance(second, PackedWeights):
                addresses[1] = second.address
                scratch = self._addresses(second.address, base)
            else:
                scratch = self._addresses(base, base + self._lowered.packed_bytes)
            launcher.run([*addresses, result.ctypes.data, *scratch])
        finally:
            pool.release(base)
        if out is None or result is out:
            return result
        np.copyto(out, result)
        return out

    def _operands(
        self, first: Array, second: Array | PackedWeights, named: dict[str, Array | None]
    ) -> Sequence[Array | None]:
        missing = [name for name in self._names[2:] if named[name] is None]
        if missing:
            raise OperandError(f"{missing[0]} is missing; the problem's epilogue is {self.spec.epilogue.steps}")
        extra = [name for name, value in named.items() if value is not None and name not in self._names]
        if extra:
            raise OperandError(f"{extra[0]} is not part of the problem; its epilogue is {self.spec.epilogue.steps}")
        values: list[Any] = [first, second, *(named[name] for name in self._names[2:])]
        prepared: list[Array | None] = []
        for name, value, shape, dtype in zip(self._names, values, self._shapes, self._dtypes, strict=True):
            if isinstance(value, PackedWeights):
                self._check_packed(name, value)
                prepared.append(None)
            else:
                prepared.append(self._prepared(name, value, shape, dtype))
        return prepared

    def _check_packed(self, name: str, packed: PackedWeights) -> None:
        if name != "weight":
            raise OperandError(f"{name} is packed weights; only weight may be")
        if packed.layout != self.weights_layout:
            raise OperandError("weight was packed by another operator; pack it with this one")

    @staticmethod
    def _prepared(name: str, value: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """The operand as a C-contiguous aligned array, copied only if it is not; raises what is wrong with it."""
        if not isinstance(value, np.ndarray):
            raise OperandError(f"{name} is a {type(value).__name__}; allowed: numpy.ndarray")
        if value.dtype != dtype:
            raise DTypeError(f"{name} has dtype {value.dtype}; allowed: {dtype}")
        if value.shape != shape:
            raise ShapeError(f"{name} has shape {value.shape}; allowed: {shape}")
        return np.require(value, dtype, ("C", "A"))

    def _output(self, out: Array | None, operands: Mapping[str, Array]) -> Array:
        """The array to compute into: ``out`` where the kernel can write it in place."""
        if out is None:
            return self._allocate(self._result_shape, self._result_dtype)
        if not isinstance(out, np.ndarray):
            raise OperandError(f"out is a {type(out).__name__}; allowed: numpy.ndarray")
        if out.dtype != self._result_dtype:
            raise DTypeError(f"out has dtype {out.dtype}; allowed: {self._result_dtype}")
        if out.shape != self._result_shape:
            raise ShapeError(f"out has shape {out.shape}; allowed: {self._result_shape}")
        if not out.flags.writeable:
            raise OperandError("out is read-only; allowed: a writable array")
        if any(step == 0 and extent > 1 for step, extent in zip(out.strides, out.shape, strict=True)):
            raise OperandError("out overlaps itself; allowed: an array whose elements are all its own")
        for name, operand in operands.items():
            if np.may_share_memory(out, operand) and np.shares_memory(out, operand):
                raise OperandError(f"out overlaps {name}; allowed: memory of its own")
        in_place = out.flags.c_contiguous and out.flags.aligned
        return out if in_place else self._allocate(self._result_shape, self._result_dtype)


def _is_apart(out: object, *operands: object) -> bool:
    """Whether ``out`` is an array beside all operands; False also where only a closer look would tell."""
    return isinstance(out, np.ndarray) and not any(
        isinstance(operand, np.ndarray) and np.may_share_memory(out, operand) for operand in operands
    )
