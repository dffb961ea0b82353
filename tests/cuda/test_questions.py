"""Questions whose answer the oracle finds from two images."""

from __future__ import annotations

import numpy as np
import pytest

from convgen.cuda.questions import integer_question
from convgen.oracle import reference
from convgen.spec import ConvSpec, Epilogue


@pytest.mark.parametrize("direction", ["forward", "backward_data", "backward_weights"])
@pytest.mark.parametrize("batch", [0, 1, 2, 5])
def test_the_oracle_at_full_size_agrees(direction: str, batch: int) -> None:
    epilogue = Epilogue(("residual", "relu")) if direction == "forward" else Epilogue()
    spec = ConvSpec(
        batch=batch,
        in_channels=3,
        out_channels=4,
        spatial_size=(5, 4),
        kernel_size=3,
        padding=1,
        layout="channels_last",
        epilogue=epilogue,
    ).replace(direction=direction)
    question = integer_question(spec, np.random.default_rng(0))
    operands = question.operands
    result = reference(spec, *operands.main, **operands.epilogue).astype(np.float32)
    assert question.flaw(result) == ""
    for place in {0, len(result) - 1} if result.size else ():
        wrong = result.copy()
        wrong[place].flat[-1] += 1
        assert question.flaw(wrong)
