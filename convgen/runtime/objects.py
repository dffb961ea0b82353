"""Loads relocatable object code into this process."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import llvmlite.binding as llvm

from convgen.errors import CompileError

_ELF64_LITTLE = b"\x7fELF\x02\x01"
_SYMBOL_TABLE = 2
_GLOBAL = 1

# The engines own the memory of the code; a kernel's address stays valid for as long as the process lives.
_engines: list[llvm.ExecutionEngine] = []


def load_object(code: bytes, symbol: str) -> int:
    """Returns the address of ``symbol`` in ``code`` (from ``TargetMachine.emit_object``), which stays loaded for good.

    Raises CompileError when ``code`` is no object file, needs a function this process lacks, or lacks ``symbol``.
    """
    file = llvm.ObjectFileRef.from_data(code)
    # llvmlite hands back a null pointer for what LLVM cannot parse, and the engine would follow it.
    if not file._ptr:
        raise CompileError(
            f"code={code[:8]!r}... is not an object file; allowed: what TargetMachine.emit_object returns"
        )
    # LLVM ends the process when a symbol has no address, so look first.
    missing = [name for name in undefined_symbols(code) if llvm.address_of_symbol(name) is None]
    if missing:
        raise CompileError(f"symbol={symbol!r} needs {', '.join(missing)}, which this process does not provide")
    # An engine owns its target machine and frees it when it goes, so no two may share one.
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    engine.add_object_file(file)
    engine.finalize_object()
    address = int(engine.get_function_address(symbol))
    if not address:
        raise CompileError(f"symbol={symbol!r} is not defined by the object code")
    _engines.append(engine)
    return address


def undefined_symbols(code: bytes) -> list[str]:
    """Returns the names that 64-bit little-endian ELF ``code`` needs from elsewhere, weak ones aside.

    Other formats give an empty list. Layout: System V ABI, chapter "Object Files".
    """
    if not code.startswith(_ELF64_LITTLE):
        return []
    try:
        return sorted(set(_undefined(code)) - {"", "_GLOBAL_OFFSET_TABLE_"})
    except (struct.error, ValueError) as error:
        raise CompileError(f"code={code[:8]!r}... is a damaged object file: {error}") from error


def _undefined(code: bytes) -> Iterator[str]:
    (table,) = struct.unpack_from("<Q", code, 40)
    entry, count = struct.unpack_from("<HH", code, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", code, table + entry * i) for i in range(count)]
    for header in headers:
        if header[1] != _SYMBOL_TABLE:
            continue
        names = headers[header[6]][4]
        for offset in range(header[4], header[4] + header[5], 24):
            name, info, _, section = struct.unpack_from("<IBBH", code, offset)
            if section == 0 and info >> 4 == _GLOBAL:
                start = names + name
                yield code[start : code.index(b"\0", start)].decode()


def _target_machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
