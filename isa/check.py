"""Whether a program is one of its instruction set: everything that text and binary form take for granted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from math import prod

from isa.errors import IsaError
from isa.fields import Kind, value_problem
from isa.program import DTYPES, PORT_KINDS, Instruction, Port, Program, Section
from isa.registry import Sets, find_set
from isa.spec import InstructionSet

MOST_WORDS = (1 << 31) - 1  # of a port, of one step (ours)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")


def reserved_words(isa: InstructionSet) -> frozenset[str]:
    """Words that a label may not be: in the text they already mean a flag or a register."""
    return isa.flag_words.union(isa.register_index)


def set_of(program: Program, sets: Sets = None) -> InstructionSet:
    """The instruction set of `program`. Raises `IsaError`."""
    return find_set(program.target, program.isa_version, sets)


def check(program: Program, isa: InstructionSet) -> None:
    """Raises `IsaError` naming the first thing in `program` that its text or binary form could not hold."""
    problem = next(_problems(program, isa), None)
    if problem is not None:
        raise IsaError(problem)


def _problems(program: Program, isa: InstructionSet) -> Iterator[str]:
    for name, count in Counter(section.name for section in program.sections).items():
        if not _WORD.match(name):
            yield f"'{name}' is not a section name: use a plain word"
        if count > 1:
            yield f"section '{name}' appears {count} times"
    for name in program.data:
        if not name or not _utf8(name):
            yield f"{name!r} is not a name for a constant"
    for ports, what in ((program.inputs, "input"), (program.outputs, "output")):
        names = [port.name for port in ports]
        for name in names:
            if not isinstance(name, str) or not _utf8(name):
                yield f"{name!r} is not a name for an {what}"
        yield from (f"{what} '{name}' is declared {n} times" for name, n in Counter(map(str, names)).items() if n > 1)
    for port in (*program.inputs, *program.outputs):
        yield from (f"port '{port.name}' has {problem}" for problem in _port_problems(port))
    if not _utf8(program.arch):
        yield "the architecture's text is not valid Unicode"
    for loc in program.locs:
        if not all(isinstance(text, str) for text in (loc.layer, loc.op, *loc.onnx_nodes)):
            yield f"source {loc!r} does not consist of strings"
    for section in program.sections:
        yield from _label_problems(section, isa)
        for index, ins in enumerate(section.code):
            for problem in _instruction_problems(ins, section, program, isa):
                yield f"section '{section.name}', instruction {index} ({ins.mnemonic}): {problem}"


def _port_problems(port: Port) -> Iterator[str]:
    if port.kind not in PORT_KINDS:
        yield f"kind '{port.kind}': use one of {', '.join(PORT_KINDS)}"
    if port.dtype not in DTYPES:
        yield f"element type '{port.dtype}': use one of {', '.join(DTYPES)}"
    if any(size < 0 for size in port.shape):
        yield "a negative size"
    elif prod(port.shape) > MOST_WORDS:
        yield f"the shape {list(port.shape)}: no machine holds more than {MOST_WORDS} words of one value"


def _label_problems(section: Section, isa: InstructionSet) -> Iterator[str]:
    where = f"section '{section.name}': label"
    for name, place in section.labels.items():
        if not _WORD.match(name) or name in reserved_words(isa):
            yield f"{where} '{name}' is not a plain word or already means a flag or register"
        if type(place) is not int or not 0 <= place <= len(section.code):
            yield f"{where} '{name}' names instruction {place}, and there are {len(section.code)}"
    for place, count in Counter(section.labels.values()).items():
        if count > 1:
            names = ", ".join(name for name, at in section.labels.items() if at == place)
            yield f"{where}s {names} name the same instruction; keep one"


def _instruction_problems(ins: Instruction, section: Section, program: Program, isa: InstructionSet) -> Iterator[str]:
    spec = isa.by_mnemonic.get(ins.mnemonic)
    if spec is None:
        yield f"{isa.name} has no such instruction"
        return
    if ins.operands.keys() != spec.by_name.keys():
        odd = ", ".join(sorted(ins.operands.keys() ^ spec.by_name.keys()))
        yield f"missing or unknown operands: {odd} (isa.instruction() fills in defaults)"
        return
    if ins.loc is not None and (type(ins.loc) is not int or not 0 <= ins.loc < len(program.locs)):
        yield f"source {ins.loc} is not in the program's table of {len(program.locs)}"
    for field in spec.fields:
        value = ins.operands[field.name]
        if problem := value_problem(field, value, isa.register_index):
            yield f"operand '{field.name}': {problem}"
        elif field.kind is Kind.LABEL and value not in section.labels:
            yield f"operand '{field.name}': no label '{value}' in this section"
        elif field.kind is Kind.LABEL and section.labels[str(value)] >= 2**field.bits:
            yield f"operand '{field.name}': label '{value}' is too far for {field.bits} bits"
        elif field.kind is Kind.DATA and value and value not in program.data:
            yield f"operand '{field.name}': no constant '{value}'"
        elif field.kind is Kind.DATA and len(program.data) >= 2**field.bits:
            yield f"operand '{field.name}': {len(program.data)} constants are too many for {field.bits} bits"


def _utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
