"""The processor's matrix unit, AMX: asked for from the operating system, and tried once before it may be used.

Linux delivers a signal to a process that uses it without having asked (arch_prctl, ARCH_REQ_XCOMP_PERM).
"""

from __future__ import annotations

import ctypes
import functools
import sys

import llvmlite.binding as llvm
import ml_dtypes
import numpy as np

FEATURES = ("amx-tile", "amx-bf16", "amx-int8")
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18

# Three rows of six, or twelve, terms times as many terms of two lanes: shapes that are not whole tiles, so that they count.
_ROWS, _GROUPS, _LANES = 3, 3, 2
_TRIAL = """
declare void @llvm.x86.ldtilecfg(ptr)
declare void @llvm.x86.tilezero(i8)
declare void @llvm.x86.tileloadd64(i8, ptr, i64)
declare void @llvm.x86.tilestored64(i8, ptr, i64)
declare void @llvm.x86.tdpbf16ps(i8, i8, i8)
declare void @llvm.x86.tdpbssd(i8, i8, i8)
declare void @llvm.x86.tilerelease()
{functions}
"""
_FUNCTION = """
define void @{name}(ptr %config, ptr %a, ptr %b, ptr %c) {{
  call void @llvm.x86.ldtilecfg(ptr %config)
  call void @llvm.x86.tilezero(i8 0)
  call void @llvm.x86.tileloadd64(i8 1, ptr %a, i64 {row})
  call void @llvm.x86.tileloadd64(i8 2, ptr %b, i64 {group})
  call void @llvm.x86.{name}(i8 0, i8 1, i8 2)
  call void @llvm.x86.tilestored64(i8 0, ptr %c, i64 {group})
  call void @llvm.x86.tilerelease()
  ret void
}}
"""
_PRODUCTS = {"tdpbf16ps": (ml_dtypes.bfloat16, np.float32), "tdpbssd": (np.int8, np.int32)}


@functools.cache
def works(flags: frozenset[str]) -> bool:
    """Whether this process may use the unit, and products of bfloat16 and int8 come out right. ``flags`` are the system's."""
    if not {feature.replace("-", "_") for feature in FEATURES} <= flags or not sys.platform.startswith("linux"):
        return False
    return _permitted() and _trial()


def _permitted() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0)


def trial_module() -> str:
    """LLVM's text of the functions that are tried."""
    sizes = dict(row=4 * _GROUPS, group=4 * _LANES)
    return _TRIAL.format(functions="".join(_FUNCTION.format(name=name, **sizes) for name in _PRODUCTS))


def _trial() -> bool:
    """Small products whose results are known."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = ",".join(f"+{feature}" for feature in FEATURES)
    target = llvm.Target.from_default_triple().create_target_machine(features=features)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(trial_module()), target)
    engine.finalize_object()
    config = np.zeros(64, np.uint8)
    config[0] = 1
    config[16:22:2] = (4 * _LANES, 4 * _GROUPS, 4 * _LANES)
    config[48:51] = (_ROWS, _ROWS, _GROUPS)
    return all(
        _product_is_right(engine.get_function_address(name), config, *types) for name, types in _PRODUCTS.items()
    )


def _product_is_right(address: int, config: np.ndarray, kind: type, wide: type) -> bool:
    terms = 4 // np.dtype(kind).itemsize
    a = np.arange(-4, _ROWS * _GROUPS * terms - 4).reshape(_ROWS, -1)
    b = np.arange(7, 7 - _GROUPS * _LANES * terms, -1).reshape(_GROUPS, _LANES, terms)
    found: np.ndarray = np.full((_ROWS, _LANES), -1, wide)
    operands: list[np.ndarray] = [np.ascontiguousarray(part.astype(kind)) for part in (a, b)]
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(address)
    function(config.ctypes.data, operands[0].ctypes.data, operands[1].ctypes.data, found.ctypes.data)
    return bool((found == a @ b.transpose(0, 2, 1).reshape(-1, _LANES)).all())
