"""Operands in text: how each kind is written, read and explained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isa.fields import Field, Kind, Value, round_float
from isa.spec import InstructionSet, InstructionSpec
from isa.syntax import Operand, parse_number

_PLAIN_DATA = re.compile(r"[A-Za-z0-9_./-]+\Z")


@dataclass(frozen=True)
class BadOperand(Exception):
    """Why an operand as written cannot stand in its field; `candidates` are the words it might have meant."""

    problem: str
    candidates: tuple[str, ...] = ()


def expected(field: Field, isa: InstructionSet) -> str:
    """What the text may say for `field`, in words."""
    match field.kind:
        case Kind.REG:
            return "a register: " + ", ".join(register.name for register in isa.registers)
        case Kind.ADDR:
            low, high = _bounds(field)
            return "an address " + " or ".join(f"{space}[{low}..{high}]" for space in field.spaces)
        case Kind.IMM:
            return f"an integer {field.range[0]}..{field.range[1]}"
        case Kind.FLOAT:
            return f"a number (float{field.bits})"
        case Kind.DATA:
            return "a constant: @name"
        case Kind.LABEL:
            return "a label of this section"
        case Kind.ENUM:
            return "one of " + ", ".join(field.choices)
        case Kind.FLAG:
            return f"the word {field.name}, or nothing"


def placeholder(field: Field) -> str:
    """How an operand looks in an instruction's format line."""
    match field.kind:
        case Kind.FLAG:
            return f"[{field.name}]"
        case Kind.ADDR:
            shape = "|".join(f"{space}[{field.name}]" for space in field.spaces)
        case Kind.DATA:
            shape = f"@{field.name}"
        case Kind.IMM | Kind.FLOAT:
            shape = "N"
        case _:
            shape = f"<{field.kind.value if field.named else field.name}>"
    shape = f"{field.name}={shape}" if field.named else shape
    return f"[{shape}]" if field.optional else shape


def signature(spec: InstructionSpec) -> str:
    """The format line: ``mvm v[dst], v[src], @weights, rows=N, [accumulate]``."""
    return f"{spec.mnemonic} {', '.join(placeholder(field) for field in spec.fields)}".rstrip()


def data_text(name: str) -> str:
    """A constant's name in text: ``@layers.0.weight``, or quoted where it has other characters."""
    return f"@{name}" if _PLAIN_DATA.match(name) else f"@{json.dumps(name)}"


def float_text(value: float, bits: int) -> str:
    """The shortest decimal that reads back as this float."""
    if bits == 32:
        short = str(np.float32(value))
        if round_float(float(short), 32) == value:
            return short
    return repr(value)


def write_operand(field: Field, value: Value) -> str:
    """The canonical text of an operand, its name included where the text has one. Empty when it holds the default."""
    if field.optional and repr(value) == repr(field.default):
        return ""
    match field.kind:
        case Kind.FLAG:
            return field.name
        case Kind.ADDR:
            text = f"{field.space}[{value}]"
            if field.other and isinstance(value, int) and value >= field.half:
                text = f"{field.other}[{value - field.half}]"
        case Kind.DATA:
            text = data_text(str(value))
        case Kind.FLOAT:
            text = float_text(float(value), field.bits)
        case _:
            text = str(value)
    return f"{field.name}={text}" if field.named else text


def read_operand(field: Field, operand: Operand, isa: InstructionSet) -> Value:
    """The value of an operand as written. Raises `BadOperand`. Labels and constants are returned by name, unchecked."""
    return _READ[field.kind](field, operand, isa)


def _word(field: Field, operand: Operand, known: tuple[str, ...], what: str) -> str:
    if operand.form != "word":
        raise BadOperand(f"{_article(operand)} is not {what}")
    if operand.text not in known:
        raise BadOperand(f"'{operand.text}' is not {what}", known)
    return operand.text


def _register(field: Field, operand: Operand, isa: InstructionSet) -> Value:
    return _word(field, operand, tuple(isa.register_index), "a register")


def _choice(field: Field, operand: Operand, isa: InstructionSet) -> Value:
    return _word(field, operand, field.choices, f"a value of '{field.name}'")


def _label(field: Field, operand: Operand, isa: InstructionSet) -> Value:
    return _word(field, operand, (operand.text,), "a label")


def _data(field: Field, operand: Operand, isa: InstructionSet) -> Value:
    if operand.form != "data":
        raise BadOperand(f"{_article(operand)} is not a constant")
    return operand.text


def _integer(field: Field, operand: Operand, isa: InstructionSet) -> Value:
    if operand.form != "number":
        raise BadOperand(f"{_article(operand)} is not an integer")
    return _in_range(field, operand.text)


def _address(field: Field, operand: Operand, isa: InstructionSet) -> Value:
    if operand.form != "address":
        raise BadOperand(f"{_article(operand)} is not an address")
    if operand.space not in field.spaces:
        raise BadOperand(f"'{operand.space}' is the wrong memory for this operand", field.spaces)
    return _in_range(field, operand.text) + (field.half if operand.space == field.other else 0)


def _bounds(field: Field) -> tuple[int, int]:
    """Of a number as written: of an address, in either of its memories."""
    return (0, field.half - 1) if field.other else field.range


def _in_range(field: Field, text: str) -> int:
    low, high = _bounds(field)
    try:
        value = parse_number(text)
    except ValueError:
        value = float("inf")
    if not isinstance(value, int):
        raise BadOperand(f"{_short(text)} is not an integer")
    if not low <= value <= high:
        unit = f" {field.unit}" if field.unit else ""
        raise BadOperand(f"{_short(text)} is out of range {low}..{high}{unit}")
    return value


def _float(field: Field, operand: Operand, isa: InstructionSet) -> Value:
    if operand.form != "number" and operand.text != "inf":
        raise BadOperand(f"{_article(operand)} is not a number")
    try:
        text = operand.text
        value = float(parse_number(text)) if "inf" not in text else float(text)
        return round_float(value, field.bits)
    except OverflowError:
        raise BadOperand(f"{operand.text} is too large for float{field.bits}") from None


def _flag(field: Field, operand: Operand, isa: InstructionSet) -> Value:
    raise BadOperand(f"'{field.name}' is a word of its own and takes no value")


def _article(operand: Operand) -> str:
    if operand.form == "word":
        return f"'{operand.text}'"
    names = {"number": "the number", "data": "the constant", "address": "the address"}
    return f"{names[operand.form]} {_short(operand.token)}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


_READ: dict[Kind, Callable[[Field, Operand, InstructionSet], Value]] = {
    Kind.REG: _register,
    Kind.ADDR: _address,
    Kind.IMM: _integer,
    Kind.FLOAT: _float,
    Kind.DATA: _data,
    Kind.LABEL: _label,
    Kind.ENUM: _choice,
    Kind.FLAG: _flag,
}
