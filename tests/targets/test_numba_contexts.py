"""Numba's contexts with a memory give what Numba's own give, and leave those alone."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from numba import njit, types
from numba.core.registry import cpu_target

from convgen.targets.cpu.numba_contexts import OnceTyped, kernel_contexts

OPERATORS = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.lt, operator.getitem)


@pytest.mark.parametrize("function", OPERATORS, ids=lambda f: f.__name__)
def test_signatures_are_numbas(function: object) -> None:
    ours, theirs = kernel_contexts()[0], cpu_target.typing_context
    first = types.CPointer(types.int64) if function is operator.getitem else types.int64
    for second in (types.int64, types.literal(3), types.literal(7)):
        arguments = (first, second)
        found = ours.resolve_value_type(function).get_call_type(ours, arguments, {})
        assert found == theirs.resolve_value_type(function).get_call_type(theirs, arguments, {})


def test_templates_are_tried_once_for_all_literals() -> None:
    typing, _ = kernel_contexts()
    kind = typing.resolve_value_type(operator.mul)
    assert isinstance(kind, OnceTyped)
    assert kind is typing.resolve_value_type(operator.mul)
    found = [typing.resolve_function_type(kind, (types.int64, types.literal(n)), {}) for n in (3, 4)]
    assert found[0] is found[1]


def test_implementations_are_looked_for_once_a_function() -> None:
    typing, target = kernel_contexts()
    kind = typing.resolve_value_type(operator.add)
    signature = typing.resolve_function_type(kind, (types.int64, types.int64), {})
    one, other = target.subtarget(), target.subtarget()
    assert one.get_function(kind, signature) is one.get_function(kind, signature)
    assert one.get_function(kind, signature) is not other.get_function(kind, signature)


def test_numbas_own_contexts_stay_as_they_are() -> None:
    kernel_contexts()
    assert type(cpu_target.typing_context.resolve_value_type(operator.add)) is types.Function
    assert cpu_target.target_context.typing_context is cpu_target.typing_context
    assert njit(lambda a, b: a + b)(np.arange(3), 2).tolist() == [2, 3, 4]
