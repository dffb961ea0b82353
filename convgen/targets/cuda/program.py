"""A program on a GPU: its stages lowered, its workspace laid out, its source rendered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from convgen.dtypes import DTYPES
from convgen.errors import NotApplicable
from convgen.gpu import Gpu
from convgen.ir.interp import buffer_shape, evaluate_index, stage_sizes
from convgen.ir.nodes import Buffer, Program, Stage
from convgen.ir.rewrite import stores
from convgen.render import render
from convgen.targets.cuda.build import Cubin, stage_cubin, stage_ptx
from convgen.targets.cuda.lower import LoweredStage, lower_stage
from convgen.targets.cuda.operations import needed_functions, operation_text, vector_texts

# What every allocation on a device is aligned to, and more than any access needs.
ALIGNMENT = 256
# Places in arrays are computed in 32 bits where they are divided.
MOST_ELEMENTS = 2**31 - 1
# The shared memory of a block that need not be asked for, in bytes.
GRANTED_SHARED = 48 * 1024
SCRATCH = ("packed", "workspace")


@dataclass(frozen=True)
class Launch:
    """One kernel of a call: the buffers whose addresses it is given, then the values of its sizes; its grid and its blocks."""

    stage: LoweredStage
    sizes: tuple[int, ...]
    blocks: int


@dataclass(frozen=True)
class CudaProgram:
    """A program with the values of its sizes, lowered for a kind of GPU.

    ``packed`` and ``workspace`` map buffers to byte offsets in their own blocks of memory; every offset is a multiple of 256.
    """

    program: Program
    sizes: Mapping[str, int]
    gpu: Gpu
    stages: tuple[LoweredStage, ...]
    packed: Mapping[str, int]
    packed_bytes: int
    workspace: Mapping[str, int]
    workspace_bytes: int

    @property
    def scratch_bytes(self) -> int:
        """What a call needs besides its arrays: workspace, and packed weights where they are not given packed."""
        return self.packed_bytes + self.workspace_bytes

    def shape(self, buffer: Buffer) -> tuple[int, ...]:
        """The shape of a buffer for these sizes."""
        return buffer_shape(buffer, self.sizes)

    def launches(self, *, packing: bool | None = None) -> tuple[Launch, ...]:
        """The kernels of a call, in order: all, or only those that pack weights, or only those that do not."""
        return tuple(
            self._launch(stage, lowered)
            for stage, lowered in zip(self.program.stages, self.stages, strict=True)
            if packing is None or self.packs(stage) == packing
        )

    def packs(self, stage: Stage) -> bool:
        """Whether a stage fills packed weights."""
        return any(store.buffer in self.packed for store in stores(stage.body))

    def ptx(self) -> str:
        """The PTX of every stage."""
        return "\n".join(stage_ptx(stage, self.gpu) for stage in self.stages)

    def cubins(self) -> tuple[Cubin, ...]:
        """The machine code of every stage, in order."""
        return tuple(stage_cubin(stage, self.gpu) for stage in self.stages)

    def source(self, title: str, facts: tuple[str, ...], shapes: Mapping[str, tuple[int, ...]]) -> str:
        """The program as one Python file that runs with numpy and numba-cuda alone; ``shapes`` are those of the operands and the
        result as a caller sees them."""
        operations = tuple(sorted({operation for stage in self.stages for operation in stage.operations}))
        needed = needed_functions(operations)
        buffers = self.program.buffers
        result = next(b for b in buffers if b.space == "result")
        return render(
            "cuda/kernel.py.j2",
            title=title,
            granted=GRANTED_SHARED,
            asks_for_memory=any(stage.shared_bytes > GRANTED_SHARED for stage in self.stages),
            facts=facts,
            vectors=vector_texts(operations),
            operations=[operation_text(operation) for operation in operations],
            needs=lambda name: name in needed,
            stages=[
                {
                    "name": stage.name,
                    "parameters": stage.parameters,
                    "lines": stage.body,
                    "threads": stage.threads,
                    "signature": ", ".join(["i64"] * (len(stage.buffers) + len(stage.sizes))),
                }
                for stage in self.stages
            ],
            arguments=[_array_text(b, shapes[b.name]) for b in buffers if b.space == "operand"],
            result=_array_text(result, shapes[result.name]),
            scratch=[{"name": b.name, "bytes": self._bytes(b)} for b in buffers if b.space in SCRATCH],
            launches=[
                {
                    "name": launch.stage.name,
                    "blocks": launch.blocks,
                    "threads": launch.stage.threads,
                    "shared": launch.stage.shared_bytes,
                    "arguments": ", ".join(
                        (*(f"address({name})" for name in launch.stage.buffers), *map(str, launch.sizes))
                    ),
                }
                for launch in self.launches()
            ],
        )

    def _launch(self, stage: Stage, lowered: LoweredStage) -> Launch:
        names = stage_sizes(stage, self.sizes)
        return Launch(lowered, tuple(names[name] for name in lowered.sizes), evaluate_index(lowered.blocks, names))

    def _bytes(self, buffer: Buffer) -> int:
        return math.prod(self.shape(buffer)) * DTYPES[buffer.dtype].itemsize


def _array_text(buffer: Buffer, shape: tuple[int, ...]) -> dict[str, object]:
    is_bits = buffer.dtype == "bfloat16"
    return {
        "name": buffer.name,
        "shape": shape,
        "dtype": "np.uint16" if is_bits else f"np.{buffer.dtype}",
        "is_bits": is_bits,
    }


def lower_program(program: Program, sizes: Mapping[str, int], gpu: Gpu) -> CudaProgram:
    """Lowers every stage that does something and lays out packed weights and the workspace.

    Raises NotApplicable for arrays beyond what 32 bits count, and for blocks with more shared memory than there is.
    """
    program = replace(program, stages=tuple(stage for stage in program.stages if stage.body))
    for buffer in program.buffers:
        if math.prod(buffer_shape(buffer, sizes)) > MOST_ELEMENTS:
            raise NotApplicable(
                f"{buffer.name} has more than {MOST_ELEMENTS} elements, which the CUDA target counts in 32 bits"
            )
    stages = tuple(lower_stage(program, stage) for stage in program.stages)
    for lowered in stages:
        if lowered.shared_bytes > gpu.shared_per_block:
            raise NotApplicable(
                f"stage {lowered.name} shares {lowered.shared_bytes} bytes a block; a GPU of capability {gpu.name} has "
                f"{gpu.shared_per_block}"
            )
    packed, packed_bytes = _layout([b for b in program.buffers if b.space == "packed"], sizes)
    workspace, workspace_bytes = _layout([b for b in program.buffers if b.space == "workspace"], sizes)
    return CudaProgram(program, dict(sizes), gpu, stages, packed, packed_bytes, workspace, workspace_bytes)


def _layout(buffers: list[Buffer], sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    offsets: dict[str, int] = {}
    end = 0
    for buffer in buffers:
        offsets[buffer.name] = end
        size = math.prod(buffer_shape(buffer, sizes)) * DTYPES[buffer.dtype].itemsize
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, end
