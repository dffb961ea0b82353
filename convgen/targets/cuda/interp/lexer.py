"""PTX text as tokens with their lines."""

from __future__ import annotations

import re
from dataclasses import dataclass

from convgen.errors import PtxError
from convgen.targets.cuda.interp.syntax import Imm

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|//[^\n]*)|(?P<line>\n)|(?P<comment>/\*.*?\*/)|(?P<string>"[^"\n]*")
    |(?P<word>(?:[\w$.%]|::)+)|(?P<mark>[\[\]{}()<>,;:@!+\-=|])""",
    re.VERBOSE | re.DOTALL,
)
_INTEGER = re.compile(r"(0[xX][0-9a-fA-F]+|0[bB][01]+|[0-9]+)U?$")


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a string or a mark."""

    text: str
    line: int


def tokens_of(text: str) -> tuple[Token, ...]:
    """Splits a module's text. Raises PtxError for a character that is not PTX."""
    found = []
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise PtxError(f"PTX line {line}: {text[position]!r} is not understood")
        if match.lastgroup in ("word", "mark", "string"):
            found.append(Token(match.group(), line))
        line += match.group().count("\n")
        position = match.end()
    return tuple(found)


def is_number(word: str) -> bool:
    """Whether a word is a constant."""
    return word[0].isdigit()


def number(token: Token, *, negative: bool = False) -> Imm:
    """The constant that a word spells: an integer, ``0f``/``0d`` and the bits of a number, or a decimal float64."""
    word = token.text
    if word[:2] in ("0f", "0F", "0d", "0D") and len(word) in (10, 18):
        width = 32 if word[1] in "fF" else 64
        return Imm(int(word[2:], 16) ^ ((1 << (width - 1)) if negative else 0), width)
    if match := _INTEGER.match(word):
        digits = match.group(1)
        octal = len(digits) > 1 and digits.isdigit() and digits[0] == "0"
        value = int(digits, 8) if octal else int(digits, 0)
        return Imm(-value if negative else value)
    raise PtxError(f"PTX line {token.line}: the constant {word!r} is not understood")
