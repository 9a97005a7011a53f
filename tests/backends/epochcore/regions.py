"""What an instruction reads and writes in all memories, one instruction after the other: what dependences between
engines are made of, told apart from `program.touches`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from backends.epochcore.program.accesses import Held, accesses
from backends.epochcore.program.passes import PASSES
from backends.epochcore.program.rates import most_rows
from backends.epochcore.program.tiles import parameters_of, streamed
from isa import Instruction


class Region(NamedTuple):
    """Words `low` to `high` - 1 of a memory space; a stream is one word of the space "stream"."""

    space: str
    low: int
    high: int


class Touched(NamedTuple):
    """The regions of one instruction."""

    reads: tuple[Region, ...]
    writes: tuple[Region, ...]


@dataclass
class Walker:
    """What the regions of an instruction depend on besides itself: those before it.

    `sizes` are words of the constants in the parameter memory; `limit` the steps of a chunk where a loop is walked.
    """

    sizes: Mapping[str, int]
    limit: int = 1
    shadow: Instruction | None = None
    active: Instruction | None = None
    parameters: dict[int, int] = field(default_factory=dict)
    rates: dict[str, Instruction] = field(default_factory=dict)

    def touch(self, ins: Instruction) -> Touched:
        """The regions of `ins`, the next instruction in the program's order."""
        if ins.mnemonic == "rate":
            self.rates[str(ins["dst"])] = ins
        elif ins.mnemonic == "preload":
            self.shadow = ins
        elif ins.mnemonic in PASSES and self.shadow is not None:
            self.active, self.shadow = self.shadow, None
        reads, writes = [], []
        for region, is_read, is_write in self._regions(ins):
            if is_read:
                reads.append(region)
            if is_write:
                writes.append(region)
        return Touched(tuple(reads), tuple(writes))

    def _regions(self, ins: Instruction) -> Iterator[tuple[Region, bool, bool]]:
        if ins.mnemonic == "fetch":
            at, size = int(ins["dst"]), self.sizes[str(ins["src"])]
            self.parameters[at] = size
            yield Region("param", at, at + size), False, True
        elif ins.mnemonic == "preload":
            for at in parameters_of(ins):
                yield Region("param", at, at + self.parameters.get(at, 1)), True, False
        if ins.mnemonic == "mac":
            for at in streamed(self.active):
                yield Region("param", at, at + self.parameters.get(at, 1)), True, False
        if ins.mnemonic in ("load", "store"):
            number = int(ins["src" if ins.mnemonic == "load" else "dst"])
            yield Region("stream", number, number + 1), ins.mnemonic == "load", ins.mnemonic == "store"
        for words in accesses(ins, Held.of(self.active)):
            steps = most_rows(words.register or "one", self.limit, self.rates)
            region = Region("spad", words.start, words.start + (steps - 1) * words.pitch + words.words)
            yield region, not words.written, words.written
