"""An instruction set as data: instructions, of `fields`, and the set.

Assembler, disassembler, binary form, reference manual and test strategies all derive from these tables, and
a simulator dispatches on them. An instruction is one little-endian word of ``word_bytes`` bytes: the opcode
in bits 7..0, then the fields upwards in the order in which they are declared, then zeros.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from isa.errors import IsaError
from isa.fields import Field, Kind, Value, value_problem

OPCODE_BITS = 8

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")


@dataclass(frozen=True)
class Term:
    """A name with its meaning in one sentence: a register, a memory space, a timing class."""

    name: str
    doc: str


@dataclass(frozen=True)
class InstructionSpec:
    """One instruction: what it is called, how it is encoded, what it does (one sentence) and how its time
    is counted.
    """

    mnemonic: str
    opcode: int
    fields: tuple[Field, ...]
    timing: str
    doc: str
    notes: str = ""

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """The fields by operand name."""
        return {field.name: field for field in self.fields}

    @cached_property
    def defaults(self) -> dict[str, Value | None]:
        """Every operand by its default, None where there is none."""
        return {field.name: field.default for field in self.fields}

    @cached_property
    def positional(self) -> tuple[Field, ...]:
        """The operands that the text may give by position: the required ones, in order."""
        return tuple(field for field in self.fields if not field.optional)

    @cached_property
    def flags(self) -> frozenset[str]:
        """The words that stand for this instruction's flags."""
        return frozenset(field.name for field in self.fields if field.kind is Kind.FLAG)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The operands that name places in the code."""
        return tuple(field.name for field in self.fields if field.kind is Kind.LABEL)

    @cached_property
    def layout(self) -> tuple[tuple[Field, int], ...]:
        """Each field with the number of its lowest bit in the instruction word."""
        at, out = OPCODE_BITS, []
        for field in self.fields:
            out.append((field, at))
            at += field.bits
        return tuple(out)

    @cached_property
    def bits(self) -> int:
        """Bits of the word in use, the opcode included."""
        return OPCODE_BITS + sum(field.bits for field in self.fields)


@dataclass(frozen=True)
class InstructionSet:
    """A target's instructions with its registers, memory spaces and timing classes. Checks itself: a
    mistake in a table is an `IsaError`.

    `registers` are the scalar machine registers in encoding order, each with its meaning (``Term("rT",
    "steps of the sequence")``); sequence length and batch are values in them, never immediates. `spaces`
    are the memories that ADDR operands name. `timings`, where given, explains every timing class in use.
    Version ``"1.2"`` reads programs of ``"1.0"`` to ``"1.2"``.
    """

    name: str
    version: str
    instructions: tuple[InstructionSpec, ...]
    registers: tuple[Term, ...] = ()
    spaces: tuple[Term, ...] = ()
    timings: tuple[Term, ...] = ()
    doc: str = ""
    word_bytes: int = 16

    def __post_init__(self) -> None:
        mistakes = list(_mistakes(self))
        if mistakes:
            raise IsaError(f"instruction set '{self.name}': " + "; ".join(mistakes))

    @cached_property
    def by_mnemonic(self) -> dict[str, InstructionSpec]:
        """The instructions by what the text calls them."""
        return {spec.mnemonic: spec for spec in self.instructions}

    @cached_property
    def by_opcode(self) -> dict[int, InstructionSpec]:
        """The instructions by what the binary form calls them."""
        return {spec.opcode: spec for spec in self.instructions}

    @cached_property
    def register_index(self) -> dict[str, int]:
        """The number of each register in the binary form."""
        return {register.name: index for index, register in enumerate(self.registers)}

    @cached_property
    def flag_words(self) -> frozenset[str]:
        """Words that stand for flags in the text; no label may be called so."""
        return frozenset(word for spec in self.instructions for word in spec.flags)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that the binary form depends on: two tables of one name and version with different
        ones do not mix.
        """
        table = [
            [
                s.opcode,
                s.mnemonic,
                [[f.name, f.kind.name, f.bits, f.range if f.low is not None else f.choices] for f in s.fields],
            ]
            for s in self.instructions
        ]
        text = json.dumps([self.word_bytes, [r.name for r in self.registers], table])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def reads(self, version: str) -> bool:
        """Whether a program of ISA `version` runs here: same major number, minor number not above ours."""
        ours, theirs = parse_version(self.version), parse_version(version)
        return theirs is not None and ours is not None and theirs[0] == ours[0] and theirs[1] <= ours[1]


def parse_version(version: str) -> tuple[int, int] | None:
    """``"1.2"`` -> ``(1, 2)``; None when it is not of that form."""
    match = re.fullmatch(r"(\d{1,6})\.(\d{1,6})", version, re.ASCII)
    return (int(match[1]), int(match[2])) if match else None


def _mistakes(isa: InstructionSet) -> Iterator[str]:
    if parse_version(isa.version) is None:
        yield f"version '{isa.version}' is not MAJOR.MINOR"
    if isa.word_bytes < 8 or isa.word_bytes % 8:
        yield f"a word of {isa.word_bytes} bytes is not a multiple of 8 bytes"
    for what, names in (
        ("mnemonic", [spec.mnemonic for spec in isa.instructions]),
        ("opcode", [spec.opcode for spec in isa.instructions]),
        ("register", [term.name for term in isa.registers]),
        ("space", [term.name for term in isa.spaces]),
    ):
        yield from (f"{what} {name!r} appears {n} times" for name, n in Counter(names).items() if n > 1)
    for term in (*isa.registers, *isa.spaces, *isa.timings):
        if not _WORD.match(term.name) or not term.doc.strip():
            yield f"'{term.name}' needs a plain name and a sentence"
    for spec in isa.instructions:
        yield from (f"instruction '{spec.mnemonic}': {mistake}" for mistake in _spec_mistakes(spec, isa))


def _spec_mistakes(spec: InstructionSpec, isa: InstructionSet) -> Iterator[str]:
    if not _WORD.match(spec.mnemonic):
        yield "the mnemonic is not a plain word"
    if not 0 <= spec.opcode < 2**OPCODE_BITS:
        yield f"opcode {spec.opcode} does not fit {OPCODE_BITS} bits"
    if not spec.doc.strip():
        yield "has no sentence"
    if not spec.timing or (isa.timings and spec.timing not in {term.name for term in isa.timings}):
        yield f"timing class '{spec.timing}' is not declared"
    if spec.bits > 8 * isa.word_bytes:
        yield f"needs {spec.bits} bits, the word has {8 * isa.word_bytes}"
    yield from (f"field '{name}' appears twice" for name, n in Counter(f.name for f in spec.fields).items() if n > 1)
    for field in spec.fields:
        yield from (f"field '{field.name}': {mistake}" for mistake in _field_mistakes(field, isa))
        if spec.flags & ({*field.choices} | (isa.register_index.keys() if field.kind is Kind.REG else set())):
            yield f"field '{field.name}': a choice or register has the name of a flag of the same instruction"


def _field_mistakes(field: Field, isa: InstructionSet) -> Iterator[str]:
    if not _WORD.match(field.name) or not field.doc.strip():
        yield "needs a plain name and a sentence"
    if field.bits < 1:
        yield f"{field.bits} bits hold nothing"
    match field.kind:
        case Kind.IMM | Kind.ADDR:
            low, high = field.range
            least = -(2 ** (field.bits - 1)) if field.signed else 0
            most = 2 ** (field.bits - 1) - 1 if field.signed else 2**field.bits - 1
            if not least <= low <= high <= most:
                yield f"range {low}..{high} does not fit {field.bits} bits"
            declared = {term.name for term in isa.spaces}
            if field.kind is Kind.ADDR and (unknown := [space for space in field.spaces if space not in declared]):
                yield f"memory space '{unknown[0]}' is not declared"
            if field.other and (field.kind is not Kind.ADDR or (low, high) != (0, 2**field.bits - 1)):
                yield "an address in either of two memories takes all values of its bits"
        case Kind.FLOAT:
            if field.bits not in (32, 64):
                yield "a float has 32 or 64 bits"
        case Kind.ENUM:
            if not field.choices or len(field.choices) > 2**field.bits:
                yield f"{len(field.choices)} choices do not fit {field.bits} bits"
            if len(set(field.choices)) != len(field.choices) or not all(_WORD.match(c) for c in field.choices):
                yield "choices must be distinct plain words"
        case Kind.REG:
            if not isa.registers or len(isa.registers) > 2**field.bits:
                yield f"{len(isa.registers)} registers do not fit {field.bits} bits"
        case Kind.FLAG:
            if field.bits != 1 or field.default is not False:
                yield "a flag is one bit, false by default"
        case Kind.LABEL:
            if field.default is not None:
                yield "a label cannot be optional"
        case Kind.DATA:
            if field.default not in (None, ""):
                yield 'a constant can only default to "" (none)'
    if field.default is not None and (problem := value_problem(field, field.default, isa.register_index)):
        yield f"default: {problem}"
