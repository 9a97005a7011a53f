"""A program being written: instructions over named buffers, addresses still open (`placement` gives them)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from math import lcm
from typing import Any

import numpy as np

from backends.epochcore.arch import Arch
from backends.epochcore.lower.numbers import Numbers
from isa import Loc
from ssmc.ir.op import Array

PREAMBLE = -1


@dataclass(eq=False)
class Buffer:
    """Words in the scratchpad: one row (`loop` None), or a row every so many steps within one loop over time."""

    words: int
    loop: int | None
    every: int = 1
    offset: int = 0  # words, times the chunk's steps where it has a row a step
    address: int = 0

    def at(self, offset: int = 0) -> Ref:
        """A word of the first row, as an operand."""
        return Ref(self, offset)

    @property
    def width(self) -> int:
        """Words a step."""
        return -(-self.words // self.every)


@dataclass(frozen=True)
class Ref:
    """Word `offset` of the first row of a buffer."""

    buffer: Buffer
    offset: int = 0


@dataclass(frozen=True)
class Param:
    """The place in the parameter memory of a constant."""

    name: str


@dataclass(frozen=True)
class Step:
    """An instruction whose operands may still be `Ref` or `Param`; its `number` stays with it."""

    mnemonic: str
    operands: Mapping[str, Any]
    loc: int | None
    number: int


@dataclass
class Draft:
    """Blocks of instructions by stage (see `flow`), the constants, and where instructions come from.

    `multiples` are what the chunks of a loop are multiples of, `most` their longest steps where these are limited,
    `single` loops whose chunks are one step. So many samples are run `together`. A `measured`
    draft is for its costs: its constants are all zeros but for orders of words, none of them shared, none in memory.
    """

    arch: Arch
    measured: bool = False
    together: int = 1
    kept: Numbers = field(default_factory=Numbers)
    multiples: dict[int, int] = field(default_factory=dict)
    most: dict[int, int] = field(default_factory=dict)
    single: set[int] = field(default_factory=set)
    blocks: dict[int, list[Step]] = field(default_factory=lambda: {PREAMBLE: []})
    data: dict[str, Array] = field(default_factory=dict)
    locs: list[Loc] = field(default_factory=list)
    rows: list[Buffer] = field(default_factory=list)
    known: dict[tuple[str, tuple[int, ...], int], list[str]] = field(default_factory=dict)
    written: dict[Buffer, Step] = field(default_factory=dict)
    loc: int | None = None
    numbers: Iterator[int] = field(default_factory=count)

    def emit(self, stage: int, mnemonic: str, /, **operands: Any) -> Step:
        """Put a new instruction at the end of a stage."""
        step = self.step(mnemonic, operands, self.loc)
        self.blocks.setdefault(stage, []).append(step)
        for key in ("dst", "state"):
            if isinstance(ref := operands.get(key), Ref):
                self.written[ref.buffer] = step
        return step

    def step(self, mnemonic: str, operands: Mapping[str, Any], loc: int | None) -> Step:
        """A new instruction, not yet anywhere."""
        return Step(mnemonic, operands, loc, next(self.numbers))

    def whole(self, stage: int, steps: int) -> None:
        """Chunks of a loop do not cut what spans so many steps."""
        self.multiples[stage] = lcm(self.multiples.get(stage, 1), steps)

    def row(self, words: int) -> Buffer:
        """One row that stays where it is for the whole program."""
        buffer = Buffer(words, None)
        self.rows.append(buffer)
        return buffer

    def constant(self, name: str, array: Array) -> str:
        """Keep a constant under `name` (or that of an equal one of the same kind); returns the name."""
        if self.measured:
            name = f"{name}.{len(self.data)}"
            # the order of words decides which banks of the scratchpad they meet in
            is_order = array.dtype == np.int32
            self.data[name] = array if is_order else np.broadcast_to(np.zeros((), array.dtype), array.shape)
            return name
        array = np.ascontiguousarray(array)
        alike = self.known.setdefault((array.dtype.str, array.shape, self.kept.hash(array)), [])
        for other in alike:
            if self.data[other] is array or np.array_equal(_bits(self.data[other]), _bits(array)):
                return other
        free, times = name, 1
        while free in self.data:
            free, times = f"{name}.{times}", times + 1
        self.data[free] = array
        alike.append(free)
        return free


def _bits(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)
