"""Assembly text to a `Program`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lark import Token
from numpy.typing import NDArray

from isa.check import check, reserved_words
from isa.directives import Assembly, Code, run
from isa.errors import IsaError, did_you_mean
from isa.fields import Field, Kind, Value
from isa.frozen import FrozenMap
from isa.operands import BadOperand, expected, read_operand, signature
from isa.program import Instruction, Program, Section, canonical_array
from isa.registry import Sets
from isa.spec import InstructionSet, InstructionSpec
from isa.syntax import Line, Operand, parse


def assemble(
    text: str, filename: str = "<text>", sets: Sets = None, data: Mapping[str, NDArray[Any]] | None = None
) -> Program:
    """The program that `text` describes.

    `sets` are the instruction sets that `.isa` may name (default: this package's); `data` gives the
    constants that the text declares without values. Raises `AsmError` with the place of the first mistake.
    """
    source, lines = parse(text, filename)
    given = {name: canonical_array(array, name) for name, array in (data or {}).items()}
    asm = Assembly(source, sets, given)
    for line in lines:
        _line(asm, line)
    _end_block(asm)
    if asm.isa is None:
        raise source.error(
            1, "the text names no instruction set", expected=".isa NAME VERSION before the first instruction"
        )
    for code in asm.sections.values():
        _check_labels(asm, code)
    if sorted(asm.locs) != list(range(len(asm.locs))):
        missing = next(i for i in range(len(asm.locs)) if i not in asm.locs)
        raise source.error(
            len(source.lines), f"sources are numbered from 0 without gaps, and {missing} is not described"
        )
    try:
        program = Program(
            target=asm.isa.name,
            isa_version=asm.version,
            arch=asm.arch,
            sections=tuple(Section(c.name, tuple(c.code), FrozenMap(c.labels)) for c in asm.sections.values()),
            data=FrozenMap(asm.data),
            locs=tuple(asm.locs[i] for i in range(len(asm.locs))),
            inputs=tuple(asm.inputs),
            outputs=tuple(asm.outputs),
            meta=FrozenMap(asm.meta),
        )
        check(program, asm.isa)
    except IsaError as error:
        raise source.error(1, str(error)) from None
    return program


def _line(asm: Assembly, line: Line) -> None:
    if line.block is not None and not line.labels:
        if asm.block is None:
            raise asm.source.error(line.block, "a block line belongs under .arch or .meta")
        asm.block.append(line.block)
        return
    _end_block(asm)
    for label in line.labels:
        _place_label(asm, label)
    if line.directive is not None:
        run(asm, line)
    elif line.mnemonic is not None:
        code = _section(asm, line.mnemonic)
        code.code.append(_instruction(asm, code, line.mnemonic, line.operands))
    elif line.block is not None:
        raise asm.source.error(line.block, "a block line cannot follow a label")


def _end_block(asm: Assembly) -> None:
    if asm.block is not None and asm.end_block is not None:
        asm.end_block(asm.block)
    asm.block = asm.end_block = None


def _section(asm: Assembly, at: Token) -> Code:
    if asm.isa is None:
        raise asm.source.error(
            at, "no instruction set is named yet", expected=".isa NAME VERSION before the first instruction"
        )
    if asm.current is None:
        asm.current = asm.sections["main"] = Code("main")
    return asm.current


def _place_label(asm: Assembly, label: Token) -> None:
    code = _section(asm, label)
    assert asm.isa is not None
    if label in reserved_words(asm.isa):
        raise asm.source.error(label, f"'{label}' is a word of the instruction set and cannot be a label")
    if label in code.labels:
        raise asm.source.error(label, f"label '{label}' is already placed in section '{code.name}'")
    here = next((name for name, place in code.labels.items() if place == len(code.code)), None)
    if here is not None:
        raise asm.source.error(label, f"label '{here}' already names this place; keep one of the two")
    code.labels[str(label)] = len(code.code)


def _check_labels(asm: Assembly, code: Code) -> None:
    for name, token in code.pending:
        if name not in code.labels:
            raise asm.source.error(
                token,
                f"section '{code.name}' has no label '{name}'",
                expected="a label placed in the same section, as in 'name:'",
                suggestion=did_you_mean(name, code.labels),
            )


def _instruction(asm: Assembly, code: Code, mnemonic: Token, operands: tuple[Operand, ...]) -> Instruction:
    assert asm.isa is not None
    spec = asm.isa.by_mnemonic.get(str(mnemonic))
    if spec is None:
        raise asm.source.error(
            mnemonic,
            f"{asm.isa.name} has no instruction '{mnemonic}'",
            suggestion=did_you_mean(str(mnemonic), asm.isa.by_mnemonic),
        )
    given = _assign(asm, spec, operands)
    values: dict[str, Value] = {}
    for field in spec.fields:
        operand = given.get(field.name)
        if operand is not None:
            values[field.name] = _value(asm, code, spec, field, operand)
        elif field.default is not None:
            values[field.name] = field.default
        else:
            raise asm.source.error(
                mnemonic,
                f"'{mnemonic}' lacks operand '{field.name}' ({field.doc.rstrip('.')})",
                expected=f"{expected(field, asm.isa)}; as in {signature(spec)}",
            )
    return Instruction(spec.mnemonic, FrozenMap(values), asm.loc)


def _assign(asm: Assembly, spec: InstructionSpec, operands: tuple[Operand, ...]) -> dict[str, Operand]:
    """Which operand goes to which field: by name, as a flag's word, else by position among the required
    fields that have no name here.
    """
    given: dict[str, Operand] = {}
    rest: list[Operand] = []
    for operand in operands:
        name = (
            operand.text
            if operand.form == "word" and operand.name is None and operand.text in spec.flags
            else operand.name
        )
        if name is None:
            rest.append(operand)
            continue
        if name not in spec.by_name:
            raise asm.source.error(
                operand.name or operand.token,
                f"'{spec.mnemonic}' has no operand '{name}'",
                expected=signature(spec),
                suggestion=did_you_mean(str(name), spec.by_name),
            )
        if name in given:
            raise asm.source.error(operand.name or operand.token, f"operand '{name}' is given twice")
        given[str(name)] = operand
    free = [field for field in spec.positional if field.name not in given]
    for operand, field in zip(rest, free, strict=False):
        given[field.name] = operand
    if len(rest) > len(free):
        extra = rest[len(free)]
        raise asm.source.error(
            extra.token,
            f"'{spec.mnemonic}' takes no further operand",
            expected=signature(spec),
            suggestion=did_you_mean(extra.text, spec.flags),
        )
    return given


def _value(asm: Assembly, code: Code, spec: InstructionSpec, field: Field, operand: Operand) -> Value:
    isa: InstructionSet | None = asm.isa
    assert isa is not None
    if field.kind is Kind.FLAG and operand.name is None:
        return True
    try:
        value = read_operand(field, operand, isa)
    except BadOperand as bad:
        raise asm.source.error(
            operand.token,
            f"operand '{field.name}' of '{spec.mnemonic}': {bad.problem}",
            expected=expected(field, isa),
            suggestion=did_you_mean(operand.space or operand.text, (*bad.candidates, *spec.flags)),
        ) from None
    if field.kind is Kind.LABEL:
        code.pending.append((str(value), operand.token))
    if field.kind is Kind.DATA and value not in asm.data:
        raise asm.source.error(
            operand.token,
            f"constant '{value}' is not declared",
            expected=f"a .data line before this one, as in .data {operand.token} float32 [64]",
            suggestion=did_you_mean(str(value), asm.data),
        )
    return value
