"""Assembly text to statements: runs the grammar, keeps every token's place, and turns parse failures into
`AsmError`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import NoReturn

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args

from isa.errors import AsmError
from isa.program import Json

_WORD_HERE = re.compile(r"[\w.]+")

_TERMINALS = {
    "NAME": "a name",
    "NUMBER": "a number",
    "DATA": "a constant (@name)",
    "STRING": "a quoted string",
    "DIRECTIVE": "a directive",
    "BLOCK": "a block line (| ...)",
    "_NL": "the end of the line",
    "COLON": "':'",
    "COMMA": "','",
    "EQUAL": "'='",
    "LSQB": "'['",
    "RSQB": "']'",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
}


@dataclass(frozen=True)
class Operand:
    """One operand as written. `form` is word, number, data or address; `text` the word, number or
    constant's name; `space` an address's memory; `token` its place; `name` its name where given.
    """

    form: str
    text: str
    token: Token
    space: str = ""
    name: Token | None = None


@dataclass(frozen=True)
class Argument:
    """One argument of a directive: `form` is word, data or literal; `value` the word, the constant's name
    or the JSON value.
    """

    form: str
    value: Json
    token: Token
    name: str = ""


@dataclass(frozen=True)
class Line:
    """One line: its labels and then an instruction, a directive or a block line."""

    labels: tuple[Token, ...] = ()
    mnemonic: Token | None = None
    operands: tuple[Operand, ...] = ()
    directive: Token | None = None
    arguments: tuple[Argument, ...] = ()
    block: Token | None = None


@dataclass(frozen=True)
class Source:
    """The text with its name, for messages."""

    file: str
    lines: tuple[str, ...]

    def error(self, at: Token | int, message: str, *, expected: str = "", suggestion: str = "") -> AsmError:
        """An error at a token, or at a line (counted from 1)."""
        line, column, width = (at, 1, 1) if isinstance(at, int) else (at.line or 1, at.column or 1, len(at))
        source = self.lines[line - 1] if line <= len(self.lines) else ""
        return AsmError(
            message,
            file=self.file,
            line=line,
            column=column,
            source=source,
            width=width,
            expected=expected,
            suggestion=suggestion,
        )


def parse(text: str, file: str) -> tuple[Source, list[Line]]:
    """The lines of `text`, empty ones left out. Raises `AsmError`."""
    text = text.replace("\r\n", "\n")
    source = Source(file, tuple(text.split("\n")))
    try:
        lines: list[Line] = _parser().parse(text + "\n")  # type: ignore[assignment]
    except UnexpectedToken as error:
        _unexpected(source, error.token, str(error.token), error.accepts or error.expected)
    except UnexpectedCharacters as error:
        word = _WORD_HERE.match(source.lines[error.line - 1], error.column - 1)
        here = Token("BAD", word[0] if word else error.char, line=error.line, column=error.column)
        _unexpected(source, here, str(here), error.allowed or set())
    except _BadToken as error:
        raise source.error(error.token, error.message, expected=error.expected) from None
    return source, lines


def _unexpected(source: Source, token: Token, text: str, allowed: set[str]) -> NoReturn:
    expected = sorted({_TERMINALS.get(name, name) for name in allowed if name != "$END"})
    what = "the line ends early" if token.type == "_NL" or text.strip() == "" else f"'{text}' does not fit here"
    if text.startswith('"') and token.type == "BAD":
        what = "this string has no closing quote"
    raise source.error(token, what, expected=" or ".join(expected)) from None


@cache
def _parser() -> Lark:
    grammar = resources.files("isa").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", transformer=_Build(), maybe_placeholders=False)


class _BadToken(Exception):
    """A token that the lexer takes and its meaning refuses."""

    def __init__(self, token: Token, message: str, expected: str = "") -> None:
        self.token, self.message, self.expected = token, message, expected
        super().__init__(message)


@dataclass(frozen=True)
class _Json:
    value: Json
    token: Token


def _string(token: Token, quoted: str) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        raise _BadToken(token, "this string has an escape that JSON does not know") from None


def _data_name(token: Token) -> str:
    name = str(token)[1:]
    return _string(token, name) if name.startswith('"') else name


@v_args(inline=True)
class _Build(Transformer[Token, list[Line]]):
    """Tree to statements, while the parser reduces."""

    def start(self, *lines: Line) -> list[Line]:
        return [line for line in lines if line != Line()]

    def line(self, *parts: Token | Line) -> Line:
        labels = tuple(p for p in parts if isinstance(p, Token) and p.type == "NAME")
        rest = next((p for p in parts if not (isinstance(p, Token) and p.type == "NAME")), None)
        return replace(rest, labels=labels) if isinstance(rest, Line) else Line(labels, block=rest)

    def label(self, name: Token) -> Token:
        return name

    def instruction(self, mnemonic: Token, *operands: Operand) -> Line:
        return Line(mnemonic=mnemonic, operands=operands)

    def operand(self, value: Operand) -> Operand:
        return value

    def named_operand(self, name: Token, value: Operand) -> Operand:
        return replace(value, name=name)

    def word(self, token: Token) -> Operand:
        return Operand("word", str(token), token)

    def number(self, token: Token) -> Operand:
        return Operand("number", str(token), token)

    def data(self, token: Token) -> Operand:
        return Operand("data", _data_name(token), token)

    def address(self, space: Token, index: Token) -> Operand:
        return Operand("address", str(index), space.update(value=f"{space}[{index}]"), str(space))

    def directive(self, name: Token, *arguments: Argument) -> Line:
        return Line(directive=name, arguments=arguments)

    def named_argument(self, name: Token, literal: _Json) -> Argument:
        return Argument("literal", literal.value, literal.token, str(name))

    def word_argument(self, token: Token) -> Argument:
        return Argument("word", str(token), token)

    def data_argument(self, token: Token) -> Argument:
        return Argument("data", _data_name(token), token)

    def literal_argument(self, literal: _Json) -> Argument:
        return Argument("literal", literal.value, literal.token)

    def json_word(self, token: Token) -> _Json:
        return _Json(_CONSTANTS.get(str(token), str(token)), token)

    def json_string(self, token: Token) -> _Json:
        return _Json(_string(token, str(token)), token)

    def json_number(self, token: Token) -> _Json:
        try:
            return _Json(parse_number(str(token)), token)
        except ValueError:
            raise _BadToken(token, f"'{token}' is not a number that JSON knows") from None

    def array(self, open_: Token, *items: _Json | Token) -> _Json:
        return _Json([item.value for item in items if isinstance(item, _Json)], open_)

    def pair(self, key: Token, literal: _Json) -> tuple[str, Json]:
        return _string(key, str(key)), literal.value

    def object(self, open_: Token, *pairs: tuple[str, Json] | Token) -> _Json:
        return _Json(dict(pair for pair in pairs if isinstance(pair, tuple)), open_)


_CONSTANTS: dict[str, Json] = {"true": True, "false": False, "null": None}


def parse_number(text: str) -> int | float:
    """``64``, ``-1``, ``0x40`` as int, ``0.5``, ``1e-3`` as float. Raises ValueError for ``inf``."""
    digits = text.lstrip("+-")
    if digits.lower().startswith("0x"):
        return int(text, 16)
    if digits.isdigit():
        return int(text)
    if digits == "inf":
        raise ValueError(text)
    return float(text)
