"""Integers at a problem's full size whose right answer the oracle finds from two images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convgen.spec import ConvSpec
from convgen.transforms.split import Algorithms
from convgen.verify import Expectation, Operands, expect_integers, integer_operands

# Of the batch, so many images differ.
_IMAGES = 2
# The operands that have a batch.
_BATCHED = ("input", "grad_output", "residual")


@dataclass(frozen=True)
class Question:
    """Operands, and what must come of them: ``expected`` for ``images`` images if the result has a batch, which repeats
    these."""

    operands: Operands
    expected: Expectation
    images: int

    def flaw(self, result: np.ndarray) -> str:
        """What is wrong with a result; empty if nothing is."""
        if not self.images:
            return self.expected.check(result).reason
        reason = self.expected.check(result[: self.images]).reason
        if reason:
            return reason
        copies = result[np.arange(len(result)) % self.images]
        wrong = np.flatnonzero(~np.equal(result, copies).reshape(len(result), -1).all(axis=1))
        return f"image {wrong[0]} of the batch is not what image {wrong[0] % self.images} is" if len(wrong) else ""


def integer_question(spec: ConvSpec, rng: np.random.Generator, algorithms: Algorithms = ()) -> Question:
    """Small integers for every operand, on which kernels of these algorithms are exact, or nearly.

    The images of a batch are independent of each other, so two are enough for the oracle, and the batch repeats them; in a weight
    gradient they stand somewhere in a batch that is zero otherwise.
    """
    images = min(spec.batch, _IMAGES)
    small = spec.replace(batch=images)
    operands = integer_operands(small, rng, algorithms)
    expected = expect_integers(small, operands, algorithms)
    sums = spec.direction == "backward_weights"
    if spec.batch == images:
        return Question(operands, expected, 0)
    places = rng.choice(spec.batch, images, replace=False)

    def whole(name: str, array: np.ndarray) -> np.ndarray:
        if name not in _BATCHED:
            return array
        if not sums:
            repeated: np.ndarray = array[np.arange(spec.batch) % images]
            return repeated
        spread = np.zeros((spec.batch, *array.shape[1:]), array.dtype)
        spread[places] = array
        return spread

    names = tuple(spec.operand_shapes)
    main = tuple(whole(name, array) for name, array in zip(names, operands.main, strict=False))
    epilogue = {name: whole(name, array) for name, array in operands.epilogue.items()}
    return Question(Operands(main, epilogue), expected, 0 if sums else images)
