"""What the directives of assembly text do: each is one function in the table at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from lark import Token
from numpy.typing import NDArray

from isa.errors import IsaError, did_you_mean
from isa.program import DTYPES, PORT_KINDS, Instruction, Json, Loc, Port, content_hash
from isa.registry import Sets, find_set
from isa.spec import InstructionSet
from isa.syntax import Argument, Line, Source

HASH_DIGITS = 16
"""Digits of a constant's sha256 that its `.data` line carries."""


@dataclass
class Code:
    """A section being read. `pending` are the labels that operands name, with their place in the text."""

    name: str
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[str, Token]] = field(default_factory=list)


@dataclass
class Assembly:
    """A program being read, with what was given beside the text: instruction sets and constants."""

    source: Source
    sets: Sets
    given: Mapping[str, NDArray[Any]]
    isa: InstructionSet | None = None
    version: str = ""
    arch: str = ""
    sections: dict[str, Code] = field(default_factory=dict)
    current: Code | None = None
    data: dict[str, NDArray[Any]] = field(default_factory=dict)
    locs: dict[int, Loc] = field(default_factory=dict)
    loc: int | None = None
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    meta: dict[str, Json] = field(default_factory=dict)
    block: list[Token] | None = None
    end_block: Callable[[list[Token]], None] | None = None


class Arguments:
    """The arguments of one directive, taken in order."""

    def __init__(self, asm: Assembly, line: Line) -> None:
        assert line.directive is not None
        self.asm = asm
        self.directive = line.directive
        self._plain = [a for a in line.arguments if not a.name]
        self._named = {a.name: a for a in line.arguments if a.name}
        self.last: Token = line.directive

    def take(self, form: str, what: str) -> Argument:
        """The next argument, of `form`; `what` it is for the message."""
        if not self._plain:
            self.fail(f"'{self.directive}' lacks {what}", expected=what)
        argument = self._plain.pop(0)
        self.last = argument.token
        if argument.form != form:
            self.fail(f"'{argument.token}' is not {what}", expected=what)
        return argument

    def text(self, what: str) -> str:
        """The next argument, a word or a quoted string."""
        if self._plain and self._plain[0].form == "literal" and isinstance(self._plain[0].value, str):
            self.last = self._plain[0].token
            return str(self._plain.pop(0).value)
        return str(self.take("word", what).value)

    def choice(self, choices: tuple[str, ...], what: str) -> str:
        """The next argument, one of `choices`."""
        word = str(self.take("word", what).value)
        if word not in choices:
            self.fail(f"'{word}' is not {what}", ", ".join(choices), did_you_mean(word, choices))
        return word

    def shape(self) -> tuple[int, ...]:
        """The next argument, a list of sizes."""
        sizes = self.take("literal", "a shape, as in [64, 128]").value
        if not isinstance(sizes, list) or not all(type(n) is int and n >= 0 for n in sizes):
            self.fail("a shape is a list of sizes", "as in [64, 128]")
        return tuple(int(str(n)) for n in sizes)

    def optional(self, form: str) -> Argument | None:
        """The next argument if there is one of `form`."""
        return self.take(form, "") if self._plain and self._plain[0].form == form else None

    def named(self, name: str) -> Json:
        """The value of ``name=...``, None where absent."""
        argument = self._named.pop(name, None)
        if argument is None:
            return None
        self.last = argument.token
        return argument.value

    def end(self) -> None:
        """Nothing may be left."""
        for argument in (*self._plain, *self._named.values()):
            self.last = argument.token
            self.fail(f"'{self.directive}' takes no more arguments here")

    def fail(self, message: str, expected: str = "", suggestion: str = "") -> NoReturn:
        """Raise an `AsmError` at the argument taken last."""
        raise self.asm.source.error(self.last, message, expected=expected, suggestion=suggestion)


def run(asm: Assembly, line: Line) -> None:
    """Carry out the directive of `line`. Raises `AsmError`."""
    assert line.directive is not None
    handler = _DIRECTIVES.get(str(line.directive))
    if handler is None:
        raise asm.source.error(
            line.directive,
            f"there is no directive '{line.directive}'",
            expected=", ".join(_DIRECTIVES),
            suggestion=did_you_mean(str(line.directive), _DIRECTIVES),
        )
    arguments = Arguments(asm, line)
    handler(asm, arguments)
    arguments.end()


def _isa(asm: Assembly, args: Arguments) -> None:
    if asm.isa is not None:
        args.fail("the instruction set is named twice")
    name = args.text("the name of an instruction set")
    place = args.last
    version = str(args.take("literal", "its version, as in 1.0").token)
    try:
        asm.isa = find_set(name, version, asm.sets)
    except IsaError as error:
        raise asm.source.error(place, str(error)) from None
    asm.version = version


def _arch(asm: Assembly, args: Arguments) -> None:
    def end(block: list[Token]) -> None:
        asm.arch = "\n".join(_block_line(token) for token in block)

    if asm.arch:
        args.fail("the architecture is given twice")
    asm.block, asm.end_block = [], end


def _section(asm: Assembly, args: Arguments) -> None:
    name = args.text("a section name")
    if name in asm.sections:
        args.fail(f"section '{name}' is begun twice")
    asm.current = asm.sections[name] = Code(name)
    asm.loc = None


def _data(asm: Assembly, args: Arguments) -> None:
    name = str(args.take("data", "a constant (@name)").value)
    place = args.last
    if name in asm.data:
        args.fail(f"constant '{name}' is declared twice")
    dtype = args.choice(DTYPES, "an element type")
    shape = args.shape()
    values, digest = args.named("values"), args.named("sha256")
    if values is not None:
        asm.data[name] = _inline(args, values, dtype, shape)
        return
    args.last = place
    given = asm.given.get(name)
    if given is None:
        args.fail(
            f"the values of constant '{name}' are not in the text",
            "the data file beside the text (the .ssmx or .safetensors file with the constants), or values=[...]",
            did_you_mean(name, asm.given),
        )
    if given.dtype.name != dtype or given.shape != shape:
        args.fail(f"the data file's '{name}' is {given.dtype.name} {list(given.shape)}, not {dtype} {list(shape)}")
    if digest is not None and content_hash(given)[:HASH_DIGITS] != digest:
        args.fail(f"the data file's '{name}' has other values than this text was written for (its hash differs)")
    asm.data[name] = given


def _inline(args: Arguments, values: Json, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    flat = values if isinstance(values, list) else []
    size = int(np.prod(shape, dtype=object))
    if len(flat) != size or dtype.startswith("complex"):
        args.fail(f"values=[...] is a flat list of {size} real numbers here")
    try:
        with np.errstate(over="raise"):
            array = np.array(flat, dtype=dtype)
        exact = array.tolist() == flat if array.dtype.kind in "biu" else all(type(v) in (int, float) for v in flat)
    except (TypeError, ValueError, OverflowError, FloatingPointError):
        exact = False
    if not exact:
        args.fail(f"a value does not fit {dtype}")
    return array.reshape(shape)


def _loc(asm: Assembly, args: Arguments) -> None:
    number = args.optional("literal")
    if number is None:
        args.choice(("none",), "a source: a number, a quoted layer name or 'none'")
        asm.loc = None
        return
    layer: Json = number.value
    index: int | None = None
    if type(layer) is int:
        index = layer
        named = args.optional("literal")
        layer = named.value if named else None
    if layer is None:
        if index not in asm.locs:
            args.fail(f"source {index} is not described before this line", 'as in .loc 3 "layer" op=ssm "onnx node"')
        asm.loc = index
        return
    op = args.named("op")
    nodes: list[Json] = []
    while (node := args.optional("literal")) is not None:
        nodes.append(node.value)
    if not all(isinstance(text, str) for text in (layer, op or "", *nodes)):
        args.fail("the layer, op and ONNX nodes of a source are quoted strings")
    loc = Loc(str(layer), str(op or ""), tuple(str(node) for node in nodes))
    if index is None:
        index = next((i for i, known in asm.locs.items() if known == loc), len(asm.locs))
    if asm.locs.setdefault(index, loc) != loc:
        args.fail(f"source {index} is described twice")
    asm.loc = index


def _input(asm: Assembly, args: Arguments) -> None:
    asm.inputs.append(_port(args))


def _output(asm: Assembly, args: Arguments) -> None:
    asm.outputs.append(_port(args))


def _port(args: Arguments) -> Port:
    name = args.text("the port's name")
    kind = args.choice(PORT_KINDS, "a kind of port")
    shape = args.shape()
    return Port(name, shape, kind, args.choice(DTYPES, "an element type"), args.named("binding"))


def _meta(asm: Assembly, args: Arguments) -> None:
    key = args.text("a key")
    if key in asm.meta:
        args.fail(f"meta '{key}' is given twice")
    literal = args.optional("literal")
    if literal is not None:
        asm.meta[key] = literal.value
        return
    if (word := args.optional("word")) is not None:
        if word.value not in ("true", "false", "null"):
            args.fail(
                f"'{word.value}' is not a JSON value", "a quoted string, a number, a list, an object, true, false, null"
            )
        asm.meta[key] = json.loads(str(word.value))
        return
    asm.meta[key] = None

    def end(block: list[Token]) -> None:
        try:
            asm.meta[key] = json.loads("\n".join(_block_line(token) for token in block), parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            at = block[min(error.lineno, len(block)) - 1] if block else args.directive
            raise asm.source.error(at, f"this is not JSON: {error.msg}", expected="a value for the key") from None
        except (ValueError, RecursionError) as error:
            raise asm.source.error(args.directive, f"this is not JSON: {error}") from None

    asm.block, asm.end_block = [], end


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _block_line(token: Token) -> str:
    text = str(token)[1:]
    return text.removeprefix(" ")


_DIRECTIVES: dict[str, Callable[[Assembly, Arguments], None]] = {
    ".isa": _isa,  # .isa cim 2.0
    ".arch": _arch,  # .arch, then block lines with the architecture's text
    ".input": _input,  # .input u stream [8] float32 binding={...}
    ".output": _output,  # .output y sequence [10] float32
    ".data": _data,  # .data @w int8 [64, 64] sha256="..."  or  .data @b float32 [2] values=[0.5, 1.0]
    ".section": _section,  # .section core3
    ".loc": _loc,  # .loc 3 "layer" op=ssm "onnx node" ...,  .loc 3,  .loc none
    ".meta": _meta,  # .meta key JSON, or block lines
}
