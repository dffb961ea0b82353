"""From the text of a stage to machine code, through Numba and LLVM, and a cache."""

from __future__ import annotations

import functools
import hashlib
import os
import threading

import llvmlite.binding as llvm

from convgen.errors import CompileError
from convgen.machine import Machine
from convgen.options import cache_dir
from convgen.render import render, template_dir
from convgen.runtime.cache import Entry, KernelCache, toolchain_key
from convgen.runtime.objects import load_object
from convgen.targets.cpu.lower import LoweredStage
from convgen.targets.cpu.operations import needed_functions, operation_text, vector_texts

# What a cached unit's function is called: units are shared by stages of any name.
UNIT = "stage"
UNIT_TEMPLATES = (
    "cpu/unit.py.j2",
    "cpu/imports.py.j2",
    "cpu/vectors.py.j2",
    "cpu/functions.py.j2",
    "cpu/tiles.py.j2",
    "cpu/stage.py.j2",
)

# Numba's functions return a status and write a result and an exception through pointers; a kernel has none of them, and calling
# it through Numba's own C wrapper would tie the object code to Numba's runtime.
_ENTRY = """
define void @stage(ptr %buffers, ptr %sizes, i64 %begin, i64 %end, i64 %worker) {{
  %result = alloca ptr
  %exception = alloca ptr
  call i32 @{inner}(ptr %result, ptr %exception, ptr %buffers, ptr %sizes, i64 %begin, i64 %end, i64 %worker)
  ret void
}}
"""

_addresses: dict[str, int] = {}
_locks = [threading.Lock()]


def unit_source(stage: LoweredStage) -> str:
    """A module that holds the vector operations and the stage's function alone; equal stages give equal text."""
    needed = needed_functions(stage.operations)
    return render(
        "cpu/unit.py.j2",
        name=UNIT,
        lines=stage.body,
        vectors=vector_texts(stage.operations),
        operations=[operation_text(operation) for operation in stage.operations],
        needs=lambda name: name in needed,
    )


def stage_address(stage: LoweredStage, machine: Machine) -> int:
    """The address of the stage's machine code, compiled at most once and kept on disk; raises CompileError."""
    key = unit_key(stage, machine)
    if key not in _addresses:
        with _locks[0]:
            if key not in _addresses:
                _addresses[key] = _load(key, stage, machine)
    return _addresses[key]


def _renew_lock() -> None:
    """In a forked child: a thread that held the lock is not there to release it."""
    _locks[0] = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def unit_key(stage: LoweredStage, machine: Machine) -> str:
    """What the machine code depends on: all that the unit's text is made of, the versions of the tools, the processor's granted
    features. The text itself is only rendered where it has to be compiled."""
    parts = (toolchain_key(machine), _template_texts(), *stage.body, *map(repr, map(operation_text, stage.operations)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.cache
def _template_texts() -> str:
    return "".join((template_dir() / name).read_text(encoding="utf-8") for name in UNIT_TEMPLATES)


def _load(key: str, stage: LoweredStage, machine: Machine) -> int:
    cache = _cache(str(cache_dir()))
    entry = cache.get(key)
    if entry is None:
        source = unit_source(stage)
        code = _target_machine(machine).emit_object(unit_module(source, machine))
        entry = Entry(symbol=UNIT, code=code, source=source)
        cache.put(key, entry)
    return load_object(entry.code, entry.symbol)


@functools.cache
def _cache(directory: str) -> KernelCache:
    return KernelCache(directory)


def unit_module(source: str, machine: Machine) -> llvm.ModuleRef:
    """The LLVM module of a unit, optimised for a machine, its function exported as ``stage``; raises CompileError.

    A new one each time: emitting code changes a module.
    """
    text, inner = _numba_llvm(source)
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refuses the module of a generated kernel: {error}") from error
    function = module.get_function(inner)
    function.linkage = llvm.Linkage.internal
    # Into its entry, before anything else happens to it, so that it is optimised once.
    function.add_function_attribute("alwaysinline")
    _optimise(module, _target_machine(machine))
    return module


def _optimise(module: llvm.ModuleRef, target: llvm.TargetMachine) -> None:
    options = llvm.create_pipeline_tuning_options(3)
    options.loop_vectorization = True
    passes = llvm.create_pass_builder(target, options)
    passes.getModulePassManager().run(module, passes)


def unit_assembly(source: str, machine: Machine) -> str:
    """The assembly of a unit for a machine."""
    assembly: str = _target_machine(machine).emit_assembly(unit_module(source, machine))
    return assembly


@functools.lru_cache(maxsize=8)
def _numba_llvm(source: str) -> tuple[str, str]:
    """Numba's LLVM text of the function ``stage`` with a C entry of that name, and what Numba calls it."""
    # Numba takes longer to import than a cached kernel takes to load, and only compiling needs it.
    from convgen.targets.cpu.numba_pipeline import plain_llvm

    try:
        text, inner = plain_llvm(source, UNIT)
    except Exception as error:
        raise CompileError(f"Numba refuses a generated kernel: {type(error).__name__}: {error}") from error
    return text + _ENTRY.format(inner=inner), inner


@functools.cache
def _target_machine(machine: Machine) -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(machine.triple)
    return target.create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=3, reloc="pic", codemodel="default"
    )
