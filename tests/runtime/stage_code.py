"""Tiny stage functions in LLVM IR, compiled to object code, for the tests of the runtime."""

from __future__ import annotations

import functools

import llvmlite.binding as llvm

from convgen.runtime.objects import load_object

# buffers[1][i] = buffers[0][i] * sizes[0] + begin * sizes[1], for i in begin..end-1, float64
SCALE = """
define void @scale(ptr %buffers, ptr %sizes, i64 %begin, i64 %end, i64 %worker) {
entry:
  %x = load ptr, ptr %buffers
  %y.p = getelementptr i64, ptr %buffers, i64 1
  %y = load ptr, ptr %y.p
  %factor.i = load i64, ptr %sizes
  %factor = sitofp i64 %factor.i to double
  %mark.p = getelementptr i64, ptr %sizes, i64 1
  %mark.i = load i64, ptr %mark.p
  %offset.i = mul i64 %mark.i, %begin
  %offset = sitofp i64 %offset.i to double
  br label %head
head:
  %i = phi i64 [ %begin, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %x.p = getelementptr double, ptr %x, i64 %i
  %value = load double, ptr %x.p
  %product = fmul double %value, %factor
  %sum = fadd double %product, %offset
  %out.p = getelementptr double, ptr %y, i64 %i
  store double %sum, ptr %out.p
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}
"""


def compiled(text: str) -> bytes:
    """Returns the relocatable object code of LLVM IR ``text``."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    code: bytes = target.emit_object(llvm.parse_assembly(text))
    return code


@functools.cache
def scale() -> int:
    """Returns the address of SCALE."""
    return load_object(compiled(SCALE), "scale")
