"""Building a section from a compiler: emit instructions, place labels, get a `Section`."""

from __future__ import annotations

from dataclasses import replace

from isa.errors import IsaError
from isa.fields import Value
from isa.frozen import FrozenMap
from isa.program import Instruction, Section, instruction
from isa.spec import InstructionSet


class SectionBuilder:
    """Collects the instructions of one section.

        code = SectionBuilder(CIM, "core3")
        code.label("top")
        code.emit("recv", dst=0, words=64)
        code.emit("jump", target="top")
        section = code.build()

    `loc` is the index in `Program.locs` that `emit` gives to instructions; set it whenever the source
    changes.
    """

    def __init__(self, isa: InstructionSet, name: str) -> None:
        self.isa = isa
        self.name = name
        self.loc: int | None = None
        self._code: list[Instruction] = []
        self._labels: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._code)

    def emit(self, mnemonic: str, /, **operands: Value) -> None:
        """Append one instruction. Raises `IsaError` as `isa.program.instruction` does."""
        self._code.append(instruction(self.isa, mnemonic, self.loc, **operands))

    def add(self, ins: Instruction) -> None:
        """Append an instruction of the set as it is, with its own `loc`."""
        self._code.append(ins)

    def label(self, name: str) -> str:
        """Place label `name` before the next instruction and return it. Raises `IsaError` when the name is
        taken.
        """
        if name in self._labels:
            raise IsaError(f"section '{self.name}': label '{name}' is placed twice")
        self._labels[name] = len(self._code)
        return name

    def build(self) -> Section:
        """The section. Of labels at one place the first stays, and operands that name the others name it
        instead.
        """
        first: dict[int, str] = {}
        alias = {name: first.setdefault(place, name) for name, place in self._labels.items()}
        code = tuple(self._rename(ins, alias) for ins in self._code)
        return Section(self.name, code, FrozenMap({name: place for place, name in first.items()}))

    def _rename(self, ins: Instruction, alias: dict[str, str]) -> Instruction:
        labels = self.isa.by_mnemonic[ins.mnemonic].labels
        changed = {name: alias[str(ins[name])] for name in labels if alias.get(str(ins[name]), ins[name]) != ins[name]}
        return replace(ins, operands=FrozenMap({**ins.operands, **changed})) if changed else ins
