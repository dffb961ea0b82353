"""CudaConv: a problem compiled for a kind of GPU."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from convgen.cuda.calls import DeviceCalls, PackedCudaWeights, expected_operands, operands_of, weights_layout
from convgen.cuda.device import Device, device_numbered, gpu_of_device
from convgen.cuda.plans import cuda_source, lower_cuda, plan_cuda
from convgen.cuda.results import known_result
from convgen.driver import Plan
from convgen.dtypes import DTYPES
from convgen.errors import DTypeError, OperandError, ShapeError
from convgen.gpu import DEFAULT_CAPABILITY, Gpu, gpu_of
from convgen.spec import ConvSpec
from convgen.targets.cuda.build import Cubin, Resources, disassembly, stage_ptx
from convgen.targets.cuda.interp import Compiled, compile_kernel, parse, run
from convgen.targets.cuda.lower import LoweredStage
from convgen.tuning.space import Config

Array = np.ndarray[Any, Any]


class CudaConv:
    """A convolution compiled for one problem and one kind of GPU; operands are named as those of ``convgen.CompiledConv``.

    ``plan`` says how it is computed, ``workspace_bytes`` how much scratch memory of the device a call uses, ``source`` is the
    generated Python, ``ptx`` what it compiles to; none of these needs a device, and ``interpret`` runs without one. Calls, and
    ``pack``, run on a device: see ``__call__``.
    """

    def __init__(self, plan: Plan, gpu: Gpu) -> None:
        self.plan = plan
        self.gpu = gpu
        self._lowered = lower_cuda(plan, gpu)
        self.workspace_bytes = self._lowered.scratch_bytes
        self._expected = expected_operands(plan.spec)
        self._on_device: dict[Device, DeviceCalls] = {}
        self._compiled: dict[str, Compiled] = {}

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

    @functools.cached_property
    def weights_layout(self) -> str:
        """What packed weights must have been made for; operators of the same layout share them."""
        return weights_layout(self.spec, self._lowered)

    @property
    def resources(self) -> Mapping[str, Resources]:
        """What each stage's kernel takes, by its name."""
        return {stage.name: cubin.resources for stage, cubin in zip(self._lowered.stages, self.cubins, strict=True)}

    def sass(self) -> str:
        """The machine code of all stages as text; raises MissingDependencyError without nvdisasm."""
        return "\n".join(disassembly(cubin) for cubin in self.cubins)

    def __call__(
        self,
        first: Any,
        second: Any,
        bias: Any = None,
        *,
        residual: Any = None,
        scale: Any = None,
        shift: Any = None,
        requantize: Any = None,
        out: Any = None,
        stream: Any = None,
    ) -> Any:
        """Starts the kernels of a call on a device and returns the result, which is there when the stream comes to it.

        Operands are arrays on one CUDA device, of torch, cupy, numba or any other library with ``__cuda_array_interface__``
        or DLPack, in the shapes of ``spec.operand_shapes``; ``second`` may be what ``pack`` made of it. The result is an array
        of the first operand's library (a ``DeviceArray`` where that cannot make one), or ``out``. ``stream`` is a stream of one
        of these libraries or its address; by default it is the one that the first operand's library would use. It waits for what
        is on the streams that the operands are made on, for torch and cupy their current ones; the caller does not wait, and
        leaves the operands' memory alone until the kernels are done. Gradients are not recorded.

        Calls can be captured into CUDA graphs once the same call has been made on that stream, which compiles and loads the
        kernels; with libraries other than torch and cupy, whose allocators know of graphs, only with ``out``.

        Arrays of torch and cupy that are not in C order, or do not begin at a multiple of 16 bytes, are copied; others, and
        ``out``, are refused, as is an ``out`` that may be read-only. The first call on a device loads the kernels, and compiles
        them where the cache has none.

        Raises OperandError, ShapeError and DTypeError for operands that do not fit; NotApplicable without a device, or on one
        that the kernels were not made for; MissingDependencyError without NVIDIA's driver; DeviceError for what the driver
        refuses, which may be the fault of an earlier call.
        """
        first_name, second_name = list(self._expected)[:2]
        packed = second if isinstance(second, PackedCudaWeights) else None
        epilogue = {"bias": bias, "residual": residual, "scale": scale, "shift": shift, "requantize": requantize}
        arrays = {first_name: first, second_name: second}
        arrays |= {name: array for name, array in epilogue.items() if array is not None}
        self._check_names(arrays)
        if packed is not None:
            del arrays[second_name]
        operands = operands_of(self._expected, arrays, stream)
        calls = self._calls(operands.device)
        if packed is not None and not packed.is_of(calls):
            raise OperandError(
                f"{second_name} was packed by another operator, or for another device; allowed: by one of its layout"
            )
        return calls.call(operands, out, packed)

    def pack(self, weight: Any, *, stream: Any = None) -> PackedCudaWeights:
        """Weights on a device in the order in which the kernels read them, for constant weights; waits until they are there.

        Raises OperandError for a weight gradient, which has none, and what ``__call__`` does.
        """
        if self.spec.direction == "backward_weights":
            raise OperandError("weight cannot be packed: a weight gradient has no weights")
        name = list(self._expected)[1]
        operands = operands_of(self._expected, {name: weight}, stream)
        return self._calls(operands.device).pack(name, operands)

    def _calls(self, device: Device) -> DeviceCalls:
        found = self._on_device.get(device)
        if found is None:
            cubins = {stage.name: cubin for stage, cubin in zip(self._lowered.stages, self.cubins, strict=True)}
            found = DeviceCalls(self.spec, self._lowered, cubins, device)
            # Of two threads the later one's is dropped: weights that it packs meanwhile must be of the same.
            found = self._on_device.setdefault(device, found)
        return found

    def _check_names(self, given: Mapping[str, object]) -> None:
        if given.keys() != self._expected.keys():
            raise OperandError(f"operands are {', '.join(given)}; allowed: {', '.join(self._expected)}")

    def interpret(self, first: Array, second: Array, *, seed: int | None = 0, **epilogue: Array) -> Array:
        """Runs the PTX of a call on NumPy arrays, as a device would run it, and returns the result.

        ``epilogue`` names the operands bias, residual, scale, shift and requantize. Warps run in an order that ``seed`` decides,
        or all in step where it is None, which is quicker; scratch memory and the result begin as NaN. Raises OperandError,
        ShapeError and DTypeError, and KernelFault for what a kernel may not do: an access outside of an array, a race, a barrier
        that not all threads reach.
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
                self._interpreted(stage),
                grid=(launch.blocks, 1, 1),
                block=(stage.threads, 1, 1),
                arguments=[*(arrays[name] for name in stage.buffers), *map(np.int64, launch.sizes)],
                dynamic_shared=stage.shared_bytes,
                seed=seed,
            )
        result = next(buffer.name for buffer in program.buffers if buffer.space == "result")
        return arrays[result].reshape(self.spec.result_shape)

    def _interpreted(self, stage: LoweredStage) -> Compiled:
        """A stage's kernel, ready to be interpreted."""
        if stage.name not in self._compiled:
            self._compiled[stage.name] = compile_kernel(parse(stage_ptx(stage, self.gpu)), stage.name)
        return self._compiled[stage.name]

    def _operands(self, first: Array, second: Array, epilogue: Mapping[str, Array]) -> dict[str, Array]:
        """The operands by name, in C order; copies, so that nothing that a kernel does reaches the caller's arrays."""
        names = tuple(self.spec.operand_shapes)
        given = dict(zip(names, (first, second), strict=False)) | dict(epilogue)
        self._check_names(given)
        found: dict[str, Array] = {}
        for name, shape in self.spec.operand_shapes.items():
            array, dtype = np.asarray(given[name]), DTYPES[self.spec.operand_dtype(name)].numpy
            if array.shape != shape:
                raise ShapeError(f"{name} has shape {array.shape}; allowed: {shape}")
            if array.dtype != dtype:
                raise DTypeError(f"{name} has dtype {array.dtype}; allowed: {dtype}")
            found[name] = np.array(array, order="C")
            found[name].flags.writeable = False
        return found


def compile_spec(
    spec: ConvSpec,
    strategy: str = "auto",
    *,
    capability: str = DEFAULT_CAPABILITY,
    config: Config | None = None,
    device: int | None = None,
) -> CudaConv:
    """The problem for GPUs of a compute capability such as "9.0", by the strategy named or the one predicted to be the fastest.

    ``device`` is the number of one of this machine's: then the capability is its own, and what ``convgen.cuda.tune`` found there
    is taken. Raises OptionError for an unknown capability, NotApplicable, also for a device of one, and, with ``device``,
    MissingDependencyError.
    """
    if device is None:
        gpu = gpu_of(capability)
        return CudaConv(plan_cuda(spec, gpu, strategy, config), gpu)
    facts = device_numbered(device).facts
    gpu = gpu_of_device(facts)
    known = known_result(spec, facts) if strategy == "auto" and config is None else None
    return CudaConv(known.plan if known else plan_cuda(spec, gpu, strategy, config), gpu)
