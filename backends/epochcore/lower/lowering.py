"""What the lowering rules share: where every value of the graph lies, and how an instruction reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from backends.epochcore.arch import Arch, Share
from backends.epochcore.lower.draft import PREAMBLE, Buffer, Draft, Ref, Step
from backends.epochcore.lower.flow import Flow, behind, is_backward, is_loop
from backends.epochcore.lower.rates import Rates
from backends.epochcore.lower.request import Alternative, Form, Request
from isa import Loc, Program
from ssmc.diagnostics import UserError
from ssmc.ir import ConstantType, Graph, Node, StreamType, Value
from ssmc.ir.interpreter import run_node
from ssmc.ir.op import Array

RATE_REGISTERS = 8


@dataclass(frozen=True)
class Operand:
    """A value where an instruction finds it: `held` is one row for all steps."""

    ref: Ref
    words: int
    held: bool


@dataclass(frozen=True)
class Stream:
    """An entry of the host's table of streams: `kind` is input, output or spill; `register` counts its steps. A loop
    that goes `forward` writes them from the first on. A `part` of another entry: that one's number, the first word."""

    kind: str
    words: int
    register: str
    forward: bool = True
    part: tuple[int, int] | None = None


@dataclass
class Lowering:
    """The state of lowering one graph. `rows` and `streams` grow as nodes are visited in order."""

    graph: Graph
    arch: Arch
    ideal: bool
    flow: Flow
    draft: Draft
    request: Request
    compiled: Callable[[Graph, Arch, bool, Form], Program]  # a layer by itself in a form (see `forms`)
    dataflows: Mapping[str, str] = field(default_factory=dict)  # of matrix products, by node (see `dataflow`)
    constants: dict[Value, Array] = field(default_factory=dict)
    buffers: dict[Value, Buffer] = field(default_factory=dict)
    given_up: set[Buffer] = field(default_factory=set)  # rows that their only reader may write, too
    streams: list[Stream] = field(default_factory=list)
    stream_of: dict[Value, int] = field(default_factory=dict)
    loaded: dict[tuple[int, Value, bool], Buffer] = field(default_factory=dict)
    spilled: frozenset[Value] = frozenset()
    registers: dict[Rates, str] = field(default_factory=lambda: {(): "n0"})
    taps: list[tuple[Step, Buffer, dict[str, Any]]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, list[Alternative]] = field(default_factory=dict)
    shared: dict[str, Ref] = field(default_factory=dict)  # by node, where its last columns are (see `shared_passes`)

    def shares(self, states: int, channels: int, words: int, is_complex: bool) -> Share:
        """Rows, columns and groups of passes (see `Arch.shares`), for as many samples as are run together."""
        most = self.request.groups or None
        return self.arch.shares(states, channels, words, is_complex, self.draft.together, most)

    def in_groups(self, cols: int, is_complex: bool, most: int) -> dict[str, int]:
        """The field of a preload of so many columns of states that says in how many groups of rows they lie: in as many
        as they need, at most so many."""
        needed = -(-cols * self.draft.together // self.arch.places(is_complex)[1])
        groups = max(1, min(most, needed))
        return {"groups": groups} if groups > 1 else {}

    # -- reading ---------------------------------------------------------------------------------------------

    def shape(self, value: Value) -> tuple[int, ...]:
        """Feature shape of a value."""
        kind: Any = self.graph.type(value)
        return tuple(kind.shape)

    def words(self, value: Value) -> int:
        """Words that a value takes at one step."""
        return prod(self.shape(value))

    def stage(self, node: Node) -> int:
        """The loop in which a node runs, or the stage between two (see `flow`)."""
        return self.flow.stage[node.name]

    def operand(self, value: Value, stage: int) -> Operand:
        """Where an instruction in `stage` finds a value; a stream from another loop is loaded on first use."""
        if value in self.constants:
            return Operand(self.constant_row(value.node, self.constants[value]), self.words(value), True)
        if not isinstance(self.graph.type(value), StreamType):
            return Operand(self.buffers[value].at(), self.words(value), True)
        source, mirror = self.view(value)
        if self.made_in(source, stage) and not mirror:
            return Operand(self.buffers[source].at(), self.words(value), False)
        return Operand(self._load(source, mirror, stage).at(), self.words(value), False)

    def operands(self, node: Node, stage: int) -> list[Operand | None]:
        """All operands of a node, None where an optional one is absent (see `operand`)."""
        return [None if v is None else self.operand(v, stage) for v in self.graph.operands(node.name)]

    def view(self, value: Value) -> tuple[Value, bool]:
        """The stream behind `reverse` nodes, and whether it is read from its end."""
        return behind(self.graph, value)

    def made_in(self, source: Value, stage: int) -> bool:
        """Is a stream made in this stage?"""
        return self.flow.stage[source.node] == stage

    def _load(self, source: Value, mirror: bool, stage: int) -> Buffer:
        key = (stage, source, mirror)
        if key not in self.loaded:
            words = self.words(source)
            buffer = self.loaded[key] = Buffer(words, stage)
            register = self.register(self.flow.rates[source])
            self.draft.emit(
                stage,
                "load",
                dst=buffer.at(),
                src=self.stream_of[source],
                words=words,
                steps=register,
                mirror=mirror,
            )
        return self.loaded[key]

    def row_of(self, array: Array) -> Array:
        """A constant vector as programs hold it; one that is so already is the same array."""
        flat = np.asarray(array, np.float64 if self.ideal or array.dtype != np.float32 else np.float32)
        flat = flat if flat.ndim == 1 else flat.ravel()
        return flat if self.ideal else flat.astype(np.float32, copy=False)

    def constant_row(self, name: str, array: Array, loop: int | None = None) -> Ref:
        """A constant vector in the scratchpad, copied there once before the samples; where constants are streamed, one
        for a `loop` before that, for every sample."""
        flat = self.row_of(array)
        data = self.draft.constant(name, flat)
        stage = loop - 1 if loop and self.request.streamed and self.draft.together == 1 else PREAMBLE
        if (data, stage) not in self._const_rows:
            row = self._const_rows[data, stage] = self.draft.row(flat.size)
            self.draft.emit(stage, "const", dst=row.at(), src=data, words=flat.size)
        return self._const_rows[data, stage].at()

    _const_rows: dict[tuple[str, int], Buffer] = field(default_factory=dict)

    # -- writing ---------------------------------------------------------------------------------------------

    def steps(self, node: Node) -> str:
        """The register with the steps of a node's first result; `one` for a value per sequence."""
        value = Value(node.name)
        return self.register(self.flow.rates[value]) if value in self.flow.rates else "one"

    def register(self, rates: Rates) -> str:
        """The register that counts the steps of a stream of these rates. Raises UserError where there are too many."""
        if rates not in self.registers:
            self.register(rates[:-1])
            if len(self.registers) == RATE_REGISTERS:
                raise UserError(
                    f"the model has more than {RATE_REGISTERS} rates",
                    where="backend 'epochcore'",
                    hint="use fewer different downsamplings",
                )
            self.registers[rates] = f"n{len(self.registers)}"
        return self.registers[rates]

    def new(self, node: Node, index: int = 0) -> Buffer:
        """A buffer for a result of `node`."""
        value = Value(node.name, index)
        buffer = self.temporary(node, self.words(value))
        self.buffers[value] = buffer
        return buffer

    def temporary(self, node: Node, words: int) -> Buffer:
        """A buffer as long as the node's first result."""
        stage = self.stage(node)
        return Buffer(words, stage) if is_loop(stage) else self.draft.row(words)

    def alias(self, node: Node, value: Value) -> None:
        """The result of `node` is `value` itself, under another shape."""
        operand = self.operand(value, self.stage(node))
        if operand.held and isinstance(node.types[0], StreamType):
            raise AssertionError("a held value cannot stand for a stream")
        self.buffers[Value(node.name)] = operand.ref.buffer

    def emit(self, node: Node, mnemonic: str, /, **operands: Any) -> None:
        """An instruction in the node's stage."""
        self.draft.emit(self.stage(node), mnemonic, **operands)

    def finish(self, node: Node) -> None:
        """After a node's instructions: remember where its value can be tapped, and store what other loops need."""
        value = Value(node.name)
        buffer = self.buffers.get(value)
        added: Any = self.graph.attributes.get("added", ())
        if buffer is not None and buffer in self.draft.written and node.name not in added:
            kind = "stream" if isinstance(node.types[0], StreamType) else "sequence"
            tap = {"layer": node.name, "shape": list(self.shape(value)), "kind": kind, "steps": self.steps(node)}
            self.taps.append((self.draft.written[buffer], buffer, tap))
        if value in self.spilled and node.op.name != "input":
            self.store(node, value, "spill")

    def store(self, node: Node, value: Value, kind: str, part: tuple[int, int] | None = None) -> int:
        """Copy a value to a stream of its own in DRAM, or to a part of another; returns its number."""
        words, stage = self.words(value), self.stage(node)
        steps = self.register(self.flow.rates[value]) if value in self.flow.rates else "one"
        number = self.table_entry(Stream(kind, words, steps, not is_backward(stage), part))
        if kind == "spill":
            self.stream_of[value] = number
        source = self.operand(value, stage)
        if source.held and steps != "one":
            raise AssertionError("a held value cannot be stored as a stream")
        self.draft.emit(stage, "store", dst=number, src=source.ref, words=words, steps=steps)
        return number

    def table_entry(self, stream: Stream) -> int:
        """A new entry of the host's table of streams; returns its number."""
        self.streams.append(stream)
        return len(self.streams) - 1

    def locate(self, node: Node) -> None:
        """Instructions that follow come from `node`."""
        self.draft.locs.append(Loc(node.name, node.op.name, node.provenance))
        self.draft.loc = len(self.draft.locs) - 1

    def absorbed(self, node: Node) -> bool:
        """Whether a node is computed by the `tri.x` mode of its only user (c + v in x <- (c + v) x + v)."""
        users = self.graph.users(Value(node.name))
        if len(users) != 1 or "tri.x" not in self.arch.array.modes or users[0][1] != 0:
            return False
        user = self.graph.node(users[0][0])
        return user.op.name == "tile.recurrence" and liquid_decay(self, user) is not None

    def fold(self, node: Node) -> bool:
        """Compute a node that depends on constants alone; False where it does not."""
        if not all(isinstance(kind, ConstantType) for kind in node.types):
            return False
        operands = self.graph.operands(node.name)
        arrays = [None if v is None else self.constants[v] for v in operands]
        kinds = [None if v is None else self.graph.type(v) for v in operands]
        for value, array in zip(self.graph.results(node.name), run_node(node, arrays, kinds), strict=True):
            self.constants[value] = array
        return True


def liquid_decay(low: Lowering, node: Node) -> Array | None:
    """The constant c of a recurrence x <- (c + v) x + v (Liquid-S4), None where it is another one."""
    a, v = low.graph.operand(node.name, 0), low.graph.operand(node.name, 1)
    if low.graph.op(a.node).name != "binary" or low.graph.op(a.node)["fn"] != "add":
        return None
    pair = [low.graph.operand(a.node, slot) for slot in range(2)]
    constant = [value for value in pair if value in low.constants]
    if v not in pair or not constant or low.shape(constant[0]) != low.shape(v):
        return None
    return np.asarray(low.constants[constant[0]]).ravel()
