"""The ways of parameters and states in and out of the array, and products whose results stay in place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backends.epochcore.cost import Layout, layout_of
from backends.epochcore.dispatch import Op
from backends.epochcore.gemm import ceil_div
from backends.epochcore.parameters import unpack
from backends.epochcore.stepped.grid import Packet
from backends.epochcore.stepped.passes import Chip
from isa import Instruction


def cells(held: Instruction, chip: Chip) -> Layout:
    """Rows and columns of what holds a weight, or states, for a preload."""
    array = chip.arch.array
    return Layout(array.rows, array.cols, 1, 1) if held["mode"] == "mac" else layout_of(held, chip.arch)


@dataclass
class Preload:
    """Parameters shift down the columns, the last row first; a row moves in when the ports have brought all of it."""

    op: Op
    chip: Chip
    start: int
    done: int | None = None

    def __post_init__(self) -> None:
        ins = self.op.ins
        self._layout = cells(ins, self.chip)
        if ins["mode"] in ("sel", "mac.os"):
            self.done = self.start + 1
            return
        self._rows = self._parameters()
        states = (3 if ins["mode"] in ("fri", "tri") else 1) * (1 + bool(ins["complex"]))
        words = 1 if ins["mode"] == "mac" else states
        at = self._layout
        self._used = at.rows if ins["mode"] == "mac" else ceil_div(int(ins["rows"]), at.stack)
        self._wide = ceil_div(words * self._layout.stack * self._layout.cols, self.chip.arch.array.port_words_in)

    def _parameters(self) -> list[list[Any]]:
        """For every cell its weight, or the parameters of each of its states; None where it has none."""
        ins, at = self.op.ins, self._layout
        rows, cols = int(ins["rows"]), int(ins["cols"])
        source = self.chip.memory.params[int(ins["src"])]
        if ins["mode"] == "mac":
            weights = source.reshape(rows, cols)
            return [
                [float(weights[r, c]) if r < rows and c < cols else None for c in range(at.cols)]
                for r in range(at.rows)
            ]
        full = ins["mode"] in ("fri", "tri")
        e = unpack(source, rows, cols, bool(ins["complex"]), full, True)
        names = (e.decay, e.b, e.c) if full else (e.decay,)

        def state(row: int, col: int) -> tuple[complex, ...] | None:
            inside = row < rows and col < cols
            return tuple(complex(*values[:, col, row]) for values in names) if inside else None

        return [[[state(r * at.stack + s, c) for s in range(at.stack)] for c in range(at.cols)] for r in range(at.rows)]

    def tick(self, now: int) -> None:
        if self.done is not None:
            return
        cycle, at, grid = now - self.start + 1, self._layout, self.chip.grid.at
        if cycle % self._wide:
            return
        for c in range(at.cols):
            for r in range(self._used - 1, -1, -1):
                cell, above = grid[r * at.gang][c * at.gang], grid[(r - 1) * at.gang][c * at.gang]
                free = cell.shadow is None or cell.shadow[0] == self.op.number
                assert free, "parameters overwritten before their use"
                cell.shadow = above.shadow if r else (self.op.number, self._rows[self._used - cycle // self._wide][c])
        if cycle == self._used * self._wide:
            self.done = now + 1


@dataclass
class StateLoad:
    """States go to their elements' shadow registers, as many words a cycle as the ports are wide."""

    op: Op
    chip: Chip
    start: int
    held: Instruction
    done: int | None = None

    def tick(self, now: int) -> None:
        at, ins, spad = layout_of(self.held, self.chip.arch), self.op.ins, self.chip.memory.spad
        words, wide = int(ins["words"]), self.chip.arch.array.port_words_in
        rows, cols = int(self.held["rows"]), int(self.held["cols"])
        first = (now - self.start) * wide
        if now == self.start:
            for line in self.chip.grid.at[: at.rows * at.gang : at.gang]:
                for element in line[: at.cols * at.gang : at.gang]:
                    assert element.shadow_states is None, "states overwritten before their use"
                    element.shadow_states = [0j] * at.stack
        for word in range(first, min(first + wide, words)):
            half, place = divmod(word, rows * cols)
            col, row = divmod(place, rows)
            states = self.chip.grid.at[row // at.stack * at.gang][col * at.gang].shadow_states
            assert states is not None
            states[row % at.stack] += float(spad[int(ins["src"]) + word]) * (1j if half else 1)
        if first + wide >= words:
            self.done = now + 1


@dataclass
class StateStore:
    """A wave down the columns copies the states behind the last step; then they are shifted out."""

    op: Op
    chip: Chip
    start: int
    done: int | None = None
    passed: int | None = None
    name: str = "state.store"
    takes: tuple[bool, bool] = (False, False)
    before: bool = False

    def __post_init__(self) -> None:
        held = self.op.held
        assert held is not None
        at = self._layout = layout_of(held, self.chip.arch)
        self.hop, self.height, self.gang = at.stack * at.gang, at.gang, at.gang
        self.rows, self.cols = int(held["rows"]), int(held["cols"])
        self._left = 0

    def tick(self, now: int) -> None:
        if now == self.start:
            for c in range(self._layout.cols):
                self.chip.grid.put("north", 0, c * self.gang, Packet(self, 0, None))

    def leave(self, kind: str, column: int, packet: Packet, now: int) -> None:
        self._left += 1
        if self._left < self._layout.cols:
            return
        self.passed = now + 1
        at, ins, memory = self._layout, self.op.ins, self.chip.memory
        wide = self.chip.arch.array.port_words_out
        for word in range(int(ins["words"])):
            half, place = divmod(word, self.rows * self.cols)
            col, row = divmod(place, self.rows)
            out = self.chip.grid.at[row // at.stack * at.gang][col * at.gang].out
            assert out is not None
            value = out[row % at.stack]
            part = complex(value).imag if half else complex(value).real
            memory.later(now + 1 + word // wide, int(ins["dst"]) + word, part)
        self.done = now + 1 + ceil_div(int(ins["words"]), wide)


@dataclass
class Product:
    """Results in place: fold after fold, inputs from the west and weights from the north; results leave by rows."""

    op: Op
    chip: Chip
    start: int
    done: int | None = None
    passed: int | None = None
    name: str = "mac.os"
    hop: int = 1
    height: int = 1
    gang: int = 1
    takes: tuple[bool, bool] = (True, False)
    before: bool = False
    _values: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    _entries: dict[int, list[tuple[str, int, int, Packet]]] = field(default_factory=dict)
    _captures: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    _shifts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        held, array = self.op.held, self.chip.arch.array
        assert held is not None
        self.rows, self.cols = int(held["rows"]), int(held["cols"])
        if not self.op.steps:
            self.done = self.passed = self.start + 1
            return
        self._gather = ceil_div(min(array.rows, self.op.steps), array.port_words_in)
        self._out = ceil_div(self.cols, array.port_words_out)
        fold = (self.rows - 1) * self._gather + self._gather - 1 + array.rows + array.cols - 1
        self._period = max(fold, array.rows * self._out + array.cols - 1)
        self._folds = ceil_div(self.op.steps, array.rows)
        for number in range(self._folds):
            begun = self.start + number * self._period
            last = begun + self.rows * self._gather - 1 + array.mac_depth - 1
            for r in range(array.rows):
                for c in range(array.cols):
                    self._captures.setdefault(last + r + c, []).append((r, c, number))
            full = last + array.rows + array.cols - 2
            for row in range(array.rows):
                self._shifts[full + (row + 1) * self._out] = number * array.rows + array.rows - 1 - row

    def tick(self, now: int) -> None:
        """Send in what is read in this cycle."""
        if self.done is not None:
            return
        ins, array, memory = self.op.ins, self.chip.arch.array, self.chip.memory
        assert self.op.held is not None
        number, inside = divmod(now - self.start, self._period)
        term, phase = divmod(inside, self._gather)
        if number < self._folds and term < self.rows:
            wide = array.port_words_in
            values = self._values.setdefault((number, term), [])
            for r in range(phase * wide, min((phase + 1) * wide, array.rows)):
                step = number * array.rows + r
                used = step < self.op.steps
                address = int(ins["src"]) + step * int(ins["src_pitch"]) + term
                values.append(float(memory.spad[address]) if used else 0.0)
                if used:
                    memory.use("in", now)
            if phase == self._gather - 1:
                values += [0.0] * (array.rows - len(values))
                weights = memory.params[int(self.op.held["src"])].reshape(self.rows, self.cols)
                key = number * self.rows + term
                for r in range(array.rows):
                    self._send(now + r, "west", r, 0, key, values[r])
                for c in range(array.cols):
                    self._send(now + c, "north", 0, c, key, float(weights[term, c]) if c < self.cols else 0.0)
        for kind, row, col, packet in self._entries.pop(now, ()):
            self.chip.grid.put(kind, row, col, packet)

    def after(self, now: int) -> None:
        """When the elements have worked: results that are put aside move on by a row, finished ones are put aside."""
        if now in self._shifts:
            self._shift(now, self._shifts.pop(now))
        for r, c, fold in self._captures.pop(now, ()):
            self.chip.grid.at[r][c].capture(fold)

    def _shift(self, now: int, step: int) -> None:
        ins, held, array, memory = self.op.ins, self.op.held, self.chip.arch.array, self.chip.memory
        assert held is not None
        grid, fold = self.chip.grid.at, step // array.rows
        results = [grid[array.rows - 1][c].result for c in range(array.cols)]
        for c in range(array.cols):
            for r in range(array.rows - 1, -1, -1):
                # a result moves with its fold: the next one's wait where they are
                above = grid[r - 1][c].result if r else None
                here = grid[r][c].result
                if here is None or here[0] == fold:
                    grid[r][c].result = above if above is not None and above[0] == fold else None
        for c in range(self.cols if step < self.op.steps else 0):
            address = int(ins["dst"]) + step * int(ins["dst_pitch"]) + c
            result = results[c]
            assert result is not None and result[0] == fold, "a result is missing"
            bias = memory.params[int(held["bias"])][c] if held["biased"] else 0.0
            old = memory.spad[address] if ins["accumulate"] else 0.0
            memory.later(now, address, float(complex(result[1]).real + bias + old))
        if not self._shifts:
            self.done = self.passed = now + 1

    def _send(self, cycle: int, kind: str, row: int, col: int, step: int, value: Any) -> None:
        self._entries.setdefault(cycle, []).append((kind, row, col, Packet(self, step, value)))

    def leave(self, kind: str, column: int, packet: Packet, now: int) -> None:
        """Operands that have passed every element are done with."""
