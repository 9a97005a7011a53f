"""Fields of an instruction: their kinds, how wide they are, and which values may stand in them."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import Enum

Value = int | float | str | bool
"""What an operand holds: a register, data, label or choice by name (str), an address or integer (int), a
float, a flag (bool).
"""

CONSTANT_BITS = 24  # of an operand that names a constant: a matrix of a large model is one an array or pass


class Kind(Enum):
    """The kinds of operand, how the text writes each, and what Python value a `Program` holds for it."""

    REG = "register"  # rT: a scalar machine register; str, one of InstructionSet.registers
    ADDR = "address"  # spad[12]: a word address in a memory space; int
    IMM = "integer"  # rows=64: an integer in the field's range; int
    FLOAT = "float"  # scale=0.5: an immediate of 32 or 64 bits; float, exactly representable in them
    DATA = "constant"  # @layers.0.weight: a constant of the data section; str, its name ("" where optional and absent)
    LABEL = "label"  # top: a place in the same section's code; str, the label
    ENUM = "choice"  # gelu: one of the field's choices; str
    FLAG = "flag"  # accumulate: a word that is present or absent; bool


@dataclass(frozen=True)
class Field:
    """One operand: its name, kind, width in the word, meaning, and what values it takes.

    `low` and `high` bound IMM and ADDR (inclusive); left out they follow from `bits`: ``0 .. 2**bits - 1``,
    or two's complement where `low` is negative. `choices` are for ENUM, `space` names the memory of an
    ADDR, `other` a second one that it may name instead: the top bit says which, so that a value of `half` and
    above is address value - half there. `unit` is for the reader. An operand with a `default` is optional and
    left out of canonical text when it holds it; ``default=""`` makes a DATA operand optional. A FLAG is false by
    default.
    """

    name: str
    kind: Kind
    bits: int
    doc: str
    low: int | None = None
    high: int | None = None
    choices: tuple[str, ...] = ()
    space: str = ""
    other: str = ""
    default: Value | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if self.kind is Kind.FLAG and self.default is None:
            object.__setattr__(self, "default", False)
        if self.kind is Kind.FLOAT and isinstance(self.default, float | int):
            object.__setattr__(self, "default", round_float(self.default, self.bits))
        if self.kind in (Kind.IMM, Kind.ADDR):
            low = 0 if self.low is None else self.low
            bound = 2 ** (self.bits - 1) - 1 if low < 0 else 2**self.bits - 1
            object.__setattr__(self, "low", low)
            object.__setattr__(self, "high", bound if self.high is None else self.high)

    @property
    def optional(self) -> bool:
        """May the text leave it out?"""
        return self.default is not None

    @property
    def named(self) -> bool:
        """Whether canonical text writes ``name=value``: bare numbers say nothing, and optional operands
        need a name.
        """
        return self.kind in (Kind.IMM, Kind.FLOAT) or (self.optional and self.kind is not Kind.FLAG)

    @property
    def signed(self) -> bool:
        """Are negative numbers in its range?"""
        return self.low is not None and self.low < 0

    @property
    def half(self) -> int:
        """Where the addresses of `other` begin."""
        return 1 << (self.bits - 1)

    @property
    def spaces(self) -> tuple[str, ...]:
        """The memories that an ADDR may name."""
        return (self.space, self.other) if self.other else (self.space,)

    @property
    def range(self) -> tuple[int, int]:
        """The inclusive bounds of an IMM or ADDR field."""
        assert self.low is not None and self.high is not None, f"{self.name} has no range"
        return self.low, self.high


def round_float(value: float, bits: int) -> float:
    """The nearest float of `bits` bits (32 or 64) as a Python float. Raises OverflowError when float32
    cannot hold it.
    """
    return float(value) if bits == 64 else float(struct.unpack("<f", struct.pack("<f", value))[0])


WHOLE = (Kind.IMM, Kind.ADDR)


def plainly_fits(field: Field, value: object) -> bool:
    """Whether `value_problem` need not be asked: most operands are Python's own whole numbers and flags."""
    if type(value) is int:
        low, high = field.low, field.high
        return field.kind in WHOLE and low is not None and high is not None and low <= value <= high
    return type(value) is bool and field.kind is Kind.FLAG


def value_problem(field: Field, value: object, registers: dict[str, int]) -> str:
    """Why `value` cannot stand in `field` ("" when it can): wrong Python type, out of range, no such
    register or choice.

    Labels and data names are checked for type alone: whether they exist only the program knows.
    """
    match field.kind:
        case Kind.REG:
            return (
                "" if isinstance(value, str) and value in registers else f"{value!r} is not a register of this machine"
            )
        case Kind.ENUM:
            return "" if value in field.choices else f"{value!r} is not one of {', '.join(field.choices)}"
        case Kind.FLAG:
            return "" if isinstance(value, bool) else f"{value!r} is not true or false"
        case Kind.DATA:
            if not isinstance(value, str):
                return f"{value!r} is not the name of a constant"
            return "" if value or field.default == "" else "names no constant"
        case Kind.LABEL:
            return "" if isinstance(value, str) and value else f"{value!r} is not a label"
        case Kind.IMM | Kind.ADDR:
            low, high = field.range
            if isinstance(value, bool) or not isinstance(value, int):
                return f"{value!r} is not an integer"
            return "" if low <= value <= high else f"{value} is out of range {low}..{high}"
        case Kind.FLOAT:
            if not isinstance(value, float) or math.isnan(value):
                return f"{value!r} is not a float"
            try:
                exact = round_float(value, field.bits) == value
            except OverflowError:
                exact = False
            return "" if exact else f"{value!r} is not a float{field.bits} value"
