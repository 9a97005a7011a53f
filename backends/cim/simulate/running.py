"""A program while it runs: what its cores have sent, what they wait for, and what the host gave and got."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from backends.cim.arch import Architecture, Devices
from backends.cim.program.declared import Tap
from backends.cim.program.decode import Item
from backends.cim.simulate.carried import Part
from backends.cim.simulate.core import Channel, Core, Trap
from backends.cim.simulate.memory import NotWritten
from backends.cim.simulate.plan import together
from isa import Program
from ssmc.diagnostics import UserError
from ssmc.ir.op import Array
from ssmc.target import RunSettings

BLOCK_ROWS = 1 << 12  # samples times steps that run at once: registers of a few hundred words stay in the cache


@dataclass
class Run:
    """A program while it runs, on `batch` samples from `sample` on."""

    program: Program
    arch: Architecture
    devices: Devices
    ideal: bool
    settings: RunSettings
    steps: int
    batch: int
    sample: int = 0
    channels: dict[int, Channel] = field(default_factory=lambda: defaultdict(Channel))
    inputs: dict[int, Array] = field(default_factory=dict)  # (batch, steps or 1, words)
    outputs: dict[int, list[Array]] = field(default_factory=lambda: defaultdict(list))
    tapped: dict[str, list[Array]] = field(default_factory=lambda: defaultdict(list))
    taps: dict[tuple[int, int], list[Tap]] = field(default_factory=lambda: defaultdict(list))
    waiting: dict[int, tuple[int, int]] = field(default_factory=dict)  # core: channel, messages
    cores: dict[int, Core] = field(default_factory=dict)
    groups: dict[int, tuple[Any, Any]] = field(default_factory=dict)  # a body and its groups, by its identity
    parts: dict[tuple[int, int], tuple[Part, ...]] = field(default_factory=dict)  # by core and loop

    def grouped(self, items: tuple[Item, ...]) -> tuple[tuple[Item, ...], ...]:
        """A body's instructions, with products that run together in one group."""
        found = self.groups.get(id(items))
        if found is None:
            found = self.groups[id(items)] = (items, tuple(together(items)))
        grouped: tuple[tuple[Item, ...], ...] = found[1]
        return grouped

    def block(self, carried: bool) -> int:
        """Steps that are executed at once."""
        if carried:
            return 1
        if self.settings.block is not None:
            return max(1, self.settings.block)
        return max(1, min(self.steps, BLOCK_ROWS // max(self.batch, 1)))


def trapped(run: Run, core: int, item: Item, suffix: str, trap: Trap | NotWritten) -> UserError:
    """The user's error for a trap: instruction, layer, ONNX nodes."""
    source = run.program.source(item.code)
    origin = ""
    if source is not None:
        nodes = f" from {', '.join(source.onnx_nodes[:3])}" if source.onnx_nodes else ""
        origin = f", layer '{source.layer}' ({source.op}{nodes})"
    where = f"core{core}{suffix}, instruction {item.index} ({item.code.mnemonic}){origin}"
    if isinstance(trap, NotWritten):
        return UserError("a register is read before it is written", where=where, why=str(trap))
    return UserError(trap.what, where=where, why=trap.why, hint=trap.hint)
