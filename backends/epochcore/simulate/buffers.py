"""The buffers of a checked program: what lies where in the scratchpad, and the arrays that runs keep them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends.epochcore.arch import Arch
from isa import Instruction, Program
from ssmc.ir.op import Array

KEPT_WORDS = 1 << 24
KEPT_SHAPES = 4
Shape = tuple[tuple[int, ...], type[np.floating[Any]]]


@dataclass(frozen=True)
class Slot:
    """A buffer of the scratchpad: `steps` is the register with its rows (`one` for a row), `shared` by all samples.
    It holds float64 where it is `wide`, else float32 (see `precision`)."""

    number: int
    pitch: int
    steps: str
    shared: bool = False
    wide: bool = True

    @property
    def dtype(self) -> type[np.floating[Any]]:
        return np.float64 if self.wide else np.float32


@dataclass(frozen=True)
class Access:
    """Words of every row of a slot."""

    slot: Slot
    offset: int
    words: int

    @property
    def whole(self) -> bool:
        return self.offset == 0 and self.words == self.slot.pitch


@dataclass(frozen=True)
class Use:
    """An instruction reads or writes a buffer, known by the instruction that made it."""

    index: int
    maker: int
    writes: bool


@dataclass(frozen=True)
class Preload:
    """A `preload` instruction with the constants that it names."""

    ins: Instruction
    source: Array | None
    scale: Array | None
    bias: Array | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Halves, columns of all segments, rows of its states."""
        return 2 if self.ins["complex"] else 1, int(self.ins["cols"]) * int(self.ins["segments"]), int(self.ins["rows"])


@dataclass(frozen=True)
class Layout:
    """What a machine is made for: a program, its `slots` in order of their numbers, `rates` by register (the
    instruction that divides its steps)."""

    program: Program
    arch: Arch
    ideal: bool
    slots: tuple[Slot, ...]
    rates: Mapping[str, Instruction]
    _memory: dict[tuple[Shape, ...], list[list[Array]]] = field(default_factory=dict)

    def borrow(self, shapes: tuple[Shape, ...]) -> list[Array]:
        """Arrays to run in, kept between runs: fresh memory costs more than the arithmetic on it."""
        free = self._memory.setdefault(shapes, [])
        try:
            return free.pop()
        except IndexError:
            return [np.zeros(shape, dtype) for shape, dtype in shapes]

    def give_back(self, memory: list[Array]) -> None:
        """Arrays of a run that is over; a few large sets are not kept."""
        if sum(array.size for array in memory) <= KEPT_WORDS:
            if len(self._memory) > KEPT_SHAPES:
                self._memory.clear()
            self._memory.setdefault(tuple((array.shape, array.dtype.type) for array in memory), []).append(memory)
