"""Walking and rewriting: substitution of variables, mapping over values and statements, finding loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from convgen.errors import IRError
from convgen.ir.nodes import (
    Alloc,
    Apply,
    Arith,
    Barrier,
    Choose,
    Const,
    Convert,
    CopyAsync,
    CopyGroup,
    CopyWait,
    Dot,
    Fma,
    For,
    If,
    Index,
    IndexOp,
    Int,
    Interleave,
    Less,
    Load,
    PaddedLoad,
    Prefetch,
    Program,
    Splat,
    Spread,
    Stmt,
    Store,
    Sum,
    TileDot,
    TileLoad,
    TileStore,
    TileZero,
    Transform,
    Transpose,
    Value,
    Var,
    Where,
)

_NOTHING: frozenset[str] = frozenset()

IndexMap = Callable[[Index], Index]
ValueMap = Callable[[Value], Value]


def substitute(expression: Index, values: Mapping[str, Index]) -> Index:
    """Replaces variables by expressions."""
    match expression:
        case Int():
            return expression
        case Var(name):
            return values.get(name, expression)
        case IndexOp(op, a, b):
            return IndexOp(op, substitute(a, values), substitute(b, values))


def variables(expression: Index) -> frozenset[str]:
    """Names of the variables in an expression."""
    if isinstance(expression, IndexOp):
        return variables(expression.a) | variables(expression.b)
    return frozenset({expression.name}) if isinstance(expression, Var) else _NOTHING


def map_condition(condition: Less, index: IndexMap) -> Less:
    return Less(index(condition.a), index(condition.b))


def map_value(value: Value, index: IndexMap, visit: ValueMap = lambda value: value) -> Value:
    """Rebuilds a value bottom-up: every index expression through ``index``, then every node through ``visit``."""

    def again(inner: Value) -> Value:
        return map_value(inner, index, visit)

    match value:
        case Const():
            rebuilt: Value = value
        case Load(buffer, position, lanes, count, terms):
            limit = None if count is None else index(count)
            rebuilt = Load(buffer, tuple(map(index, position)), lanes, limit, terms)
        case PaddedLoad(buffer, position, mode):
            rebuilt = PaddedLoad(buffer, tuple(map(index, position)), mode)
        case Splat(a, lanes):
            rebuilt = Splat(again(a), lanes)
        case Spread(a):
            rebuilt = replace(value, value=again(a))
        case Interleave(pieces):
            rebuilt = Interleave(tuple(map(again, pieces)))
        case Sum(a):
            rebuilt = Sum(again(a))
        case Fma(a, b, c):
            rebuilt = Fma(again(a), again(b), again(c))
        case Dot(a, b, c):
            rebuilt = Dot(again(a), again(b), again(c))
        case Arith(op, a, b):
            rebuilt = Arith(op, again(a), again(b))
        case Convert(a, dtype):
            rebuilt = Convert(again(a), dtype)
        case Apply(function, a):
            rebuilt = Apply(function, again(a))
        case Choose(conditions, a, b):
            rebuilt = Choose(tuple(map_condition(c, index) for c in conditions), again(a), again(b))
        case Where(test, a, b):
            rebuilt = Where(again(test), again(a), again(b))
    return visit(rebuilt)


def value_at(value: Value, loop: str, iteration: int) -> Value:
    """The value in one iteration of a loop."""
    return map_value(value, lambda index: substitute(index, {loop: Int(iteration)}))


def map_statement(statement: Stmt, index: IndexMap, visit: ValueMap = lambda value: value) -> Stmt:
    """Rebuilds a statement with every index expression and value mapped."""

    def block(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(map_statement(inner, index, visit) for inner in body)

    match statement:
        case For(var, extent, body, kind):
            return For(var, index(extent), block(body), kind)
        case If(condition, body):
            return If(map_condition(condition, index), block(body))
        case Alloc(buffer, body):
            return Alloc(replace(buffer, shape=tuple(map(index, buffer.shape))), block(body))
        case Store(buffer, position, value, lanes, count):
            return Store(
                buffer,
                tuple(map(index, position)),
                map_value(value, index, visit),
                lanes,
                None if count is None else index(count),
            )
        case Transform() | Barrier() | CopyGroup() | CopyWait():
            return statement
        case CopyAsync():
            return replace(
                statement,
                target_index=tuple(map(index, statement.target_index)),
                source_index=tuple(map(index, statement.source_index)),
                conditions=tuple(map_condition(condition, index) for condition in statement.conditions),
            )
        case Prefetch() | TileZero():
            return replace(statement, index=tuple(map(index, statement.index)))
        case TileLoad(_, place, _, source_index):
            places = tuple(map(index, place)), tuple(map(index, source_index))
            return replace(statement, index=places[0], source_index=places[1])
        case TileStore(_, target_index, _, _, place):
            places = tuple(map(index, place)), tuple(map(index, target_index))
            return replace(statement, index=places[0], target_index=places[1])
        case TileDot(_, c_index, _, a_index, _, b_index):
            return replace(
                statement,
                c_index=tuple(map(index, c_index)),
                a_index=tuple(map(index, a_index)),
                b_index=tuple(map(index, b_index)),
            )
        case Transpose():
            return replace(
                statement,
                target_index=tuple(map(index, statement.target_index)),
                source_index=tuple(map(index, statement.source_index)),
                rows=None if statement.rows is None else index(statement.rows),
                columns=None if statement.columns is None else index(statement.columns),
            )


def substitute_block(body: tuple[Stmt, ...], values: Mapping[str, Index]) -> tuple[Stmt, ...]:
    """Replaces variables by expressions in a block."""
    return tuple(map_statement(statement, lambda e: substitute(e, values)) for statement in body)


def loop_names(prefix: str, labels: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Names of the loops of a copy: prefix_label, or prefix_0, prefix_1, ... without labels."""
    if labels and len(labels) != count:
        raise IRError(f"labels={labels} are not one for each of {count} axes")
    return tuple(f"{prefix}_{label}" for label in (labels or range(count)))


def rewrite_named(program: Program, var: str, change: Callable[[For], tuple[Stmt, ...]]) -> Program:
    """Replaces every loop over ``var`` in every stage; raises IRError if there is none."""
    if program.stages and not any(loop.var == var for stage in program.stages for loop in loops(stage.body)):
        raise IRError(f"there is no loop {var}")
    return map_stages(program, lambda body: rewrite_loops(body, var, change))


def rewrite_loops(body: tuple[Stmt, ...], var: str, change: Callable[[For], tuple[Stmt, ...]]) -> tuple[Stmt, ...]:
    """Replaces every loop over ``var``, innermost first, by what ``change`` makes of it."""
    result: list[Stmt] = []
    for statement in body:
        rewritten = map_body(statement, lambda inner: rewrite_loops(inner, var, change))
        result.extend(change(rewritten) if isinstance(rewritten, For) and rewritten.var == var else (rewritten,))
    return tuple(result)


def map_body(statement: Stmt, change: Callable[[tuple[Stmt, ...]], tuple[Stmt, ...]]) -> Stmt:
    """The statement with its block changed; itself where it has none."""
    match statement:
        case For() | If() | Alloc():
            return replace(statement, body=change(statement.body))
        case _:
            return statement


def perfect_nest(body: tuple[Stmt, ...]) -> tuple[tuple[For, ...], tuple[Stmt, ...]]:
    """The loops that are all that a block, and the loop before, hold, outermost first; and what the last one holds."""
    nest: list[For] = []
    while len(body) == 1 and isinstance(loop := body[0], For):
        nest.append(loop)
        body = loop.body
    return tuple(nest), body


def statements(body: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """Every statement of a block, outermost first."""
    for statement in body:
        yield statement
        match statement:
            case For() | If() | Alloc():
                yield from statements(statement.body)
            case _:
                pass


def loops(body: tuple[Stmt, ...]) -> Iterator[For]:
    """Every loop of a block, outermost first."""
    for statement in statements(body):
        if isinstance(statement, For):
            yield statement


def values(value: Value, *, conditional: bool = True) -> Iterator[Value]:
    """Every node of a value; without ``conditional`` those inside a Choose are left out."""
    yield value
    inner: tuple[Value, ...]
    match value:
        case Splat(a) | Spread(a) | Sum(a) | Convert(a) | Apply(_, a):
            inner = (a,)
        case Fma(a, b, c) | Dot(a, b, c) | Where(a, b, c):
            inner = (a, b, c)
        case Arith(_, a, b):
            inner = (a, b)
        case Interleave(pieces):
            inner = pieces
        case Choose(_, a, b):
            inner = (a, b) if conditional else ()
        case Const() | Load() | PaddedLoad():
            inner = ()
    for each in inner:
        yield from values(each, conditional=conditional)


def reads(body: tuple[Stmt, ...]) -> Iterator[Load | PaddedLoad]:
    """Every load of a block; of a transpose that of its first row, of a tile that of its first element."""
    for store in stores(body):
        for value in values(store.value):
            if isinstance(value, Load | PaddedLoad):
                yield value
    for statement in statements(body):
        if isinstance(statement, TileLoad):
            yield Load(statement.source, statement.source_index)


def stores(body: tuple[Stmt, ...]) -> Iterator[Store]:
    """Every store of a block; of a transpose that of its first row, of a tile that of its first element."""
    for statement in statements(body):
        match statement:
            case Store():
                yield statement
            case Transpose(target, place, _, source, index, _, size, rows, columns):
                yield Store(target, place, Load(source, index, size, columns), size, rows)
            case CopyAsync(target, place, source, origin, lanes, conditions):
                read: Value = Load(source, origin, lanes)
                yield Store(target, place, Choose(conditions, read, read) if conditions else read, lanes)
            case TileStore(target, place, _, tile, index):
                yield Store(target, place, Load(tile, (*index, Int(0), Int(0))))
            case _:
                pass


def map_stages(program: Program, change: Callable[[tuple[Stmt, ...]], tuple[Stmt, ...]]) -> Program:
    """Applies ``change`` to the body of every stage."""
    return replace(program, stages=tuple(replace(stage, body=change(stage.body)) for stage in program.stages))
