"""Instruction sets as data, assembly text, binary form and program files.

Knows no target's meaning and imports nothing of ours. What needs lark or safetensors is imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from isa.builder import SectionBuilder
from isa.errors import AsmError, IsaError
from isa.fields import Field, Kind, Value
from isa.frozen import FrozenMap
from isa.program import Instruction, Loc, Port, Program, Section, instruction
from isa.registry import find_set, load_set, names
from isa.spec import InstructionSet, InstructionSpec, Term

if TYPE_CHECKING:
    from isa.assembler import assemble
    from isa.binary import decode, encode
    from isa.container import load, load_data, save
    from isa.disassembler import disassemble

_LAZY = {
    "assemble": "isa.assembler",
    "decode": "isa.binary",
    "disassemble": "isa.disassembler",
    "encode": "isa.binary",
    "load": "isa.container",
    "load_data": "isa.container",
    "save": "isa.container",
}

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
    "assemble",
    "decode",
    "disassemble",
    "encode",
    "find_set",
    "instruction",
    "load",
    "load_data",
    "load_set",
    "names",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'isa' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)
