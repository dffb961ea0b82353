"""vectorize_sum: a sum's terms are added in vectors, whose lanes are added at last."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.nodes import Alloc, Const, Fma, For, Index, Int, Load, Program, Stmt, Store, Sum, Value
from convgen.ir.rewrite import loops, map_body, map_stages, map_statement, values
from convgen.passes.vectorize import wide_value


@dataclass(frozen=True)
class VectorizeSum:
    """alloc acc: acc = 0; for l in L: acc = fma(x[l], w[l], acc); y = acc
    →  alloc acc[L]: acc[0 :L] = 0; acc[0 :L] = fma(x[0 :L], w[0 :L], acc[0 :L]); y = sum(acc[0 :L])

    Requires: the loop holds multiply-adds to register buffers alone, at places that do not depend on it, in loops; each such
    buffer begins with zeros and is otherwise only read. Ensures: the same terms are summed, in another order.
    """

    loop: str

    def __call__(self, program: Program) -> Program:
        changed = map_stages(program, self._block)
        if changed == program:
            raise IRError(f"no alloc holds a loop {self.loop}")
        return changed

    def _block(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(map(self._statement, body))

    def _statement(self, statement: Stmt) -> Stmt:
        match statement:
            case Alloc(buffer, body) if found := [loop for loop in loops(body) if loop.var == self.loop]:
                lanes = found[0].extent
                if not isinstance(lanes, Int):
                    raise IRError(f"the extent of loop {self.loop} is not constant")
                wide = replace(buffer, shape=(*buffer.shape, lanes))
                return Alloc(wide, tuple(self._in_alloc(inner, buffer.name, lanes.value) for inner in body))
            case _:
                return map_body(statement, self._block)

    def _in_alloc(self, statement: Stmt, register: str, lanes: int) -> Stmt:
        match statement:
            case For(self.loop, _, (For() | Store() as inner,)):
                return self._update(inner, register, lanes)
            case For(self.loop, _, body):
                raise IRError(f"loop {self.loop} holds {len(body)} statements, not one")
            case Store(buffer, index, Const(0) as zero, 1, None) if buffer == register:
                return Store(buffer, (*index, Int(0)), replace(zero, lanes=lanes), lanes)
            case Store(buffer) if buffer == register:
                raise IRError(f"{register} does not begin with zeros")
            case Store():
                return map_statement(statement, _same, lambda value: _summed(value, register, lanes))
            case _:
                return map_body(statement, lambda body: tuple(self._in_alloc(s, register, lanes) for s in body))

    def _update(self, statement: Stmt, register: str, lanes: int) -> Stmt:
        """What the loop holds, for all of its iterations at once."""
        match statement:
            case For(var, extent, (inner,), kind):
                return For(var, extent, (self._update(inner, register, lanes),), kind)
            case Store(buffer, index, Fma(a, b, Load(read, place)), 1, None) if (
                (buffer, index) == (read, place)
                and buffer == register
                and not _reads(a, register) | _reads(b, register)
            ):
                total = (*index, Int(0))
                x, w = wide_value(a, self.loop, lanes), wide_value(b, self.loop, lanes)
                return Store(buffer, total, Fma(x, w, Load(buffer, total, lanes)), lanes)
            case _:
                raise IRError(f"loop {self.loop} does not hold multiply-adds to {register} alone")


def _reads(value: Value, register: str) -> bool:
    return any(isinstance(node, Load) and node.buffer == register for node in values(value))


def _same(index: Index) -> Index:
    return index


def _summed(value: Value, register: str, lanes: int) -> Value:
    match value:
        case Load(buffer, index, 1, None) if buffer == register:
            return Sum(Load(buffer, (*index, Int(0)), lanes))
        case _:
            return value
