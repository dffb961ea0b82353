"""A program on the CPU: its stages lowered, its workspace laid out, its source rendered."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from convgen.dtypes import DTYPES
from convgen.ir.interp import buffer_shape, evaluate_index, stage_sizes
from convgen.ir.nodes import Buffer, Program, Stage
from convgen.ir.rewrite import stores
from convgen.machine import Machine
from convgen.render import render
from convgen.runtime.launch import StageCall
from convgen.targets.cpu.build import stage_address, unit_assembly, unit_module, unit_source
from convgen.targets.cpu.lower import LoweredStage, lower_stage
from convgen.targets.cpu.mentions import WORKER_BYTES
from convgen.targets.cpu.operations import Operation, needed_functions, operation_text, vector_texts

ALIGNMENT = 64


@dataclass(frozen=True)
class BannerText:
    """The head of a generated file: one line that names the problem, and lines of facts."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class CpuProgram:
    """A program with the values of its sizes, lowered for a machine.

    ``packed`` and ``workspace`` map buffers to byte offsets in their own blocks of memory; every offset is a multiple of 64. The
    workspace ends with ``worker_bytes`` of local memory for each worker.
    """

    program: Program
    sizes: Mapping[str, int]
    machine: Machine
    stages: tuple[LoweredStage, ...]
    packed: Mapping[str, int]
    packed_bytes: int
    workspace: Mapping[str, int]
    workspace_bytes: int
    worker_bytes: int

    def shape(self, buffer: Buffer) -> tuple[int, ...]:
        """The shape of a buffer for these sizes."""
        return buffer_shape(buffer, self.sizes)

    def calls(self, *, packing: bool | None = None) -> tuple[StageCall, ...]:
        """The stages as machine code: all, or only those that pack weights, or only those that do not."""
        chosen = [
            (stage, lowered)
            for stage, lowered in zip(self.program.stages, self.stages, strict=True)
            if packing is None or self.packs(stage) == packing
        ]
        return tuple(self._call(stage, lowered) for stage, lowered in chosen)

    @property
    def scratch_bytes(self) -> int:
        """What a call needs besides its arrays: workspace, and packed weights where they are not given packed."""
        return self.packed_bytes + self.workspace_bytes

    def packs(self, stage: Stage) -> bool:
        """Whether a stage fills packed weights."""
        return any(store.buffer in self.packed for store in stores(stage.body))

    def packing_key(self) -> str:
        """Equal where weights are packed by the same code with the same sizes: 64 hexadecimal digits."""
        found = []
        for stage, lowered in zip(self.program.stages, self.stages, strict=True):
            if self.packs(stage):
                named = zip(lowered.sizes, self._extents(stage, lowered)[1], strict=True)
                # How much memory a worker has of its own changes nothing about what it packs.
                found.append((lowered.body, [(name, value) for name, value in named if name != WORKER_BYTES]))
        return hashlib.sha256(repr(found).encode()).hexdigest()

    def llvm(self) -> str:
        """LLVM's text of every distinct stage."""
        return "\n".join(f"; stage {name}\n{unit_module(source, self.machine)}" for name, source in self._units())

    def assembly(self) -> str:
        """The assembly of every distinct stage."""
        return "\n".join(f"# stage {name}\n{unit_assembly(source, self.machine)}" for name, source in self._units())

    def source(self, banner: BannerText, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """The program as one Python file that runs with numpy and numba alone; ``shapes`` are those of the operands and the
        result as a caller sees them."""
        operations = tuple(sorted({operation for stage in self.stages for operation in stage.operations}))
        needed = needed_functions(operations)
        shared = _shared_names(self.stages)
        arguments = [b for b in self.program.buffers if b.space == "operand"]
        result = next(b for b in self.program.buffers if b.space == "result")
        others = [b for b in self.program.buffers if b.space in ("packed", "workspace", "local")]
        return render(
            "cpu/kernel.py.j2",
            banner=banner,
            vectors=vector_texts(operations),
            operations=[operation_text(operation) for operation in operations],
            needs=lambda name: name in needed,
            stages=[
                {"name": stage.name, "lines": stage.body} for stage in self.stages if shared[stage.name] == stage.name
            ],
            arguments=[self._array_text(buffer, shapes[buffer.name]) for buffer in arguments],
            result=self._array_text(result, shapes[result.name]),
            workspace=[self._array_text(buffer, self.shape(buffer)) for buffer in others],
            call={
                "scratch": [self._bytes(buffer) for buffer in others],
                "buffers": ", ".join(b.name for b in self.program.buffers),
            },
            steps=[
                {"name": shared[stage.name], "sizes": list(call.sizes), "tasks": call.tasks}
                for stage, call in zip(self.stages, self._steps(), strict=True)
            ],
        )

    def _steps(self) -> tuple[StageCall, ...]:
        return tuple(
            StageCall(0, *self._extents(stage, lowered))
            for stage, lowered in zip(self.program.stages, self.stages, strict=True)
        )

    def _extents(self, stage: Stage, lowered: LoweredStage) -> tuple[int, tuple[int, ...]]:
        names = stage_sizes(stage, self.sizes)
        names[WORKER_BYTES] = self.worker_bytes
        return evaluate_index(lowered.tasks, names), tuple(names[name] for name in lowered.sizes)

    def _call(self, stage: Stage, lowered: LoweredStage) -> StageCall:
        return StageCall(stage_address(lowered, self.machine), *self._extents(stage, lowered))

    def _units(self) -> list[tuple[str, str]]:
        sources: dict[str, str] = {}
        for stage in self.stages:
            sources.setdefault(unit_source(stage), stage.name)
        return [(name, source) for source, name in sources.items()]

    def _bytes(self, buffer: Buffer) -> int:
        return math.prod(self.shape(buffer)) * DTYPES[buffer.dtype].itemsize

    @staticmethod
    def _array_text(buffer: Buffer, shape: tuple[int, ...]) -> dict[str, object]:
        is_bits = buffer.dtype == "bfloat16"
        dtype = "np.uint16" if is_bits else f"np.{buffer.dtype}"
        return {"name": buffer.name, "shape": shape, "dtype": dtype, "is_bits": is_bits}


def lower_program(program: Program, sizes: Mapping[str, int], machine: Machine, workers: int = 1) -> CpuProgram:
    """Lowers every stage that does something and lays out packed weights and the workspace of that many workers."""
    program = replace(program, stages=tuple(stage for stage in program.stages if stage.body))
    stages = tuple(lower_stage(program, stage, machine) for stage in program.stages)
    packed, packed_bytes = _layout([b for b in program.buffers if b.space == "packed"], sizes)
    workspace, workspace_bytes = _layout([b for b in program.buffers if b.space == "workspace"], sizes)
    local, worker_bytes = _layout([b for b in program.buffers if b.space == "local"], sizes)
    workspace |= {name: workspace_bytes + offset for name, offset in local.items()}
    workspace_bytes += workers * worker_bytes
    return CpuProgram(
        program, dict(sizes), machine, stages, packed, packed_bytes, workspace, workspace_bytes, worker_bytes
    )


def scratch_bytes(program: Program, sizes: Mapping[str, int], workers: int = 1) -> int:
    """What ``CpuProgram.scratch_bytes`` would be, without lowering anything."""
    spaces = {"packed": 1, "workspace": 1, "local": workers}
    return sum(
        count * _layout([b for b in program.buffers if b.space == space], sizes)[1] for space, count in spaces.items()
    )


def _layout(buffers: list[Buffer], sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    offsets: dict[str, int] = {}
    end = 0
    for buffer in buffers:
        offsets[buffer.name] = end
        size = math.prod(buffer_shape(buffer, sizes)) * DTYPES[buffer.dtype].itemsize
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, end


def _shared_names(stages: tuple[LoweredStage, ...]) -> dict[str, str]:
    """For each stage the first one with the same function."""
    first: dict[tuple[tuple[str, ...], tuple[Operation, ...]], str] = {}
    return {stage.name: first.setdefault((stage.body, stage.operations), stage.name) for stage in stages}
