"""block_reduction: a sum of no terms is stored as well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convgen.ir.interp import interpret
from convgen.ir.nodes import Index, Int, Var
from convgen.ir.rewrite import rewrite_named
from convgen.passes.block_reduction import BlockReduction
from convgen.passes.pipeline import run_passes
from tests.passes.small import product


@pytest.mark.parametrize("extent", [Int(0), Var("R")])
def test_sums_of_nothing_are_zero(extent: Index) -> None:
    program = rewrite_named(product(), "r", lambda loop: (replace(loop, extent=extent),))
    program = replace(program, sizes=(*program.sizes, "R"))
    blocked = run_passes(program, (BlockReduction("r", 2, "j", "part"),))
    sizes = {**dict.fromkeys(program.sizes, 2), "R": 0}
    arrays = {"x": np.ones((2, 3), np.float32), "w": np.ones((3, 6), np.float32)}
    np.testing.assert_array_equal(interpret(blocked, sizes, arrays)["y"], np.zeros((2, 6)))
