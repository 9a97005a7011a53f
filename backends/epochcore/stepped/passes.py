"""Passes that stream through the elements: weights in place, states in place."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from backends.epochcore.arch import Arch
from backends.epochcore.program.dispatch import Op
from backends.epochcore.program.rounds import Rounds
from backends.epochcore.program.stretches import copies
from backends.epochcore.stepped.grid import Form, Grid, Packet, Work
from backends.epochcore.stepped.memory import Memory
from backends.epochcore.stepped.ports import Word, served
from backends.epochcore.stepped.routes import delay, entries, halves_of, route_of
from backends.epochcore.stepped.traffic import Traffic
from isa import Instruction
from ssmc.ir.op import Array


@dataclass
class Chip:
    """The array with its memories."""

    arch: Arch
    grid: Grid
    memory: Memory
    rounds: Rounds
    traffic: Traffic
    coming: Array | None = None  # what columns add to their sums: biases, or direct terms; taken over as parameters are
    added: Array | None = None

    def take_over(self, fresh: bool) -> Array | None:
        """What the columns of a pass that begins add; whether it is the first one after a preload."""
        if fresh:
            self.added = self.coming
        return self.added

    def delay(self, column: int) -> int:
        """Cycles by which a column is later than the first, where all goes along the diagonal."""
        return delay(column, self.arch)


@dataclass
class Entries:
    """What a pass sends into the array, by cycles."""

    work: Work
    waiting: dict[int, list[tuple[str, int, int, Packet]]] = field(default_factory=dict)

    def send(self, cycle: int, kind: str, row: int, col: int, step: int, value: Any) -> None:
        self.waiting.setdefault(cycle, []).append((kind, row, col, Packet(self.work, step, value)))

    def tick(self, grid: Grid, now: int) -> None:
        for kind, row, col, packet in self.waiting.pop(now, ()):
            grid.put(kind, row, col, packet)


@dataclass
class Pass:
    """A pass of weights or states: it reads its words, sends them in, and writes what comes out."""

    op: Op
    chip: Chip
    start: int
    done: int | None = None
    passed: int | None = None
    takes: tuple[bool, bool] = (False, False)
    backward: bool = False  # the direction of what has none of its own
    parts: bool = False  # whether its steps are sent block by block
    turns: int = 1  # samples that follow each other in a step
    out: dict[int, int] = field(default_factory=dict)  # when the words of a step are in the scratchpad
    _begun: dict[int, int] = field(default_factory=dict)
    _coming: dict[int, dict[int, list[tuple[int, int]]]] = field(default_factory=dict)  # by step, by cycle
    _values: dict[int, list[float | None]] = field(default_factory=dict)
    _exits: dict[int, dict[int, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._entries = Entries(self)
        ins, held, array = self.op.ins, self.op.held, self.chip.arch.array
        assert held is not None
        self.name = ins.mnemonic
        self._own = int(held["rows"]), int(held["cols"])
        self.route = route = route_of(self.op, self.chip.arch)
        self.turns, self.count = route.turns, route.count
        number = copies(held) * self.op.samples // self.turns
        self.cols, before = self._own[1] * number, bool(ins.operands.get("before"))
        layout = route.hop, route.gang, route.deep, route.wide, route.groups, route.high
        self.form = Form(self.name, *layout, self._own[0], self.cols, self.takes, before)
        self._ports = array.port_words_in, array.port_words_out
        self._added = self.chip.take_over(self.takes[0])
        if not self.parts:
            self.send(0, self.count, self.start)
        if not self.op.steps:
            self.done = self.passed = self.start + 1
            for line in self.chip.grid.at:
                for element in line:
                    element.take_over(Packet(self, 0, None))

    # -- words -----------------------------------------------------------------------------------------------

    def _row(self, step: int) -> int:
        """The place of a step in the sequence's order."""
        # a matrix has no direction of its own: its segments are cut from the first step on, whatever the loop's is
        backward = self.backward and copies(self._held) == 1
        return self.op.steps - 1 - step if self.op.ins.operands.get("reverse", backward) else step

    @property
    def _held(self) -> Instruction:
        assert self.op.held is not None
        return self.op.held

    def _at(self, name: str, step: int) -> list[tuple[str, int | None]]:
        """Words of an operand at a step, real halves first, of one segment after the other; None where one sleeps."""
        held, found = self._held, list[tuple[str, int | None]]()
        step, turn = divmod(step, self.turns)
        samples = [turn] if self.turns > 1 else range(self.op.samples)
        own = [self.chip.rounds.of(sample, self.op.ins) for sample in samples]
        pitch = int(own[0]["pitch"] if "pitch" in own[0].operands else own[0][f"{name}_pitch"])
        count = self._own[0] if self.name == "mac" and name == "src" else self._own[1]
        for half in range(halves_of(self.op)):
            for ins, segment in product(own, range(copies(held))):
                place = step + segment * int(held["span"]) * (copies(held) > 1)
                row = 0 if ins.operands.get(f"{name}_held") else self._row(place)
                first = int(ins[name]) + row * pitch + half * (pitch // 2)
                asleep = place >= self.op.steps
                found += [(f"{name} {half}", None if asleep else first + word) for word in range(count)]
        return found

    def _inputs(self, step: int) -> list[tuple[str, int | None]]:
        return [*(self._at("a", step) if self.name == "sel" else ()), *self._at("src", step)]

    def _outputs(self, step: int) -> list[tuple[str, int | None]]:
        return self._at("dst", step)

    def _served(
        self, words: list[tuple[str, int | None]], port: int, reserved: int
    ) -> dict[int, list[tuple[int, int]]]:
        """By cycle: the numbers of words that go through the ports then, and their addresses. What sleeps does not."""
        known = [(number, operand, at) for number, (operand, at) in enumerate(words) if at is not None]
        asked: list[Word] = [(operand, at) for _, operand, at in known]
        found: dict[int, list[tuple[int, int]]] = {}
        for (number, _, at), cycle in zip(known, served(asked, port, self.chip.arch), strict=True):
            assert cycle < reserved, "the banks have not given the words of a step in its cycles"
            found.setdefault(cycle, []).append((number, at))
        return found

    # -- in --------------------------------------------------------------------------------------------------

    def send(self, first: int, count: int, now: int) -> None:
        """Let `count` steps begin, one after the other from `now` on."""
        self._begun |= {first + n: now + n * self.route.interval for n in range(count)}

    def tick(self, now: int) -> None:
        """Read the words of this cycle; where a step's are all there, they enter the array, skewed as they must be."""
        for step, phase in [(step, now - begun) for step, begun in self._begun.items() if begun <= now]:
            if phase == 0:
                words = self._inputs(step)
                self._values[step] = [None] * len(words)
                self._coming[step] = self._served(words, self._ports[0], self.route.gather)
            for number, address in self._coming[step].get(phase, ()):
                self.chip.memory.use("in", now)
                self._values[step][number] = float(self.chip.memory.spad[address])
            if phase == self.route.gather - 1:
                self._enter(step, now)
                del self._begun[step], self._coming[step]
        self._entries.tick(self.chip.grid, now)

    def _enter(self, step: int, now: int) -> None:
        array, values, weights = self.chip.arch.array, self._values[step], self.name == "mac"
        for cycle, kind, r, c in entries(weights, self.route.gang, array.rows, array.cols, self.chip.arch):
            value: Any = 0.0 if weights else [0.0] * self.route.lanes
            if kind == "west":
                value = (values[r] if r < len(values) else None) or 0.0
            elif kind == "north":
                own = range(c // self.route.gang, self.route.lanes * self.route.wide, self.route.wide)
                value = [self._drive(values, channel) if channel < self.cols else None for channel in own]
            self._entries.send(now + cycle, kind, r, c, step, value)

    def _drive(self, values: list[float | None], col: int) -> Any:
        """What a column gets: u, or v, or a and v; None where it sleeps."""
        own = [values[i + col :: self.cols][: halves_of(self.op)] for i in self._starts]
        if own[0][0] is None:
            return None
        parts = [complex(*(0.0 if value is None else value for value in part)) for part in own]
        return parts[0] if len(parts) == 1 else tuple(parts)

    @property
    def _starts(self) -> list[int]:
        wide = halves_of(self.op) * self.cols
        return [0, wide] if self.name == "sel" else [0]

    # -- out -------------------------------------------------------------------------------------------------

    def leave(self, kind: str, column: int, packet: Packet, now: int) -> None:
        """When a step has left every column, its words go out through the ports."""
        if kind != "sums":
            return
        exits = self._exits.setdefault(packet.step, {})
        exits[column // self.route.gang] = packet.value
        if len(exits) < self.chip.arch.array.cols // self.route.gang:
            return
        if packet.step == 0:
            self.passed = now + 1
        results = self._results(packet.step, exits)
        words, scatter = self._outputs(packet.step), self.route.scatter
        for cycle, leaving in self._served(words, self._ports[1], scatter).items():
            for number, address in leaving:
                self.chip.memory.use("out", now + cycle)
                self.chip.memory.later(now + cycle, address, results[number])
        self.out[packet.step] = now + scatter
        if packet.step == self.count - 1:
            self.done = now + scatter

    def _results(self, step: int, exits: dict[int, Any]) -> list[float]:
        held, memory = self.op.held, self.chip.memory
        assert held is not None
        lanes = self.name != "mac"
        values = [exits[c % self.route.wide][c // self.route.wide] if lanes else exits[c] for c in range(self.cols)]
        if self.name in ("fri.x", "tri.x", "sel"):
            parts = [[complex(v).real for v in values], [complex(v).imag for v in values]]
            return [value for part in parts[: halves_of(self.op)] for value in part]
        number = self.cols // self._own[1]
        if self.name == "mac":
            more: Any = np.tile(self._added, number) if self._added is not None else np.zeros(self.cols)
        else:
            assert self._added is not None
            more = np.tile(self._added, number) * np.array([value or 0.0 for value in self._values[step][: self.cols]])
        old = np.zeros(self.cols)
        if self.op.ins["accumulate"]:
            old[:] = [0.0 if a is None else memory.spad[a] for _, a in self._outputs(step)]
        return [float(complex(v).real + extra + before) for v, extra, before in zip(values, more, old, strict=True)]
