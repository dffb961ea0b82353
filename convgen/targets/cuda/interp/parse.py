"""From PTX text to the dataclasses of ``syntax``.

The grammar is the PTX ISA's, as far as compilers of kernels write it; whatever else is met is a PtxError with its line.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from convgen.errors import PtxError
from convgen.targets.cuda.interp.lexer import Token, is_number, number, tokens_of
from convgen.targets.cuda.interp.syntax import (
    Function,
    Imm,
    Instruction,
    Label,
    Mem,
    Module,
    Operand,
    Pair,
    Reg,
    Sink,
    Special,
    Sym,
    Variable,
    Vec,
)
from convgen.targets.cuda.interp.types import is_type, width_of

_SPECIAL = frozenset(
    (
        *(f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"),
        *("%laneid", "%warpid", "%nwarpid", "%smid", "%nsmid", "%gridid", "%clock", "%clock64", "%clock_hi"),
        *("%globaltimer", "%globaltimer_lo", "%dynamic_smem_size", "%total_smem_size"),
        *(f"%lanemask_{name}" for name in ("eq", "le", "lt", "ge", "gt")),
    )
)
_LINKAGE = (".visible", ".extern", ".weak", ".common")
_SPACES = (".global", ".const", ".shared", ".local", ".param")


def parse(text: str) -> Module:
    """Reads a PTX module. Raises PtxError, which names the line, for what it does not know."""
    return _Parser(tokens_of(text), text.splitlines()).module()


@dataclass
class _Scope:
    """What a pair of braces declares: exact names, and families such as ``%r<7>``."""

    names: dict[str, str] = field(default_factory=dict)
    families: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass
class _Body:
    """A function being read."""

    scopes: list[_Scope] = field(default_factory=lambda: [_Scope()])
    registers: dict[str, str] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    tables: dict[str, tuple[str, ...]] = field(default_factory=dict)
    items: list[Instruction | Label] = field(default_factory=list)
    opened: int = 0

    def unique(self, name: str) -> str:
        """A name declared in the innermost scope."""
        made = name if len(self.scopes) == 1 else f"{name}@{self.opened}"
        self.scopes[-1].names[name] = made
        return made

    def register(self, name: str) -> str | None:
        """The unique name of a register, or None where there is none of that name."""
        family = name.rstrip("0123456789")
        for scope in reversed(self.scopes):
            if name in scope.names:
                return scope.names[name] if scope.names[name] in self.registers else None
            if family in scope.families and family != name:
                made, kind = scope.families[family]
                made += name[len(family) :]
                self.registers.setdefault(made, kind)
                return made
        return None

    def symbol(self, name: str) -> str:
        """The unique name of a variable or label."""
        for scope in reversed(self.scopes):
            if name in scope.names:
                return scope.names[name]
        return name


class _Parser:
    """A recursive-descent parser over tokens."""

    def __init__(self, tokens: tuple[Token, ...], lines: list[str]) -> None:
        self._tokens = (*tokens, Token("", len(lines)))
        self._lines = lines
        self._at = 0
        self._functions: dict[str, Function] = {}
        self._variables: dict[str, Variable] = {}

    # The token stream.

    @property
    def _word(self) -> str:
        return self._tokens[self._at].text

    @property
    def _line(self) -> int:
        return self._tokens[self._at].line

    def _error(self, expected: str) -> PtxError:
        return PtxError(f"PTX line {self._line}: {expected} is expected, not {self._word or 'the end'!r}")

    def _take(self) -> str:
        word = self._word
        self._at += 1
        return word

    def _accept(self, *words: str) -> bool:
        if self._word in words:
            self._at += 1
            return True
        return False

    def _expect(self, word: str) -> None:
        if not self._accept(word):
            raise self._error(repr(word))

    def _integer(self) -> int:
        negative = self._accept("-")
        if not self._word or not is_number(self._word):
            raise self._error("an integer")
        value = number(self._tokens[self._at], negative=negative)
        self._at += 1
        return value.value

    def _skip_to(self, end: str) -> None:
        while self._take() != end:
            if not self._word:
                raise self._error(repr(end))

    def _skip_braces(self) -> None:
        self._skip_to("{")
        depth = 1
        while depth:
            word = self._take()
            depth += (word == "{") - (word == "}")
            if not self._word and depth:
                raise self._error("'}'")

    # Modules.

    def module(self) -> Module:
        while self._word:
            self._directive()
        return Module(self._functions, self._variables)

    def _directive(self) -> None:
        line = self._line
        if self._accept(".version", ".target", ".address_size") or self._accept(".file", ".loc"):
            while self._line == line and self._word:
                self._take()
        elif self._accept(".pragma"):
            self._skip_to(";")
        elif self._accept(".section"):
            self._skip_braces()
        else:
            self._declaration()

    def _declaration(self) -> None:
        extern = False
        while self._word in _LINKAGE:
            extern = self._take() == ".extern" or extern
        if self._word in (".entry", ".func"):
            self._function()
            return
        if self._word not in _SPACES:
            raise self._error("a directive")
        for variable in self._variable(None, extern=extern):
            self._variables[variable.name] = variable
        self._expect(";")

    def _function(self) -> None:
        entry = self._take() == ".entry"
        returns = () if entry or self._word != "(" else self._parameters()
        name = self._take()
        parameters = self._parameters() if self._word == "(" else ()
        max_threads = None
        while self._word.startswith("."):
            directive = self._take()
            values = []
            while self._word and (is_number(self._word) or self._word == ","):
                if not self._accept(","):
                    values.append(self._integer())
            if directive in (".maxntid", ".reqntid"):
                max_threads = 1
                for value in values:
                    max_threads *= value
            elif directive == ".pragma":
                self._skip_to(";")
            elif directive not in (".minnctapersm", ".maxnreg", ".noreturn", ".maxnctapersm"):
                raise PtxError(f"PTX line {self._line}: the directive {directive} of {name} is not known")
        if self._accept(";"):
            if name not in self._functions:
                self._functions[name] = Function(name, entry, returns, parameters, {}, (), None, {})
            return
        body = _Body()
        for parameter in (*returns, *parameters):
            body.scopes[0].names[parameter.name] = parameter.name
        self._expect("{")
        self._block(body)
        self._functions[name] = Function(
            name,
            entry,
            returns,
            parameters,
            body.registers,
            tuple(body.variables),
            tuple(body.items),
            body.tables,
            max_threads,
        )

    def _parameters(self) -> tuple[Variable, ...]:
        self._expect("(")
        found: list[Variable] = []
        while not self._accept(")"):
            found.extend(self._variable(None, extern=False))
            if not self._accept(",") and self._word != ")":
                raise self._error("',' or ')'")
        return tuple(found)

    def _variable(self, body: _Body | None, *, extern: bool) -> list[Variable]:
        """Variables of one declaration, from its space up to the semicolon, comma or parenthesis after it."""
        space = self._take().removeprefix(".")
        align, kind, vector = 0, "", 1
        while self._word.startswith("."):
            word = self._take().removeprefix(".")
            if word == "align":
                align = self._integer()
            elif word in ("v2", "v4"):
                vector = int(word[1:])
            elif word == "ptr":
                # What a pointer parameter points to is said by two more words, which concern nobody here.
                while self._word in (".global", ".const", ".shared", ".local", ".align"):
                    if self._take() == ".align":
                        self._integer()
            elif is_type(word):
                kind = word
            elif word not in ("managed", "volatile"):
                raise PtxError(f"PTX line {self._line}: .{word} in a declaration is not known")
        element = width_of(kind) // 8 if kind else 0
        if not element:
            raise self._error("a type")
        found = []
        while True:
            name = self._take()
            count, sized = vector, True
            while self._accept("["):
                sized = self._word != "]"
                count *= self._integer() if sized else 0
                self._expect("]")
            data, addresses = self._initializer(element) if self._accept("=") else (None, ())
            made = body.unique(name) if body is not None else name
            size = max(count * element, len(data or b""))
            found.append(Variable(made, space, kind, align or element * vector, size, data, addresses, extern))
            if body is None or space == "param" or not self._accept(","):
                return found

    def _initializer(self, element: int) -> tuple[bytes, tuple[tuple[int, Sym], ...]]:
        data = bytearray()
        addresses: list[tuple[int, Sym]] = []
        depth = 0
        while True:
            if self._accept("{"):
                depth += 1
            elif self._accept("}"):
                depth -= 1
            elif self._accept(","):
                continue
            elif self._word == "-" or is_number(self._word):
                negative = self._accept("-")
                value = number(self._tokens[self._at], negative=negative)
                self._at += 1
                data += (value.value % (1 << (8 * element))).to_bytes(element, "little")
            else:
                addresses.append((len(data), self._address_constant()))
                data += bytes(8)
            if depth == 0:
                return bytes(data), tuple(addresses)

    def _address_constant(self) -> Sym:
        if self._accept("generic"):
            self._expect("(")
            name = self._take()
            self._expect(")")
        else:
            name = self._take()
        return Sym(name, self._integer() if self._accept("+") else 0)

    # Bodies.

    def _block(self, body: _Body) -> None:
        """Statements up to the closing brace."""
        while not self._accept("}"):
            if not self._word:
                raise self._error("'}'")
            self._statement(body)

    def _statement(self, body: _Body) -> None:
        word = self._word
        if self._accept("{"):
            body.opened += 1
            body.scopes.append(_Scope())
            self._declare_labels(body)
            self._block(body)
            body.scopes.pop()
        elif self._accept(";"):
            return
        elif word == ".reg":
            self._registers(body)
        elif word in _SPACES:
            body.variables.extend(self._variable(body, extern=False))
            self._expect(";")
        elif word in (".pragma", ".file", ".loc", ".section"):
            self._directive()
        elif self._tokens[self._at + 1].text == ":":
            name = body.symbol(self._take())
            self._expect(":")
            if self._word in (".branchtargets", ".calltargets", ".callprototype"):
                self._table(body, name)
            else:
                body.items.append(Label(name))
        else:
            self._instruction(body)

    def _declare_labels(self, body: _Body) -> None:
        """Labels of a nested block are its own, and may be used before they stand."""
        depth, at = 1, self._at
        while depth and self._tokens[at].text:
            word = self._tokens[at].text
            depth += (word == "{") - (word == "}")
            previous = self._tokens[at - 1].text
            if depth == 1 and self._tokens[at + 1].text == ":" and previous in (";", "{", "}", ":"):
                body.unique(word)
            at += 1

    def _table(self, body: _Body, name: str) -> None:
        if self._take() != ".branchtargets":
            raise PtxError(f"PTX line {self._line}: indirect calls are not supported")
        targets = []
        while not self._accept(";"):
            targets.append(body.symbol(self._take()))
            self._accept(",")
        body.tables[name] = tuple(targets)

    def _registers(self, body: _Body) -> None:
        self._expect(".reg")
        kind = self._take().removeprefix(".")
        if not is_type(kind):
            raise PtxError(f"PTX line {self._line}: registers of type .{kind} are not supported")
        while True:
            name = self._take()
            if self._accept("<"):
                self._integer()
                self._expect(">")
                made = name if len(body.scopes) == 1 else f"{name}@{body.opened}_"
                body.scopes[-1].families[name] = (made, kind)
            else:
                body.registers[body.unique(name)] = kind
            if not self._accept(","):
                break
        self._expect(";")

    def _instruction(self, body: _Body) -> None:
        start = self._line
        guard = None
        if self._accept("@"):
            negated = self._accept("!")
            guard = self._register(body, negated=negated)
        line = self._line
        opcode = tuple(self._take().split("."))
        operands = []
        if opcode[0] == "call":
            operands = self._call(body)
        elif not self._accept(";"):
            operands.append(self._operand(body))
            while self._accept(","):
                operands.append(self._operand(body))
            self._expect(";")
        text = " ".join(self._lines[start - 1].split())
        body.items.append(Instruction(opcode, tuple(operands), guard, line, text))

    def _call(self, body: _Body) -> list[Operand]:
        returns = self._names(body) if self._word == "(" else Vec(())
        self._accept(",")
        target = self._take()
        if target.startswith("%"):
            raise PtxError(f"PTX line {self._line}: indirect calls are not supported")
        arguments = Vec(())
        if self._accept(","):
            arguments = self._names(body)
        self._expect(";")
        return [returns, Sym(target), arguments]

    def _names(self, body: _Body) -> Vec:
        self._expect("(")
        items: list[Operand] = []
        while not self._accept(")"):
            items.append(self._operand(body))
            self._accept(",")
        return Vec(tuple(items))

    def _register(self, body: _Body, *, negated: bool = False) -> Reg:
        name = body.register(self._word)
        if name is None:
            raise self._error("a register")
        self._at += 1
        return Reg(name, negated)

    def _operand(self, body: _Body) -> Operand:
        operand = self._single(body)
        if self._accept("|"):
            return Pair(operand, self._single(body))
        return operand

    def _single(self, body: _Body) -> Operand:
        if self._accept("!"):
            return self._register(body, negated=True)
        if self._accept("{"):
            items = [self._operand(body)]
            while self._accept(","):
                items.append(self._operand(body))
            self._expect("}")
            return Vec(tuple(items))
        if self._accept("["):
            return self._memory(body)
        if self._word == "-" or (self._word and is_number(self._word)):
            return self._constant()
        word = self._word
        if word == "_":
            self._at += 1
            return Sink()
        name = body.register(word)
        if name is not None:
            self._at += 1
            return Reg(name)
        if word in _SPECIAL:
            self._at += 1
            return Special(word)
        if word.startswith("%"):
            raise PtxError(f"PTX line {self._line}: the register {word} is not declared, or not known")
        self._at += 1
        return Sym(body.symbol(word), self._offset())

    def _constant(self) -> Imm:
        negative = self._accept("-")
        value = number(self._tokens[self._at], negative=negative)
        self._at += 1
        return value

    def _offset(self) -> int:
        if self._accept("+"):
            return self._integer()
        if self._word == "-":
            return self._integer()
        return 0

    def _memory(self, body: _Body) -> Mem:
        base = self._single(body)
        match base:
            case Sym(name, offset):
                made = Mem(Sym(name), offset)
            case Reg():
                made = Mem(base, self._offset())
            case Imm():
                made = Mem(base)
            case _:
                raise self._error("an address")
        if self._accept(","):
            raise PtxError(f"PTX line {self._line}: tensor and matrix addresses are not supported")
        self._expect("]")
        return made
