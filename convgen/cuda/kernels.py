"""CudaConv: a problem compiled for a kind of GPU."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from convgen.cuda.plans import cuda_source, lower_cuda, plan_cuda
from convgen.driver import Plan
from convgen.dtypes import DTYPES
from convgen.errors import DTypeError, OperandError, ShapeError
from convgen.gpu import DEFAULT_CAPABILITY, Gpu, gpu_of
from convgen.spec import ConvSpec
from convgen.targets.cuda.build import Cubin, Resources, disassembly, stage_ptx
from convgen.targets.cuda.interp import parse, run
from convgen.tuning.space import Config

Array = np.ndarray[Any, Any]


class CudaConv:
    """A convolution compiled for one problem and one kind of GPU; operands are named as those of ``convgen.CompiledConv``.

    ``plan`` says how it is computed, ``workspace_bytes`` how much scratch memory of the device a call uses, ``source`` is the
    generated Python, ``ptx`` what it compiles to; none of these needs a device.
    """

    def __init__(self, plan: Plan, gpu: Gpu) -> None:
        self.plan = plan
        self.gpu = gpu
        self._lowered = lower_cuda(plan, gpu)
        self.workspace_bytes = self._lowered.scratch_bytes

    @property
    def spec(self) -> ConvSpec:
        """The problem."""
        return self.plan.spec

    @functools.cached_property
    def source(self) -> str:
        """The generated Python source; it runs with numpy and numba-cuda alone."""
        return cuda_source(self.plan, self._lowered)

    @functools.cached_property
    def ptx(self) -> str:
        """The PTX of all stages. Raises MissingDependencyError without numba-cuda."""
        return self._lowered.ptx()

    @functools.cached_property
    def cubins(self) -> tuple[Cubin, ...]:
        """The machine code of all stages; raises MissingDependencyError without the CUDA compiler."""
        return self._lowered.cubins()

    @property
    def resources(self) -> Mapping[str, Resources]:
        """What each stage's kernel takes, by its name."""
        return {stage.name: cubin.resources for stage, cubin in zip(self._lowered.stages, self.cubins, strict=True)}

    def sass(self) -> str:
        """The machine code of all stages as text; raises MissingDependencyError without nvdisasm."""
        return "\n".join(disassembly(cubin) for cubin in self.cubins)

    def interpret(self, first: Array, second: Array, *, seed: int = 0, **epilogue: Array) -> Array:
        """Runs the PTX of a call on NumPy arrays, as a device would run it, and returns the result.

        ``epilogue`` names the operands bias, residual, scale, shift and requantize. Warps run in an order that ``seed`` decides;
        scratch memory and the result begin as NaN. Raises OperandError, ShapeError and DTypeError, and KernelFault for what a
        kernel may not do: an access outside of an array, a race, a barrier that not all threads reach.
        """
        arrays = self._operands(first, second, epilogue)
        program = self._lowered.program
        for buffer in program.buffers:
            if buffer.space == "local" or buffer.name in arrays:
                continue
            dtype = DTYPES[buffer.dtype].numpy
            poison = np.iinfo(dtype).max if dtype.kind in "iu" else np.nan
            arrays[buffer.name] = np.full(self._lowered.shape(buffer), poison, dtype)
        for launch in self._lowered.launches():
            if not launch.blocks:
                continue
            stage = launch.stage
            run(
                parse(stage_ptx(stage, self.gpu)),
                stage.name,
                grid=(launch.blocks, 1, 1),
                block=(stage.threads, 1, 1),
                arguments=[*(arrays[name] for name in stage.buffers), *map(np.int64, launch.sizes)],
                dynamic_shared=stage.shared_bytes,
                seed=seed,
            )
        result = next(buffer.name for buffer in program.buffers if buffer.space == "result")
        return arrays[result].reshape(self.spec.result_shape)

    def _operands(self, first: Array, second: Array, epilogue: Mapping[str, Array]) -> dict[str, Array]:
        """The operands by name, in C order; copies, so that nothing that a kernel does reaches the caller's arrays."""
        names = tuple(self.spec.operand_shapes)
        given = dict(zip(names, (first, second), strict=False)) | dict(epilogue)
        if given.keys() != set(names):
            raise OperandError(f"operands are {', '.join(given)}; allowed: {', '.join(names)}")
        found: dict[str, Array] = {}
        for name, shape in self.spec.operand_shapes.items():
            array, dtype = np.asarray(given[name]), DTYPES[self.spec.operand_dtype(name)].numpy
            if array.shape != shape:
                raise ShapeError(f"{name} has shape {array.shape}; allowed: {shape}")
            if array.dtype != dtype:
                raise DTypeError(f"{name} has dtype {array.dtype}; allowed: {dtype}")
            found[name] = np.array(array, order="C")
        return found


def compile_spec(
    spec: ConvSpec,
    strategy: str = "auto",
    *,
    capability: str = DEFAULT_CAPABILITY,
    config: Config | None = None,
) -> CudaConv:
    """The problem for GPUs of a compute capability such as "9.0", by the strategy named or the one predicted to be the fastest.

    Raises OptionError for an unknown capability and NotApplicable.
    """
    gpu = gpu_of(capability)
    return CudaConv(plan_cuda(spec, gpu, strategy, config), gpu)
