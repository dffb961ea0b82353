"""The text form of a program: deterministic, one line a statement."""

from __future__ import annotations

from convgen.ir.nodes import (
    Alloc,
    Apply,
    Arith,
    Barrier,
    Buffer,
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
    Stage,
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

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "//": 2, "%": 2}


def format_program(program: Program) -> str:
    """The whole program as text."""
    lines = [f"program {program.name}({', '.join(program.sizes)})"]
    lines += [f"  {buffer.space} {_shape(buffer)}" for buffer in program.buffers]
    for stage in program.stages:
        lines += ["", *format_stage(stage)]
    return "\n".join(lines) + "\n"


def format_stage(stage: Stage) -> list[str]:
    """One stage as lines."""
    bindings = ", ".join(f"{name}={format_index(value)}" for name, value in stage.bindings)
    views = [f"  view {_shape(view)}" for view in stage.views]
    needs = [f"  needs {format_condition(need)}" for need in stage.needs]
    return [f"stage {stage.name}({bindings}):", *views, *needs, *_block(stage.body, 1)]


def format_index(expression: Index) -> str:
    """An index expression in Python's notation with the fewest parentheses."""
    return _index(expression, 0)


def _index(expression: Index, outer: int) -> str:
    match expression:
        case Int(value):
            return str(value) if value >= 0 else f"({value})"
        case Var(name):
            return name
        case IndexOp("min" | "max" as op, a, b):
            return f"{op}({_index(a, 0)}, {_index(b, 0)})"
        case IndexOp(op, a, b):
            level = _PRECEDENCE[op]
            text = f"{_index(a, level)} {op} {_index(b, level + 1)}"
            return f"({text})" if level < outer else text


def format_condition(condition: Less) -> str:
    """a < b, written 0 <= b where a is -1."""
    match condition:
        case Less(Int(value), b):
            return f"{value + 1} <= {format_index(b)}"
        case Less(a, b):
            return f"{format_index(a)} < {format_index(b)}"


def format_value(value: Value) -> str:
    match value:
        case Const(number, dtype, lanes):
            return f"{number!r}:{dtype}" + (f"x{lanes}" if lanes > 1 else "")
        case Load(buffer, index, lanes, count, terms):
            return _access(buffer, index, lanes, count) + (f"*{terms}" if terms > 1 else "")
        case PaddedLoad(buffer, index, mode):
            return f"padded[{mode}] {_access(buffer, index, 1, None)}"
        case Splat(a, lanes):
            return f"splat({format_value(a)}, {lanes})"
        case Spread(a, lanes, repeat, step, first):
            return f"spread({format_value(a)}, {lanes}: {first} + l // {repeat} * {step})"
        case Interleave(pieces):
            return f"interleave({', '.join(map(format_value, pieces))})"
        case Sum(a):
            return f"sum({format_value(a)})"
        case Fma(a, b, c):
            return f"fma({format_value(a)}, {format_value(b)}, {format_value(c)})"
        case Dot(a, b, c):
            return f"dot({format_value(a)}, {format_value(b)}, {format_value(c)})"
        case Arith("min" | "max" as op, a, b):
            return f"{op}({format_value(a)}, {format_value(b)})"
        case Arith(op, a, b):
            return f"({format_value(a)} {op} {format_value(b)})"
        case Convert(a, dtype):
            return f"{dtype}({format_value(a)})"
        case Apply(function, a):
            return f"{function}({format_value(a)})"
        case Choose(conditions, a, b):
            condition = " and ".join(map(format_condition, conditions))
            return f"({format_value(a)} if {condition} else {format_value(b)})"
        case Where(test, a, b):
            return f"where({format_value(test)} < 0, {format_value(a)}, {format_value(b)})"


def _access(buffer: str, index: tuple[Index, ...], lanes: int, count: Index | None, along: int | None = None) -> str:
    text = ", ".join(format_index(i) + (f" :{lanes}" if axis == along else "") for axis, i in enumerate(index))
    if lanes > 1:
        text += f" :{lanes}"
    if count is not None:
        text += f" |{format_index(count)}"
    return f"{buffer}[{text}]"


def _transpose(transpose: Transpose) -> str:
    """y[0 :16, 0 :16 |rows] = transposed x[0 :16, 0 :16 |columns]"""
    target = _access(transpose.target, transpose.target_index, transpose.size, transpose.rows, transpose.target_axis)
    source = _access(transpose.source, transpose.source_index, transpose.size, transpose.columns, transpose.source_axis)
    return f"{target} = transposed {source}"


def _tile(name: str, index: tuple[Index, ...]) -> str:
    return f"tile {name}[{', '.join(map(format_index, index))}]"


def _shape(buffer: Buffer) -> str:
    return f"{buffer.name}: {buffer.dtype}[{', '.join(map(format_index, buffer.shape))}]"


def _block(body: tuple[Stmt, ...], depth: int) -> list[str]:
    lines: list[str] = []
    pad = "  " * depth
    for statement in body:
        match statement:
            case For(var, extent, inner, kind):
                word = "for" if kind == "serial" else f"{kind} for"
                lines += [f"{pad}{word} {var} in {format_index(extent)}:", *_block(inner, depth + 1)]
            case If(condition, inner):
                lines += [f"{pad}if {format_condition(condition)}:", *_block(inner, depth + 1)]
            case Alloc(buffer, inner):
                lines += [f"{pad}alloc {_shape(buffer)}:", *_block(inner, depth + 1)]
            case Store(name, index, value, lanes, count):
                lines.append(f"{pad}{_access(name, index, lanes, count)} = {format_value(value)}")
            case Transform(name, linear, label):
                lines.append(f"{pad}transform {name}[{linear.inputs} -> {len(linear.outputs)}] by {label}")
            case Transpose():
                lines.append(pad + _transpose(statement))
            case TileZero(tile, index):
                lines.append(f"{pad}{_tile(tile, index)} = zeros")
            case TileLoad(tile, index, source, place, axis, step, turned):
                moved = f" by {step}" if step > 1 else ""
                what = "columns" if turned else "rows"
                lines.append(
                    f"{pad}{_tile(tile, index)} = {what} along {axis}{moved} of {_access(source, place, 1, None)}"
                )
            case TileDot(c, ci, a, ai, b, bi, turned):
                lines.append(f"{pad}{_tile(c, ci)} += {_tile(a, ai)} . {'turned ' if turned else ''}{_tile(b, bi)}")
            case TileStore(target, place, axis, tile, index):
                lines.append(f"{pad}rows along {axis} of {_access(target, place, 1, None)} = {_tile(tile, index)}")
            case Barrier():
                lines.append(f"{pad}barrier")
            case CopyAsync(target, place, source, origin, lanes, conditions):
                tests = f" if {' and '.join(map(format_condition, conditions))} else zeros" if conditions else ""
                into, read = _access(target, place, lanes, None), _access(source, origin, lanes, None)
                lines.append(f"{pad}copy {into} from {read}{tests}")
            case CopyGroup():
                lines.append(f"{pad}group of copies")
            case CopyWait(pending):
                lines.append(f"{pad}wait for all copies" + (f" but {pending} groups" if pending else ""))
            case Prefetch(name, index, lanes):
                lines.append(f"{pad}prefetch {_access(name, index, lanes, None)}")
    return lines
