"""Code of a core while it is being made: instructions over virtual registers, gathered by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backends.cim.lower.contexts import Context
from isa import Value


@dataclass(frozen=True)
class Slot:
    """Words of a virtual register, from `offset` on."""

    register: int
    offset: int = 0

    def at(self, words: int) -> Slot:
        """The slot some words further on."""
        return Slot(self.register, self.offset + words)


@dataclass(eq=False)
class Virtual:
    """An instruction whose addresses are slots."""

    mnemonic: str
    context: Context
    operands: Mapping[str, Value | Slot]
    loc: int | None


@dataclass(frozen=True)
class Tap:
    """Where a layer's value stands after instruction `after`."""

    layer: str
    after: Virtual
    slot: Slot
    shape: tuple[int, ...]
    context: Context


@dataclass
class CoreCode:
    """What one core runs: `setup` once, `stages` for every sequence; `sizes` are words of its registers."""

    core: int
    sizes: list[int] = field(default_factory=list)
    stages: dict[int, list[Virtual]] = field(default_factory=dict)
    setup: list[Virtual] = field(default_factory=list)
    taps: list[Tap] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    table_words: int = 0
    lines: set[int] = field(default_factory=set)  # registers that are analog lines

    def new(self, words: int) -> Slot:
        """A fresh virtual register."""
        self.sizes.append(max(words, 1))
        return Slot(len(self.sizes) - 1)

    def new_lines(self, words: int) -> Slot:
        """Analog lines, which are allocated as registers are."""
        slot = self.new(words)
        self.lines.add(slot.register)
        return slot

    def serial(self, what: str, count: int = 1) -> int:
        """The next free number of a resource (line, clock, buffer, state nodes), and take `count` of them."""
        first = self.counters.get(what, 0)
        self.counters[what] = first + count
        return first

    def append(self, item: Virtual) -> Virtual:
        """Put an instruction at the end of its stage."""
        self.stages.setdefault(item.context.stage, []).append(item)
        return item
