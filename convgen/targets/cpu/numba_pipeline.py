"""Numba as a front end: from the text of a unit to LLVM text that nothing has optimised yet.

Kernels are plain loops over integers and vectors, so the passes of Numba's pipeline that rewrite closures, array expressions,
literals and dead branches have nothing to find; leaving them out saves a third of the time. Numba also optimises what it emits
twice, which the optimisation for the kernel's machine would only repeat.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from numba import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, Flags, compile_extra
from numba.core.compiler_lock import global_compiler_lock
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


class KernelLibrary(JITCodeLibrary):
    """A unit's module, linked with what it calls, neither optimised nor handed to Numba's engine."""

    def _optimize_functions(self, ll_module: llvm.ModuleRef) -> None:
        pass

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True


def plain_llvm(source: str, function: str) -> tuple[str, str]:
    """LLVM's text of a unit's stage and the name that Numba gave the stage in it; raises what Numba raises."""
    namespace: dict[str, Any] = {}
    exec(compile(source, "<convgen kernel>", "exec"), namespace)
    flags = Flags()
    flags.error_model = "numpy"
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    pointer = types.CPointer(types.int64)
    typing, target = kernel_contexts()
    library = KernelLibrary(target.codegen(), function)
    compiled = compile_extra(
        typing,
        target,
        namespace[function],
        (pointer, pointer, types.int64, types.int64, types.int64),
        types.void,
        flags,
        {},
        library=library,
        pipeline_class=KernelPipeline,
    )
    with global_compiler_lock:
        library.finalize()
    return library.get_llvm_str(), compiled.fndesc.llvm_func_name
