"""Instructions to little-endian code words and back, from the table alone."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from isa.check import check, set_of
from isa.errors import IsaError
from isa.fields import Field, Kind, Value, value_problem
from isa.frozen import FrozenMap
from isa.program import Instruction, Program, Section
from isa.registry import Sets
from isa.spec import OPCODE_BITS, InstructionSet

_FLOAT = {32: "<f", 64: "<d"}


def encode(program: Program, sets: Sets = None) -> dict[str, NDArray[np.uint8]]:
    """The code words of each section, ``uint8 (instructions, word_bytes)``.

    A label becomes the index of the instruction it names; a constant its index in the program's name order
    plus 1, so that 0 is none. Raises `IsaError` where the program is not one of its instruction set.
    """
    isa = set_of(program, sets)
    check(program, isa)
    constants = {name: index + 1 for index, name in enumerate(program.data)}
    return {section.name: _encode_section(section, isa, constants) for section in program.sections}


def _encode_section(section: Section, isa: InstructionSet, constants: Mapping[str, int]) -> NDArray[np.uint8]:
    words = b"".join(_encode_word(ins, section, isa, constants) for ins in section.code)
    return np.frombuffer(words, np.uint8).reshape(len(section.code), isa.word_bytes)


def _encode_word(ins: Instruction, section: Section, isa: InstructionSet, constants: Mapping[str, int]) -> bytes:
    spec = isa.by_mnemonic[ins.mnemonic]
    word = spec.opcode
    for field, at in spec.layout:
        word |= _bits(field, ins.operands[field.name], section, isa, constants) << at
    return word.to_bytes(isa.word_bytes, "little")


def _bits(field: Field, value: Value, section: Section, isa: InstructionSet, constants: Mapping[str, int]) -> int:
    match field.kind:
        case Kind.FLOAT:
            return int.from_bytes(struct.pack(_FLOAT[field.bits], value), "little")
        case Kind.REG:
            return isa.register_index[str(value)]
        case Kind.ENUM:
            return field.choices.index(str(value))
        case Kind.DATA:
            return constants[str(value)] if value else 0
        case Kind.LABEL:
            return section.labels[str(value)]
        case _:
            return int(value) & ((1 << field.bits) - 1)


def decode(
    name: str,
    words: NDArray[np.uint8],
    isa: InstructionSet,
    *,
    labels: Mapping[str, int],
    constants: Sequence[str],
    locs: Sequence[int | None],
) -> Section:
    """The section of these code words; inverse of `encode` given the names that words do not hold.

    `labels` are the section's, `constants` the program's in name order, `locs` the source of each
    instruction. Raises `IsaError` that names section, instruction and field: unknown opcode, a field
    outside its range, bits set where the instruction has none.
    """
    if words.dtype != np.uint8 or words.ndim != 2 or words.shape[1] != isa.word_bytes or len(locs) != len(words):
        raise IsaError(f"section '{name}': code is not one row of {isa.word_bytes} bytes for each instruction")
    names = {place: label for label, place in labels.items()}
    code = []
    for index, loc in enumerate(locs):
        try:
            code.append(_decode_word(int.from_bytes(words[index].tobytes(), "little"), isa, names, constants, loc))
        except _BadWord as bad:
            raise IsaError(f"section '{name}', instruction {index}: {bad}") from None
    return Section(name, tuple(code), FrozenMap(labels))


class _BadWord(Exception):
    """What is wrong with one code word."""


def _decode_word(
    word: int, isa: InstructionSet, labels: Mapping[int, str], constants: Sequence[str], loc: int | None
) -> Instruction:
    opcode = word & (2**OPCODE_BITS - 1)
    spec = isa.by_opcode.get(opcode)
    if spec is None:
        raise _BadWord(f"{isa.name} {isa.version} has no opcode 0x{opcode:02x}")
    if word >> spec.bits:
        raise _BadWord(f"'{spec.mnemonic}' has bits set beyond its {spec.bits}")
    values: dict[str, Value] = {}
    for field, at in spec.layout:
        bits = (word >> at) & (2**field.bits - 1)
        value = _value(field, bits, isa, labels, constants)
        problem = f"{bits} stands for nothing" if value is None else value_problem(field, value, isa.register_index)
        if value is None or problem:
            raise _BadWord(f"operand '{field.name}' of '{spec.mnemonic}': {problem}")
        values[field.name] = value
    return Instruction(spec.mnemonic, FrozenMap(values), loc)


def _value(
    field: Field, bits: int, isa: InstructionSet, labels: Mapping[int, str], constants: Sequence[str]
) -> Value | None:
    match field.kind:
        case Kind.FLOAT:
            return float(struct.unpack(_FLOAT[field.bits], bits.to_bytes(field.bits // 8, "little"))[0])
        case Kind.REG:
            return isa.registers[bits].name if bits < len(isa.registers) else None
        case Kind.ENUM:
            return field.choices[bits] if bits < len(field.choices) else None
        case Kind.DATA:
            return "" if bits == 0 else constants[bits - 1] if bits <= len(constants) else None
        case Kind.LABEL:
            return labels.get(bits)
        case Kind.FLAG:
            return bool(bits)
        case _:
            return bits - 2**field.bits if field.signed and bits >> (field.bits - 1) else bits
