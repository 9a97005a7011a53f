"""A checked program as the simulator runs it: buffers of the scratchpad, actions, loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from isa import Instruction, Program
from ssmc.target import Stats

if TYPE_CHECKING:
    from backends.epochcore.simulate.machine import Machine

Array = NDArray[Any]
KEPT_WORDS = 1 << 24
KEPT_SHAPES = 4
Shape = tuple[tuple[int, ...], type[np.floating[Any]]]
Action = Callable[["Machine"], None]


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
class Loop:
    """A `samples` or `chunks` instruction with the code that it runs; `spent` are the streams that nothing reads after
    it."""

    ins: Instruction
    body: tuple[Item, ...]
    spent: tuple[int, ...] = ()


@dataclass(frozen=True)
class Do:
    """An instruction as an action; `index` is its place in the code, `steps` a register that may hold 0."""

    index: int
    ins: Instruction
    action: Action
    steps: str | None


@dataclass(frozen=True)
class Rows:
    """Instructions one after the other whose steps do not depend on each other; `work` is about what a step takes, in
    operations."""

    dos: tuple[Do, ...]
    work: int


Item = Loop | Do | Rows


@dataclass(frozen=True)
class Plan:
    """A checked program. `slots` in order of their numbers; `results` the buffers that an instruction writes, with
    their addresses; `rates` the `rate` instruction of each register; `costs` by batch and steps, as far as they have
    been asked for."""

    program: Program
    arch: Arch
    ideal: bool
    items: tuple[Item, ...]
    slots: tuple[Slot, ...]
    results: Mapping[int, dict[int, Slot]]  # by instruction and address
    rates: Mapping[str, Instruction]
    costs: dict[tuple[int, int], Stats] = field(default_factory=dict)
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
