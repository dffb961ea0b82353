"""Numba as a front end: from the text of a unit to optimised LLVM text.

Kernels are plain loops over integers and vectors, so the passes of Numba's pipeline that rewrite closures, array expressions,
literals and dead branches have nothing to find; leaving them out saves a third of the time.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core.compiler import CompilerBase, Flags, compile_extra
from numba.core.compiler_machinery import PassManager
from numba.core.typed_passes import AnnotateTypes, NativeLowering, NoPythonBackend, NopythonTypeInference
from numba.core.untyped_passes import FixupArgs, IRProcessing, TranslateByteCode

from convgen.targets.cpu.numba_contexts import kernel_contexts


class KernelPipeline(CompilerBase):
    """Bytecode, types, LLVM; nothing else."""

    def define_pipelines(self) -> list[PassManager]:
        manager = PassManager("convgen kernel")
        manager.add_pass(TranslateByteCode, "analyzing bytecode")
        manager.add_pass(FixupArgs, "fix up args")
        manager.add_pass(IRProcessing, "processing IR")
        manager.add_pass(NopythonTypeInference, "nopython frontend")
        manager.add_pass(AnnotateTypes, "annotate types")
        manager.add_pass(NativeLowering, "native lowering")
        manager.add_pass(NoPythonBackend, "nopython mode backend")
        manager.finalize()
        return [manager]


def optimised_llvm(source: str, function: str) -> tuple[str, str]:
    """LLVM's text of a unit's stage and the name that Numba gave the stage in it; raises what Numba raises."""
    namespace: dict[str, Any] = {}
    exec(compile(source, "<convgen kernel>", "exec"), namespace)
    flags = Flags()
    flags.error_model = "numpy"
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    pointer = types.CPointer(types.int64)
    compiled = compile_extra(
        *kernel_contexts(),
        namespace[function],
        (pointer, pointer, types.int64, types.int64, types.int64),
        types.void,
        flags,
        {},
        pipeline_class=KernelPipeline,
    )
    return compiled.library.get_llvm_str(), compiled.fndesc.llvm_func_name
