"""What a core holds while a program runs, and the channels between cores."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends.cim.arch import Architecture, Devices
from backends.cim.clock.latency import Delays
from backends.cim.program.decode import Item
from backends.cim.simulate.memory import Registers, Steps
from ssmc.ir.op import Array


class Trap(Exception):
    """The machine stops; the engine adds the instruction and its source. `item` is which one of several it was."""

    def __init__(self, what: str, why: str = "", hint: str = "") -> None:
        self.what, self.why, self.hint = what, why, hint
        self.item: Item | None = None
        super().__init__(what)


@dataclass
class Channel:
    """Messages on their way, one for each step (or one outside of a sweep)."""

    waiting: deque[Array] = field(default_factory=deque)  # (batch or 1, steps, words)
    steps: int = 0

    def put(self, array: Array) -> None:
        self.waiting.append(array)
        self.steps += array.shape[1]

    def take(self, steps: int) -> Array:
        """The oldest messages, (batch or 1, steps, words)."""
        parts, missing = [], steps
        while missing:
            head = self.waiting.popleft()
            if head.shape[1] > missing:
                self.waiting.appendleft(head[:, missing:])
                head = head[:, :missing]
            parts.append(head)
            missing -= head.shape[1]
        self.steps -= steps
        return parts[0] if len(parts) == 1 else join_steps(parts)


def join_steps(parts: list[Array]) -> Array:
    """Blocks of steps one after another; a batch of one stands for any."""
    if len(parts) == 1:
        return parts[0]
    batch = max(part.shape[0] for part in parts)
    return np.concatenate([np.broadcast_to(part, (batch, *part.shape[1:])) for part in parts], axis=1)


def join_samples(parts: list[Array]) -> Array:
    """Parts of a batch, one after the other."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass
class Core:
    """Registers, state banks, arrays, lines, clocks and buffers of one core.

    `now` are the steps of the block that is running, None outside of a sweep; `total` is how many the sweep has.
    `strict`: what would be counted as lost is an error. `sample` is the first of the batch among all samples.
    `delays` is None where the program takes no time. `waits` are those of the last event by charge,
    `rates` those of the nodes as charged.
    """

    number: int
    arch: Architecture
    devices: Devices
    data: Mapping[str, Array]
    batch: int
    seed: int
    ideal: bool
    registers: Registers
    arrays: dict[int, Any]
    strict: bool = False
    sample: int = 0
    delays: Delays | None = None
    now: Steps | None = None
    total: int = 0
    banks: dict[str, Array] = field(default_factory=dict)
    lines: dict[int, Any] = field(default_factory=dict)
    clocks: dict[int, Any] = field(default_factory=dict)
    waits: dict[int, Array] = field(default_factory=dict)
    rates: dict[int, Array] = field(default_factory=dict)  # by first node
    units: dict[int, float] = field(default_factory=dict)  # by line, of currents: what a full one stands for
    passed: dict[int, Array] = field(default_factory=dict)  # (batch or 1,) elapsed times in all, by instruction
    buffers: dict[int, list[Array]] = field(default_factory=lambda: defaultdict(list))
    fetched: dict[int, Array] = field(default_factory=dict)
    counts: Counter[tuple[int | None, str]] = field(default_factory=Counter)
    cache: dict[int, Any] = field(default_factory=dict)

    def read(self, address: int, words: int) -> Array:
        """(batch or 1, steps or 1, words)."""
        return self.registers.read(address, words, self.now)

    def write(self, address: int, array: Array) -> None:
        self.registers.write(address, array, self.now)

    def full(self, array: Array) -> Array:
        """`array` with the whole batch and all running steps, contiguous."""
        return np.ascontiguousarray(np.broadcast_to(array, (self.batch, self.count, array.shape[2])))

    @property
    def count(self) -> int:
        """Steps of the running block; one outside of a sweep."""
        return 1 if self.now is None else self.now.count

    @property
    def first(self) -> int:
        """Index of the first running step among those of its kind."""
        return 0 if self.now is None else self.now.first

    def tally(self, loc: int | None, what: str, number: int) -> None:
        """Count events (clipped values, ...) by their source in the model."""
        if number:
            self.counts[loc, what] += int(number)
