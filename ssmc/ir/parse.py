"""Text to graph: the inverse of `ssmc.ir.text.print_graph`, with errors that show the place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, v_args
from lark.exceptions import VisitError

from ssmc.diagnostics import UserError, near, pointed
from ssmc.ir.graph import Graph, Place, Value
from ssmc.ir.op import Op
from ssmc.ir.ops.onnx_op import is_onnx
from ssmc.ir.ops.tile import Piece
from ssmc.ir.table import spec_of, table
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import ConstantType, SequenceType, StreamType, TensorType, ValueType, show_type
from ssmc.statespace import StateSpace, StateSpaceError

DTYPES = {"f64": np.float64, "c128": np.complex128, "i64": np.int64, "bool": np.bool_}
FLOWS: dict[str, Any] = {"stream": StreamType, "sequence": SequenceType, "constant": ConstantType}
ELEMENTS = ("real", "complex", "index", "bool")
EXPECTED = {
    "VALUE": "a value (%name)",
    "NAME": "a name",
    "STRING": "a quoted string",
    "INT": "an integer",
    "FLOAT": "a number",
    "COMPLEX": "a number",
    "WORD": "true, false or none",
    "FLOW": "a type",
    "HASH": "a content hash (#...)",
    "DIMS": "a shape (4x8)",
    "RATIO": "a rate (1/8)",
    "ABSENT": "'_'",
    "UNKNOWN": "'?'",
    "$END": "the end",
}


def parse(text: str, constants: Mapping[str, Any] | None = None, *, file: str = "<text>") -> Graph:
    """The graph that `text` tells. `constants` holds what its content hashes stand for, by digest.

    Raises UserError with file:line:column, the source line and a caret: bad syntax, an unknown op, value,
    hash or attribute, operands that do not fit, a type that the op does not give.
    """
    try:
        graph: Graph = _Build(constants or {}).transform(_grammar().parse(text))
        return graph
    except UnexpectedInput as error:
        raise _syntax_error(error, text, file) from None
    except VisitError as error:
        mistake = error.orig_exc
        if not isinstance(mistake, _Mistake):
            raise
        place = (mistake.token.line or 1, mistake.token.column or 1)
        raise _error(mistake.text, text, file, place, len(mistake.token), mistake.hint) from None


class _Mistake(Exception):
    """Something is wrong at `token`."""

    def __init__(self, token: Token, text: str, hint: str = "") -> None:
        self.token, self.text, self.hint = token, text, hint
        super().__init__(text)


@dataclass(frozen=True)
class _Line:
    """One node as written."""

    results: list[Token]
    op: Token
    operands: list[Token | None]
    attrs: dict[str, Any]
    types: list[ValueType]
    place: Place | None
    loc: tuple[str, ...]


@cache
def _grammar() -> Lark:
    text = resources.files("ssmc.ir").joinpath("text.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", lexer="contextual", maybe_placeholders=False)


@v_args(inline=True)
class _Build(Transformer[Token, Graph]):
    """Tree to graph."""

    def __init__(self, constants: Mapping[str, Any]) -> None:
        super().__init__()
        self.constants = constants

    def start(self, graph: Graph) -> Graph:
        return graph

    def graph(self, name: Token, *rest: Any) -> Graph:
        facts = rest[0] if rest and isinstance(rest[0], dict) else {}
        graph = Graph(_word(name), facts)
        for line in rest[1:] if facts else rest:
            _add(graph, line)
        return graph

    def node(self, results: list[Token], op: Token, operands: list[Token | None], *rest: Any) -> _Line:
        attrs = next((part for part in rest if isinstance(part, dict)), {})
        types = next(part for part in rest if isinstance(part, list))
        place = next((part for part in rest if isinstance(part, Place)), None)
        return _Line(results, op, operands, attrs, types, place, next((p for p in rest if isinstance(p, tuple)), ()))

    def results(self, *values: Token) -> list[Token]:
        return list(values)

    def operands(self, *values: Token | None) -> list[Token | None]:
        return list(values)

    def operand(self, token: Token) -> Token | None:
        return None if token.type == "ABSENT" else token

    def types(self, *types: ValueType) -> list[ValueType]:
        return list(types)

    def place(self, unit: Token, order: Token, phase: Token) -> Place:
        return Place(int(unit), int(order), str(phase))

    def loc(self, *sources: Token) -> tuple[str, ...]:
        return tuple(map(_word, sources))

    def mapping(self, *pairs: tuple[Token, Any]) -> dict[str, Any]:
        return {_word(name): value for name, value in pairs}

    def pair(self, name: Token, value: Any) -> tuple[Token, Any]:
        return name, value

    def atom(self, token: Token) -> Any:
        match token.type:
            case "STRING":
                return _word(token)
            case "INT":
                return int(token)
            case "FLOAT":
                return float(token)
            case "COMPLEX":
                return complex(token)
        return {"true": True, "false": False, "none": None}[token]

    def group(self, *items: Any) -> tuple[Any, ...]:
        return items

    def listing(self, *items: Any) -> list[Any]:
        return list(items)

    def shape(self, token: Token) -> tuple[int, ...]:
        if token.type == "NAME":
            if token != "scalar":
                raise _Mistake(token, f"'{token}' is not a shape", "write 4x8, or scalar")
            return ()
        return tuple(map(int, token.split("x")))

    def flow(self, word: Token, shape: tuple[int, ...], *rest: Token) -> ValueType:
        element = next((token for token in rest if token.type == "NAME"), None)
        if element is not None and element not in ELEMENTS:
            raise _Mistake(element, f"'{element}' is not an element type", f"there are: {', '.join(ELEMENTS)}")
        rate = next((token for token in rest if token.type == "RATIO"), None)
        if rate is not None and word != "stream":
            raise _Mistake(rate, f"a {word} has no rate")
        extra = () if word != "stream" else (Fraction(rate or 1),)
        kind: ValueType = FLOWS[word](shape, str(element or "real"), *extra)
        return kind

    def onnx_type(self, dims: Any, dtype: Token) -> TensorType:
        return TensorType(dims, str(dtype))

    def dims(self, *dims: Any) -> Any:
        return None if dims == ("*",) else tuple(None if dim == "*" else dim for dim in dims)

    def dim(self, token: Token) -> Any:
        match token.type:
            case "DIMS":
                return int(token)
            case "UNKNOWN":
                return None if token == "?" else "*"
        return _word(token)

    def tensor_hash(self, shape: tuple[int, ...], dtype: Token, *rest: Token) -> Tensor:
        tensor = self._constant(rest[-1])
        if not isinstance(tensor, Tensor) or tensor.shape != shape:
            raise _Mistake(rest[-1], f"the constant {rest[-1]} is {tensor!r}, not a tensor of shape {shape}")
        return tensor

    def tensor_inline(self, shape: tuple[int, ...], dtype: Token, numbers: list[Any]) -> Tensor:
        if dtype not in DTYPES:
            raise _Mistake(dtype, f"'{dtype}' is not an element type of tensors", f"there are: {', '.join(DTYPES)}")
        try:
            return Tensor(np.array(numbers, DTYPES[dtype]).reshape(shape))
        except (ValueError, TypeError, OverflowError):
            raise _Mistake(dtype, f"{len(numbers)} numbers do not make a tensor of shape {shape}") from None

    def numbers(self, *numbers: Any) -> list[Any]:
        return list(numbers)

    def system(self, *pairs: tuple[Token, Any]) -> StateSpace:
        values: dict[str, Any] = {
            str(name): value.array if isinstance(value, Tensor) else value for name, value in pairs
        }
        try:
            return StateSpace(**values)
        except (StateSpaceError, TypeError) as error:
            raise _Mistake(pairs[0][0], f"not a state-space system: {error}") from None

    def piece(self, *numbers: Token) -> Piece:
        return Piece(*map(int, numbers))

    def proto_inline(self, text: Token) -> Any:
        from google.protobuf.text_format import Parse, ParseError
        from onnx import NodeProto

        try:
            return Parse(_word(text), NodeProto())
        except ParseError as error:
            raise _Mistake(text, f"not an ONNX node: {error}") from None

    def proto_hash(self, kind: Token, digest: Token) -> Any:
        return self._constant(digest)

    def _constant(self, token: Token) -> Any:
        if token[1:] not in self.constants:
            raise _Mistake(token, f"nothing is known under {token}", "give the constants beside the text")
        return self.constants[token[1:]]


def _add(graph: Graph, line: _Line) -> None:
    name = line.results[0][1:]
    for index, token in enumerate(line.results):
        wanted = f"%{name}" if index == 0 else f"%{name}:{index}"
        if token != wanted:
            raise _Mistake(token, f"result {index} of this node is called {token}", f"it must be {wanted}")
    if name in graph:
        raise _Mistake(line.results[0], f"{line.results[0]} is defined twice")
    operands = [None if token is None else _value(graph, token) for token in line.operands]
    try:
        known = is_onnx(Op(str(line.op))) or bool(spec_of(str(line.op)))
    except KeyError:
        known = False
    if not known:
        raise _Mistake(line.op, f"no op is called '{line.op}'", near(str(line.op), table()))
    types = tuple(line.types)
    try:
        if not is_onnx(Op(str(line.op))):
            spec = spec_of(str(line.op))
            inferred = graph.infer(Op(str(line.op), spec.complete(line.attrs)), spec, operands)
            if inferred != types:
                given = ", ".join(map(show_type, inferred))
                raise _Mistake(line.op, f"the type is {', '.join(map(show_type, types))}, but the op gives {given}")
        graph.add(str(line.op), operands, line.attrs, name=name, types=types, provenance=line.loc)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise _Mistake(line.op, str(error)) from None
    if len(line.results) != len(types):
        raise _Mistake(line.results[0], f"{len(line.results)} results, but {len(types)} types")
    if line.place is not None:
        graph.set_place(name, line.place)


def _value(graph: Graph, token: Token) -> Value:
    name, _, index = token[1:].partition(":")
    value = Value(name, int(index or 0))
    if name not in graph or value.index >= len(graph.node(name).types):
        known = [str(value) for node in graph.net for value in graph.results(node)]
        raise _Mistake(token, f"{token} is not defined before this line", near(str(token), known))
    return value


def _word(token: Token) -> str:
    if token.type != "STRING":
        return str(token)
    try:
        return str(json.loads(token))
    except ValueError as error:
        raise _Mistake(token, f"not a string: {error}") from None


def _syntax_error(error: UnexpectedInput, text: str, file: str) -> UserError:
    lines = text.splitlines() or [""]
    place = (error.line, error.column)
    wanted: Iterable[str] = getattr(error, "accepts", None) or getattr(error, "expected", None) or ()
    if isinstance(error, UnexpectedCharacters):
        what, wanted = f"unexpected character {text[error.pos_in_stream or 0]!r}", error.allowed or ()
    else:
        token: Any = getattr(error, "token", "")
        what = f"unexpected {str(token)!r}"
        if not token or token.type == "$END":
            what, place = "unexpected end of the text", (len(lines), len(lines[-1]) + 1)
    return _error(what, text, file, place, 1, "expected " + " or ".join(sorted({_told(name) for name in wanted})))


def _told(terminal: str) -> str:
    if terminal in EXPECTED:
        return EXPECTED[terminal]
    found = next((t for t in _grammar().terminals if t.name == terminal), None)
    return f"'{found.pattern.value}'" if found is not None else terminal


def _error(what: str, text: str, file: str, place: tuple[int, int], width: int, hint: str) -> UserError:
    line, column = place
    lines = text.splitlines()
    source = lines[line - 1] if line <= len(lines) else ""
    return UserError(f"{what}\n{pointed(source, column - 1, width)}", where=f"{file}:{line}:{column}", hint=hint)
