"""Samples that are run together (`together`, `base` and `window` of `samples`): whose words are whose."""

from __future__ import annotations

from dataclasses import dataclass, replace

from isa import Instruction, Program
from isa.epochcore import EPOCHCORE
from isa.fields import Kind
from isa.frozen import FrozenMap

PLACES = {
    spec.mnemonic: tuple(f.name for f in spec.fields if f.kind is Kind.ADDR and f.space == "spad")
    for spec in EPOCHCORE.instructions
}


@dataclass(frozen=True)
class Rounds:
    """So many samples `together`, with words of the scratchpad from `base` on `window` further for each next one."""

    together: int = 1
    base: int = 0
    window: int = 0

    @property
    def end(self) -> int:
        """The first word behind all windows."""
        return self.base + self.together * self.window

    def owns(self, start: int, stop: int) -> bool:
        """Whether words belong to the first sample."""
        return self.together == 1 or self.base <= start <= stop <= self.base + self.window

    def of(self, number: int, ins: Instruction) -> Instruction:
        """What an instruction does for the sample of that number in its round."""
        own = {name: int(ins[name]) for name in PLACES[ins.mnemonic] if int(ins[name]) >= self.base}
        moved = {name: at + number * self.window for name, at in own.items()}
        return replace(ins, operands=FrozenMap({**ins.operands, **moved})) if number and moved else ins


ALONE = Rounds()


def rounds_of(program: Program) -> Rounds:
    """How the samples of a program are run."""
    found = (ins for ins in program.sections[0].code if ins.mnemonic == "samples")
    return next((given(ins) for ins in found), ALONE)


def given(ins: Instruction) -> Rounds:
    """What a `samples` says."""
    return Rounds(int(ins["together"]), int(ins["base"]), int(ins["window"]))
