"""An interpreter of PTX: runs a kernel's launch over NumPy memory, and faults where a device would go wrong in silence.

``run(parse(ptx), grid=(2, 1, 1), block=(64, 1, 1), arguments=[x, y, n])`` reads and writes the arrays in place.
"""

from convgen.targets.cuda.interp.build import Compiled, compile_kernel
from convgen.targets.cuda.interp.launch import Pointer, run
from convgen.targets.cuda.interp.parse import parse
from convgen.targets.cuda.interp.syntax import Module

__all__ = ["Compiled", "Module", "Pointer", "compile_kernel", "parse", "run"]
