"""What an instruction costs: engine, cycles, events.

Functions of the instruction and of run-time registers alone: `cost_array`, `cost_vector` and `cost_dram` have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from backends.epochcore.clock.wave import ONE_ROW, Shift, Wave
from isa import Instruction

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Turns:
    """A `number` of like passes, each of which costs `one`: the next one begins `after` the end of its last step, and
    not before its weights are in, `gap` cycles from the beginning of the one before."""

    number: int
    one: Cost
    after: int
    gap: int

    @property
    def late(self) -> int:
        """Cycles from the first to the last of them, where nothing holds up the first one."""
        assert self.one.busy is not None
        return (self.number - 1) * self.following(0, self.one.busy)

    def following(self, start: int, end: int) -> int:
        """When the second one begins after a first one from `start` to the `end` of its last step."""
        return max(end + self.after, start + self.gap)

    def last(self, start: int, end: int) -> int:
        """The same of the last one: only the first may be held up."""
        assert self.one.busy is not None
        return self.following(start, end) + (self.number - 2) * self.following(0, self.one.busy)


@dataclass(frozen=True)
class Cost:
    """`cycles` from start to end; `events` counts what energy is charged for (see `energy`), `macs` useful ones.

    `busy` are the cycles until the engine may start the next instruction (None: all), `wave` is the first step's way
    through the array; the shadow registers are free after `holds`. `latency` is what of the cycles is filling and
    draining: engines that hand over step by step overlap it too, and shift in (`shift`) what comes next behind the
    wave; what is `apart` they do not hand over step by step (see `handover`). Where it is several
    passes in turn, `turns` says so, and `late` when the last of them begins.
    """

    engine: str
    cycles: int
    macs: int
    events: Mapping[str, int]
    busy: int | None = None
    wave: Wave | None = None
    shift: Shift = ONE_ROW
    holds: int = 0
    latency: int = 0
    apart: bool = False
    late: int = 0
    turns: Turns | None = None

    @property
    def first(self) -> Cost:
        """Of the first pass, where it is several."""
        return self if self.turns is None else self.turns.one

    takes: Callable[[Ints, Ints], Ints] | None = None


@dataclass(frozen=True)
class Context:
    """What the cost of an instruction depends on besides itself: its steps, the array's preload, constant sizes,
    of a stream's steps those that stay on the chip (and whether these are taken first), and samples that are run at
    once."""

    arch: Arch
    steps: int
    preload: Instruction | None
    bytes_of: Mapping[str, int]
    on_chip: int = 0
    data: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    samples: int = 1
    near_first: bool = False

    @property
    def rows(self) -> int:
        """Steps of all samples."""
        return self.steps * self.samples


Rule = Callable[[Instruction, Context], Cost]
