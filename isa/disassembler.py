"""A `Program` to canonical assembly text, which `assemble` reads back as the same program."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isa.check import check, set_of
from isa.directives import HASH_DIGITS
from isa.operands import data_text, write_operand
from isa.program import Instruction, Json, Loc, Port, Program, Section, content_hash
from isa.registry import Sets
from isa.spec import InstructionSet

INLINE_VALUES = 8
"""Constants of up to this many elements stand in the text; larger ones are named by their hash."""

_INLINE_JSON = 88
_WIDEST_CODE = 72
_INDENT = "    "
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")


def disassemble(program: Program, sets: Sets = None) -> str:
    """The canonical text of `program`: columns aligned, every line of code with its layer in a comment.

    Raises `IsaError` where the program is not one of its instruction set.
    """
    isa = set_of(program, sets)
    check(program, isa)
    return "\n".join(_lines(program, isa)) + "\n"


def _lines(program: Program, isa: InstructionSet) -> Iterator[str]:
    size = sum(array.nbytes for array in program.data.values())
    yield (
        f"; instructions: {program.instruction_count}, sections: {len(program.sections)}, "
        f"constants: {len(program.data)} ({size} bytes)"
    )
    yield f".isa {program.target} {program.isa_version}"
    if program.arch:
        yield ".arch"
        yield from _block(program.arch)
    yield from (_port(".input", port) for port in program.inputs)
    yield from (_port(".output", port) for port in program.outputs)
    yield from (_data(name, array) for name, array in program.data.items())
    used = {ins.loc for section in program.sections for ins in section.code}
    yield from (_loc(i, loc) for i, loc in enumerate(program.locs) if i not in used)
    described: set[int] = set()
    for section in program.sections:
        yield ""
        yield f".section {section.name}"
        yield from _section(section, program, isa, described)
    if program.meta:
        yield ""
    for key, value in program.meta.items():
        yield from _meta(key, value)


def _section(section: Section, program: Program, isa: InstructionSet, described: set[int]) -> Iterator[str]:
    width = max((len(ins.mnemonic) for ins in section.code), default=0)
    code = [_code(ins, isa, width) for ins in section.code]
    column = min(max(map(len, code), default=0), _WIDEST_CODE)
    labels = {place: name for name, place in section.labels.items()}
    here: int | None = None
    for index, (ins, text) in enumerate(zip(section.code, code, strict=True)):
        if ins.loc != here:
            here = ins.loc
            yield ".loc none" if here is None else _loc(here, None if here in described else program.locs[here])
            described |= {here} if here is not None else set()
        if index in labels:
            yield f"{labels[index]}:"
        layer = "" if here is None else f"  ; {_printable(program.locs[here].layer)}"
        yield f"{_INDENT}{text:<{column}}{layer}".rstrip()
    if len(code) in labels:
        yield f"{labels[len(code)]}:"


def _code(ins: Instruction, isa: InstructionSet, width: int) -> str:
    written = (write_operand(field, ins.operands[field.name]) for field in isa.by_mnemonic[ins.mnemonic].fields)
    operands = ", ".join(text for text in written if text)
    return f"{ins.mnemonic:<{width}}  {operands}".rstrip()


def _loc(index: int, loc: Loc | None) -> str:
    if loc is None:
        return f".loc {index}"
    words = [f".loc {index} {json.dumps(loc.layer)}"]
    if loc.op:
        words.append(f"op={_text(loc.op)}")
    return " ".join([*words, *map(json.dumps, loc.onnx_nodes)])


def _port(directive: str, port: Port) -> str:
    binding = "" if port.binding is None else f" binding={json.dumps(port.binding)}"
    return f"{directive} {_text(port.name)} {port.kind} {json.dumps(port.shape)} {port.dtype}{binding}"


def _data(name: str, array: NDArray[Any]) -> str:
    line = f".data {data_text(name)} {array.dtype.name} {json.dumps(array.shape)}"
    kind = array.dtype.kind
    if array.size <= INLINE_VALUES and (kind in "biu" or (kind == "f" and bool(np.isfinite(array).all()))):
        return f"{line} values=[{', '.join(_number(v) for v in array.ravel())}]"
    return f'{line} sha256="{content_hash(array)[:HASH_DIGITS]}"'


def _number(value: np.generic) -> str:
    """The shortest decimal that reads back as this number of its element type."""
    return json.dumps(value.item()) if value.dtype.kind in "biu" else str(value)


def _meta(key: str, value: Json) -> Iterator[str]:
    text = json.dumps(value)
    if len(text) <= _INLINE_JSON:
        yield f".meta {_text(key)} {text}"
        return
    yield f".meta {_text(key)}"
    if isinstance(value, dict):
        entries, brackets = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()], "{}"
    elif isinstance(value, list):
        entries, brackets = [json.dumps(v) for v in value], "[]"
    else:
        yield from _block(text)
        return
    yield from _block(brackets[0] + "\n  " + ",\n  ".join(entries) + "\n" + brackets[1])


def _block(text: str) -> Iterator[str]:
    yield from (f"| {line}" if line else "|" for line in text.split("\n"))


def _text(word: str) -> str:
    return word if _PLAIN.match(word) and word not in ("true", "false", "null") else json.dumps(word)


def _printable(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)
