"""The program under construction: instructions, constants, and copies of values between cores and sweeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from backends.cim.arch import Architecture
from backends.cim.lower.code import CoreCode, Slot, Virtual
from backends.cim.lower.contexts import Context
from backends.cim.lower.coupling import Coupling
from backends.cim.lower.nodes import Nodes
from isa import Loc, Port
from isa import Value as Operand
from ssmc.diagnostics import Misfit
from ssmc.ir import Graph, Node, Value

Rule = Callable[["Lowering", Node, Context], None]


def words_of(kind: Any) -> int:
    """Words of a value; complex ones take two, halves re|im."""
    return int(prod(kind.shape)) * (2 if kind.element == "complex" else 1)


@dataclass(frozen=True)
class Copy:
    """A layer's arrays once more: on which core its words come and go, and which array, there or on other cores, stands
    for which of the first ones."""

    core: int
    units: Mapping[int, int]


@dataclass
class Lowering:
    """The program under construction. `home` says where a value was made: core, context, slot; `begins` are
    the first stages of the loads, `turns` the copies of layers that take turns over the steps."""

    graph: Graph
    arch: Architecture
    contexts: Mapping[Value, Context]
    ideal: bool
    begins: Mapping[int, int] = field(default_factory=lambda: {0: 0})
    codes: dict[int, CoreCode] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    locs: list[Loc] = field(default_factory=list)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    home: dict[Value, tuple[int, Context, Slot]] = field(default_factory=dict)
    copies: dict[tuple[Value, int, Context], Slot] = field(default_factory=dict)
    channels: int = 0
    turns: Mapping[str, tuple[Copy, ...]] = field(default_factory=dict)
    coupling: Coupling = field(default_factory=Coupling)
    reserved: dict[str, Nodes] = field(default_factory=dict)
    nearest: dict[str, tuple[float, int]] = field(default_factory=dict)  # node: how far the next matrix is, its core
    node: Node = field(init=False)
    core: int = 0
    loc: int | None = None

    # -- instructions ----------------------------------------------------------------------------------

    def code(self, core: int | None = None) -> CoreCode:
        """The code of the node's core, or of another one."""
        core = self.core if core is None else core
        return self.codes.setdefault(core, CoreCode(core))

    def emit(self, context: Context, mnemonic: str, /, on: int | None = None, **operands: Operand | Slot) -> Virtual:
        """An instruction on the node's core (or core `on`)."""
        return self.code(on).append(Virtual(mnemonic, context, operands, self.loc))

    def new(self, words: int, on: int | None = None) -> Slot:
        """Registers for so many words on the node's core (or core `on`)."""
        return self.code(on).new(words)

    def result_on_lines(self, context: Context) -> Slot:
        """Analog lines for the node's result, written in `context`."""
        slot = self.code().new_lines(words_of(self.node.types[0]))
        self.bind(slot, context)
        return slot

    def constant(self, name: str, array: Any) -> str:
        """Put an array into the data section under the node's name; the same one twice is kept once."""
        array = np.asarray(array)
        label = f"{self.node.name}.{name}"
        serial = 2
        while label in self.data and not (
            self.data[label].shape == array.shape and self.data[label].tobytes() == array.tobytes()
        ):
            label, serial = f"{self.node.name}.{name}{serial}", serial + 1
        if label not in self.data:
            self.data[label] = array
        return label

    def table(self, name: str, array: Any, on: int | None = None) -> str:
        """A constant that is kept in a core's table memory. Raises Misfit."""
        label = self.constant(name, array)
        code = self.code(on)
        code.table_words += int(np.asarray(array).size)
        if code.table_words > self.arch.vector.table_words:
            raise Misfit(
                f"table memory of core {code.core}",
                code.table_words,
                self.arch.vector.table_words,
                unit="words",
                where=self.node.where,
                levers="raise vector.table_words in the architecture, or spread the layers over more cores",
            )
        return label

    @cached_property
    def placed(self) -> bool:
        """Whether the schedule tells cores apart (one that puts all on core 0 leaves the choice to us)."""
        return any(node.place is not None and node.place.unit > 0 for node in self.graph.nodes())

    @property
    def reloaded(self) -> bool:
        """Whether arrays are written again between sweeps."""
        return any(self.graph.attributes.get("loads", {}).values())

    @property
    def load(self) -> int:
        """Which load of weights and states the node belongs to."""
        return int(self.graph.attributes.get("loads", {}).get(self.node.name, 0))

    @property
    def begin(self) -> int:
        """The stage in which the node's load is written."""
        return self.begins[self.load]

    # -- values ----------------------------------------------------------------------------------------

    def kind(self, index: int) -> Any:
        """The type of operand `index`."""
        return self.graph.type(self.graph.operand(self.node.name, index))

    def has(self, index: int) -> bool:
        """Is operand `index` given?"""
        operands = self.graph.operands(self.node.name)
        return index < len(operands) and operands[index] is not None

    def used(self, index: int = 0) -> bool:
        """Does anything read result `index`?"""
        return bool(self.graph.users(Value(self.node.name, index)))

    def read(self, index: int, context: Context, on: int | None = None) -> Slot:
        """Operand `index` on the node's core (or core `on`), readable in `context`."""
        value = self.graph.operand(self.node.name, index)
        return self.copy_of(value, self.core if on is None else on, context)

    def bind(self, slot: Slot, context: Context, index: int = 0) -> None:
        """Say where a result of the node stands; `context` is when it is written."""
        value = Value(self.node.name, index)
        self.home[value] = (self.core, context, slot)
        self.copies[value, self.core, context] = slot

    def result(self, context: Context, index: int = 0) -> Slot:
        """A fresh register for a result of the node, written in `context`."""
        slot = self.new(words_of(self.node.types[index]))
        self.bind(slot, context, index)
        return slot

    def copy_of(self, value: Value, core: int, context: Context) -> Slot:
        """Where `value` can be read on a core in a context; sends, keeps and fetches it there if need be."""
        made_on, made, slot = self.home[value]
        words = words_of(self.graph.type(value))
        if self.graph.op(value.node).name == "constant":
            if (value, core, context.before) not in self.copies:
                self.copies[value, core, context.before] = self._load(value, core, context)
            return self.copies[value, core, context.before]
        if not made.streams:
            if (value, core, made) not in self.copies:
                self.copies[value, core, made] = self.send(slot, words, made_on, made, core, made)
            return self.copies[value, core, made]
        if (value, core, context) not in self.copies:
            if context.stage != made.stage and (value, made_on, context) not in self.copies:
                self.copies[value, made_on, context] = self.resweep(made_on, slot, words, made, context, False)
            if context.stage != made.stage:
                made, slot = context, self.copies[value, made_on, context]
            if (value, core, context) not in self.copies:
                self.copies[value, core, context] = self.send(slot, words, made_on, made, core, context)
        return self.copies[value, core, context]

    def _load(self, value: Value, core: int, context: Context) -> Slot:
        array = np.asarray(self.graph.op(value.node)["value"].array)
        flat = np.concatenate([array.real.ravel(), array.imag.ravel()]) if array.dtype.kind == "c" else array.ravel()
        name = f"{value.node}.value"
        self.data.setdefault(name, flat.astype(np.float64))
        return self.held(name, context, core)

    def held(self, name: str, context: Context, on: int | None = None) -> Slot:
        """A constant of the data section in registers, loaded for this sweep: those of other sweeps need theirs."""
        slot = self.new(self.data[name].size, on)
        self.emit(context.before, "load", on=on, dst=slot, data=name)
        return slot

    def send(
        self,
        slot: Slot,
        words: int,
        source: int,
        made: Context,
        target: int,
        context: Context,
        into: Slot | None = None,
    ) -> Slot:
        """Words from one core and context to another; returns where they arrive (`into`, where given)."""
        channel, self.channels = self.channels, self.channels + 1
        self.emit(made, "send", on=source, src=slot, words=words, channel=channel, core=target)
        there = self.new(words, target) if into is None else into
        self.emit(context, "recv", on=target, dst=there, words=words, channel=channel)
        return there

    def resweep(self, core: int, slot: Slot, words: int, made: Context, context: Context, backward: bool) -> Slot:
        """Keep a stream and read it again in a later sweep, on the core that made it."""
        buffer, there = self.code(core).serial("buffer"), self.new(words, core)
        self.emit(made, "keep", on=core, src=slot, words=words, buffer=buffer)
        self.emit(context, "fetch", on=core, dst=there, words=words, buffer=buffer, backward=backward)
        return there
