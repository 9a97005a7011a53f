"""Instruction sets as data, assembly text, binary form and program files. Knows no target's meaning and imports nothing of ours."""

from isa.builder import SectionBuilder
from isa.errors import AsmError, IsaError
from isa.frozen import FrozenMap
from isa.program import Instruction, Loc, Port, Program, Section, instruction
from isa.spec import Field, InstructionSet, InstructionSpec, Kind, Term, Value

__all__ = [
    "AsmError",
    "Field",
    "FrozenMap",
    "Instruction",
    "InstructionSet",
    "InstructionSpec",
    "IsaError",
    "Kind",
    "Loc",
    "Port",
    "Program",
    "Section",
    "SectionBuilder",
    "Term",
    "Value",
    "instruction",
]
