"""fuse_epilogue: an elementwise stage moves into the stores of the stage that feeds it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.nodes import Index, Load, Program, Stage, Stmt, Store, Value, Var
from convgen.ir.rewrite import map_body, map_value, perfect_nest, reads, stores, substitute


@dataclass(frozen=True)
class FuseEpilogue:
    """stage a: s[i + 1] = v;  stage b: for j: y[j] = f(s[j], b[j])   →   stage a: y[i + 1] = f(v, b[i + 1])

    Requires: ``stage`` is one perfect nest around one store, reads ``sums`` only at its loop variables, which cover it;
    nobody else reads ``sums``; what else it reads is stored before them. Ensures: neither the stage nor the buffer remains.
    """

    stage: str
    sums: str

    def __call__(self, program: Program) -> Program:
        epilogue = next((stage for stage in program.stages if stage.name == self.stage), None)
        if epilogue is None:
            raise IRError(f"there is no stage {self.stage}")
        axes, store = self._shape(epilogue, program)
        self._check_order(program, epilogue, store)
        stages = []
        for stage in program.stages:
            if stage is epilogue:
                continue
            if any(read.buffer == self.sums for read in reads(stage.body)):
                raise IRError(f"{self.sums} is read by stage {stage.name} too")
            stages.append(replace(stage, body=tuple(self._fused(inner, axes, store) for inner in stage.body)))
        buffers = tuple(buffer for buffer in program.buffers if buffer.name != self.sums)
        return replace(program, buffers=buffers, stages=tuple(stages))

    def _check_order(self, program: Program, epilogue: Stage, store: Store) -> None:
        """What the epilogue touches must be final before the first store to ``sums``, where it will run."""
        touched = {read.buffer for read in reads((store,))} - {self.sums} | {store.buffer}
        begun = False
        for stage in program.stages[: program.stages.index(epilogue)]:
            stored = {inner.buffer for inner in stores(stage.body)}
            begun = begun or self.sums in stored
            if begun and stored & touched:
                raise IRError(f"{sorted(stored & touched)} is stored by stage {stage.name}, too late for {self.stage}")

    def _shape(self, stage: Stage, program: Program) -> tuple[tuple[str, ...], Store]:
        """The loop variables in the order of the axes of ``sums``, and the one store inside."""
        nest, body = perfect_nest(stage.body)
        extents = {loop.var: loop.extent for loop in nest}
        if len(body) != 1 or not isinstance(store := body[0], Store):
            raise IRError(f"stage {self.stage} is not a nest around one store")
        places = {read.index for read in reads(body) if read.buffer == self.sums}
        if len(places) != 1:
            raise IRError(f"stage {self.stage} reads {self.sums} at {len(places)} places")
        axes = tuple(index.name if isinstance(index, Var) else "" for index in places.pop())
        covered = tuple(extents.get(axis) for axis in axes)
        if covered != program.buffer(self.sums).shape or sorted(axes) != sorted(extents):
            raise IRError(f"stage {self.stage} does not cover {self.sums} once")
        return axes, store

    def _fused(self, statement: Stmt, axes: tuple[str, ...], epilogue: Store) -> Stmt:
        match statement:
            case Store(buffer, index, value) if buffer == self.sums:
                return self._store(dict(zip(axes, index, strict=True)), value, epilogue)
            case _:
                return map_body(statement, lambda body: tuple(self._fused(inner, axes, epilogue) for inner in body))

    def _store(self, places: dict[str, Index], value: Value, epilogue: Store) -> Store:
        def index(expression: Index) -> Index:
            return substitute(expression, places)

        def visit(node: Value) -> Value:
            match node:
                case Load(buffer) if buffer == self.sums:
                    return value
                case _:
                    return node

        return Store(epilogue.buffer, tuple(map(index, epilogue.index)), map_value(epilogue.value, index, visit))
