"""Numba's contexts with a memory: what an operation on given types is, is found out once a kernel.

Numba types and lowers every call and every ``+`` by trying all templates that could fit. A kernel has hundreds of them and a
dozen different ones. For some functions of integers these contexts have implementations of their own. They share all registries
with Numba's contexts, and nobody but convgen uses them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cpu import CPUContext
from numba.core.registry import cpu_target
from numba.core.typing import Context, Signature, signature

from convgen.targets.cpu.numba_integers import INTEGER_FUNCTIONS, Emit

_INTEGERS = (types.int64, types.int64)


class OnceTyped(types.Function):
    """A function's type that tries its templates once for the same argument types, whatever the values of literals."""

    def __init__(self, templates: tuple[type, ...]) -> None:
        super().__init__(templates)
        self.signatures: dict[tuple[types.Type, ...], Signature] = {}

    def get_call_type(self, context: Context, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        if kws:
            return super().get_call_type(context, args, kws)
        args = tuple(map(types.unliteral, args))
        if args not in self.signatures:
            self.signatures[args] = super().get_call_type(context, args, kws)
        return self.signatures[args]


class KernelTyping(Context):
    """A typing context in which functions are ``OnceTyped``."""

    _operators: dict[BuiltinFunctionType, types.Type]

    def resolve_value_type(self, val: Any) -> types.Type:
        """The type of a global or an operator."""
        if not isinstance(val, BuiltinFunctionType):
            return _once_typed(super().resolve_value_type(val))
        if val not in self._operators:
            self._operators[val] = found = _once_typed(super().resolve_value_type(val))
            if val in INTEGER_FUNCTIONS and isinstance(found, OnceTyped):
                found.signatures[_INTEGERS] = signature(types.int64, *_INTEGERS)
        return self._operators[val]

    def resolve_function_type(self, func: Any, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        """The signature of a call."""
        if isinstance(func, OnceTyped):
            return func.get_call_type(self, args, kws)
        return super().resolve_function_type(func, args, kws)


def _once_typed(kind: types.Type) -> types.Type:
    # Equal types are one object in Numba, so that all mentions of a function share what they remember.
    return OnceTyped(kind.templates) if type(kind) is types.Function else kind


@functools.cache
def _implementation(emit: Emit) -> Callable[..., ir.Value]:
    return lambda builder, values, loc=None: emit(builder, *values)


class KernelTarget(CPUContext):
    """A target context that looks for the implementation of a function on given types once."""

    _found: dict[tuple[Any, Signature], Any]

    def subtarget(self, **changes: Any) -> KernelTarget:
        """A copy for one function; implementations hold the context that they were found in."""
        changed: KernelTarget = super().subtarget(**changes)
        changed._found = {}
        return changed

    def get_function(self, fn: Any, sig: Signature, _firstcall: bool = True) -> Any:
        """The implementation of ``fn``, which takes a builder and the values of the arguments."""
        if isinstance(fn, OnceTyped) and sig.args == _INTEGERS and fn.typing_key in INTEGER_FUNCTIONS:
            return _implementation(INTEGER_FUNCTIONS[fn.typing_key])
        key = (fn, sig)
        if key not in self._found:
            self._found[key] = super().get_function(fn, sig, _firstcall)
        return self._found[key]


@functools.cache
def kernel_contexts() -> tuple[KernelTyping, KernelTarget]:
    """The typing and the target context that kernels are compiled with."""
    cpu_target.target_context.refresh()
    typing, target = KernelTyping.__new__(KernelTyping), KernelTarget.__new__(KernelTarget)
    typing.__dict__.update(cpu_target.typing_context.__dict__, _operators={})
    target.__dict__.update(cpu_target.target_context.__dict__, typing_context=typing, _found={})
    return typing, target
