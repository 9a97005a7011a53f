"""A checked program as the simulator runs it: actions and loops over the buffers of a layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from backends.epochcore.simulate.buffers import Layout, Slot
from backends.epochcore.simulate.machine import Machine
from isa import Instruction
from ssmc.target import Stats

Action = Callable[[Machine], None]


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
    """A checked program. `results` are the buffers that an instruction writes, with their addresses; `costs` by batch
    and steps, as far as they have been asked for."""

    layout: Layout
    items: tuple[Item, ...]
    results: Mapping[int, dict[int, Slot]]  # by instruction and address
    costs: dict[tuple[int, int], Stats] = field(default_factory=dict)
