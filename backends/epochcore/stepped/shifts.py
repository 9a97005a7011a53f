"""The ways of parameters and states in and out of the array, and products whose results stay in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends.epochcore.arch import Arch
from backends.epochcore.program.dispatch import Op
from backends.epochcore.program.parameters import unpack
from backends.epochcore.program.stretches import copies, count
from backends.epochcore.program.tiles import own, tiles
from backends.epochcore.stepped.grid import Element, Form, Packet
from backends.epochcore.stepped.passes import Chip, Entries
from backends.epochcore.stepped.places import places_of
from backends.epochcore.stepped.ports import through
from isa import Instruction


def stored_columns(op: Op) -> tuple[int, int]:
    """The first column of a sample, and how many, whose states a `state.store` takes out."""
    held = op.held
    assert held is not None
    cols = int(held["cols"])
    if copies(held) == 1 or not op.ins["last"]:
        return 0, cols * copies(held)
    return (count(held, op.steps) - 1) * cols, cols


def stored_words(op: Op, rows: int, cols: int, first: int) -> Iterator[tuple[int, int, int]]:
    """Words of a `state.store` in the order in which they leave: their place in the row of their sample, and row and
    column of the state."""
    assert op.held is not None
    wide = int(op.held["cols"]) * copies(op.held)
    for sample in range(op.samples):
        for word in range(int(op.ins["words"])):
            col, row = divmod(word % (rows * cols), rows)
            yield word, row, sample * wide + first + col


@dataclass
class Shift:
    """Rows move down the columns, the last one first; a row comes in when the ports have brought all of it.

    Rows that nothing has come to yet stay as they are. Where passes go along the diagonal, so does this: every column
    is as much later as it is further east.
    """

    chip: Chip
    start: int
    rows: int
    cols: int
    gang: int
    wide: int  # cycles in which the ports bring a row

    def tick(
        self, now: int, bring: Callable[[int], Sequence[Any]], move: Callable[[Element, Element, Any], None]
    ) -> bool:
        """One cycle: `bring` the values of a row, `move(cell, the one above it, what comes in there)`.

        Returns whether the last row is in, in the first column.
        """
        gang, grid = self.gang, self.chip.grid.at
        for c in range(self.cols):
            cycle = now - self.start + 1 - self.chip.delay(c * gang)
            row, rest = divmod(cycle, self.wide)
            if rest or not 0 < row <= self.rows:
                continue
            values = bring(self.rows - row)
            for r in range(row - 1, -1, -1):
                cell, above = grid[r * gang][c * gang], grid[(r - 1) * gang][c * gang]
                move(cell, above, None if r else (values[c],))
        return now - self.start + 1 == self.rows * self.wide

    def over(self, now: int) -> bool:
        """Whether nothing moves any more."""
        return now >= self.start + self.rows * self.wide + self.chip.delay((self.cols - 1) * self.gang)


def shift_of(op: Op, arch: Arch) -> tuple[int, int, int, int]:
    """Of a `preload` or a `state.load`: rows and columns of cells that are shifted in, elements of a cell along each
    axis, and cycles in which the ports bring a row. No more rows of states come in than are in use; weights fill all.
    A row of parameters is as long as the array is wide, one of states as the fullest has states."""
    array, held = arch.array, op.ins if op.ins.mnemonic == "preload" else op.held
    assert held is not None
    if held["mode"] == "mac":
        return array.rows, array.cols, 1, through(array.cols, array.port_words_in)
    at, parts = places_of(held, arch, op.samples), 1 + bool(held["complex"])
    if op.ins.mnemonic == "preload":
        words = (3 if held["mode"] in ("fri", "tri") else 1) * parts * at.stack * at.cols
    else:
        words = at.in_the_fullest_row() * parts
    return at.used, at.cols, at.gang, through(words, array.port_words_in)


@dataclass
class Preload:
    """Parameters shift into the array, a row of all columns after the other."""

    op: Op
    chip: Chip
    start: int
    done: int | None = None
    tile: int = 0

    def __post_init__(self) -> None:
        ins, params = self.op.ins, self.chip.memory.params
        self._shift: Shift | None = None
        if ins["biased"]:
            self.chip.coming = own(params[int(ins["bias"])], tiles(ins), self.tile).copy()
        elif ins["mode"] in ("fri", "tri"):
            self.chip.coming = params[int(ins["src"])].ravel()[-int(ins["cols"]) :].copy()
        else:
            self.chip.coming = np.zeros(int(ins["cols"]))
        if ins["mode"] in ("sel", "mac.os"):
            self.done = self.start + 1
            return
        self._values = self._weights() if ins["mode"] == "mac" else self._parameters()
        self._shift = Shift(self.chip, self.start, *shift_of(self.op, self.chip.arch))

    def _weights(self) -> list[list[Any]]:
        """For every element its weight, or None."""
        ins, array = self.op.ins, self.chip.arch.array
        source = own(self.chip.memory.params[int(ins["src"])], tiles(ins), self.tile)
        weights = np.kron(np.eye(copies(ins)), source.reshape(int(ins["rows"]), int(ins["cols"])))
        high, wide = weights.shape
        return [
            [float(weights[r, c]) if r < high and c < wide else None for c in range(array.cols)]
            for r in range(array.rows)
        ]

    def _parameters(self) -> list[list[Any]]:
        """For every cell the parameters of each of its states; None where it has none."""
        ins, at = self.op.ins, places_of(self.op.ins, self.chip.arch, self.op.samples)
        full, cols = ins["mode"] in ("fri", "tri"), int(ins["cols"])
        source = self.chip.memory.params[int(ins["src"])]
        e = unpack(source, int(ins["rows"]), cols, bool(ins["complex"]), full, False)
        found: list[list[Any]] = [[[None] * at.stack for _ in range(at.cols)] for _ in range(at.rows)]
        for (row, col), (high, across, number) in at.at.items():
            values = (e.decay, e.b, e.c) if full else (e.decay,)
            found[high][across][number] = tuple(complex(*parts[:, col % cols, row]) for parts in values)
        return found

    def tick(self, now: int) -> None:
        if self._shift is not None and self._shift.tick(now, lambda row: self._values[row], self._move):
            self.done = now + 1

    def over(self, now: int) -> bool:
        return self._shift is None or self._shift.over(now)

    def _move(self, cell: Element, above: Element, value: Any) -> None:
        free = cell.shadow is None or cell.shadow[0] == (self.op.number, self.tile)
        assert free, "parameters overwritten before their use"
        cell.shadow = ((self.op.number, self.tile), value[0]) if value else above.shadow


@dataclass
class StateLoad:
    """States shift into the array, a row of the columns in use after the other."""

    op: Op
    chip: Chip
    start: int
    held: Instruction
    done: int | None = None
    _rows: dict[int, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._at = places_of(self.held, self.chip.arch, self.op.samples)
        self._shift = Shift(self.chip, self.start, *shift_of(self.op, self.chip.arch))

    def tick(self, now: int) -> None:
        if self._shift.tick(now, self._bring, self._move):
            self.done = now + 1

    def over(self, now: int) -> bool:
        return self._shift.over(now)

    def _bring(self, row: int) -> list[Any]:
        """The states of a row of cells, read when they come in at the first column."""
        if row not in self._rows:
            self._rows[row] = [
                [self._state(self._at.of.get((row, c, s))) for s in range(self._at.stack)] for c in range(self._at.cols)
            ]
        return self._rows[row]

    def _state(self, state: tuple[int, int] | None) -> complex:
        if state is None:
            return 0j
        (row, col), rows = state, int(self.held["rows"])
        cols = int(self.held["cols"]) * copies(self.held)
        sample, col = divmod(col, cols)
        source = self.chip.rounds.of(sample, self.op.ins)["src"]
        spad, first = self.chip.memory.spad, int(source) + col * rows + row
        parts = [float(spad[first + half * rows * cols]) for half in range(1 + bool(self.held["complex"]))]
        return complex(*parts)

    def _move(self, cell: Element, above: Element, value: Any) -> None:
        free = cell.shadow_states is None or cell.shadow_states[0] == self.op.number
        assert free, "states overwritten before their use"
        cell.shadow_states = (self.op.number, list(value[0])) if value else above.shadow_states


@dataclass
class StateStore:
    """A wave down the columns copies the states behind the last step; then they are shifted out."""

    op: Op
    chip: Chip
    start: int
    done: int | None = None
    passed: int | None = None

    def __post_init__(self) -> None:
        held = self.op.held
        assert held is not None
        at = self._layout = places_of(held, self.chip.arch, self.op.samples)
        self.hop, self._rows = at.stack * at.gang, int(held["rows"])
        cols = int(held["cols"]) * copies(held) * self.op.samples
        layout = self.hop, at.gang, at.deep, at.cols, at.groups, at.high
        self.form = Form(self.op.ins.mnemonic, *layout, self._rows, cols)
        self._first, self._wide = stored_columns(self.op)
        self._left = 0

    def tick(self, now: int) -> None:
        if now == self.start:
            for c in range(self._layout.cols):
                self.chip.grid.put("north", 0, c * self.form.gang, Packet(self, 0, None))

    def over(self, now: int) -> bool:
        """Whether the registers through which states leave are empty."""
        return self.done is not None and self.done <= now

    def leave(self, kind: str, column: int, packet: Packet, now: int) -> None:
        self._left += 1
        if self._left < self._layout.cols:
            return
        self.passed = now + 1
        at, ins, memory = self._layout, self.op.ins, self.chip.memory
        wide = self.chip.arch.array.port_words_out
        for number, (word, row, col) in enumerate(stored_words(self.op, self._rows, self._wide, self._first)):
            half = word // (self._rows * self._wide)
            high, across, state = at.at[row, col]
            out = self.chip.grid.at[high * at.gang][across * at.gang].out
            assert out is not None
            value = out[state]
            part = complex(value).imag if half else complex(value).real
            target = int(self.chip.rounds.of(number // int(ins["words"]), ins)["dst"]) + word
            memory.later(now + 1 + number // wide, target, part)
        self.done = now + 1 + through(int(ins["words"]) * self.op.samples, wide)


@dataclass
class Product:
    """Results in place: fold after fold, inputs from the west and weights from the north; results leave by rows."""

    op: Op
    chip: Chip
    start: int
    done: int | None = None
    passed: int | None = None
    fresh: bool = True  # whether it is the first one after its preload
    tile: int = 0
    _values: dict[tuple[int, int], tuple[list[float], list[float]]] = field(default_factory=dict)
    _captures: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    _shifts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        held, array = self.op.held, self.chip.arch.array
        assert held is not None
        self.rows, self.cols, self._entries = int(held["rows"]), int(held["cols"]), Entries(self)
        self.form = Form("mac.os", takes=(True, False))
        self._added = self.chip.take_over(self.fresh)
        if not self.op.steps:
            self.done = self.passed = self.start + 1
            return
        self._steps = self.op.steps * self.op.samples
        self._gather = through(max(min(array.rows, self._steps), self.cols), array.port_words_in)
        self._out = through(self.cols, array.port_words_out)
        fold = (self.rows - 1) * self._gather + self._gather - 1 + array.rows + array.cols - 1
        self._period = max(fold, array.rows * self._out + array.cols - 1)
        self._folds = through(self._steps, array.rows)
        for number in range(self._folds):
            begun = self.start + number * self._period
            last = begun + self.rows * self._gather - 1 + array.mac_depth - 1
            for r in range(array.rows):
                for c in range(array.cols):
                    self._captures.setdefault(last + r + c, []).append((r, c, number))
            full = last + array.rows + array.cols - 2
            for row in range(array.rows):
                self._shifts[full + (row + 1) * self._out] = number * array.rows + array.rows - 1 - row

    @property
    def busy(self) -> int:
        """Cycles until all results are out."""
        return max(self._shifts, default=self.start - 1) + 1 - self.start

    def tick(self, now: int) -> None:
        """Send in what is read in this cycle."""
        if self.done is not None:
            return
        array, memory = self.chip.arch.array, self.chip.memory
        assert self.op.held is not None
        number, inside = divmod(now - self.start, self._period)
        term, phase = divmod(inside, self._gather)
        if number < self._folds and term < self.rows:
            wide = array.port_words_in
            values, terms = self._values.setdefault((number, term), ([], []))
            every = memory.params[int(self.op.held["src"])]
            weights = own(every, tiles(self.op.held), self.tile).reshape(self.rows, self.cols)[term]
            terms += [float(weight) for weight in weights[phase * wide : (phase + 1) * wide]]
            for r in range(phase * wide, min((phase + 1) * wide, array.rows)):
                step = number * array.rows + r
                used = step < self._steps
                address = self._place("src", step) + term
                values.append(float(memory.spad[address]) if used else 0.0)
                if used:
                    memory.use("in", now)
            if phase == self._gather - 1:
                values += [0.0] * (array.rows - len(values))
                terms += [0.0] * (array.cols - len(terms))
                key = number * self.rows + term
                for r in range(array.rows):
                    self._entries.send(now + r, "west", r, 0, key, values[r])
                for c in range(array.cols):
                    self._entries.send(now + c, "north", 0, c, key, terms[c])
        self._entries.tick(self.chip.grid, now)

    def _place(self, name: str, step: int) -> int:
        """The first word of an operand at a step, one of a sample after the other."""
        step, sample = divmod(step, self.op.samples)
        ins = self.chip.rounds.of(sample, self.op.ins)
        return int(ins[name]) + step * int(ins[f"{name}_pitch"])

    def after(self, now: int) -> None:
        """When the elements have worked: results that are put aside move on by a row, finished ones are put aside."""
        if now in self._shifts:
            self._shift(now, self._shifts.pop(now))
        for r, c, fold in self._captures.pop(now, ()):
            self.chip.grid.at[r][c].capture(fold)

    def _shift(self, now: int, step: int) -> None:
        ins, array, memory = self.op.ins, self.chip.arch.array, self.chip.memory
        grid, fold = self.chip.grid.at, step // array.rows
        results = [grid[array.rows - 1][c].result for c in range(array.cols)]
        for c in range(array.cols):
            for r in range(array.rows - 1, -1, -1):
                # a result moves with its fold: the next one's wait where they are
                above = grid[r - 1][c].result if r else None
                here = grid[r][c].result
                if here is None or here[0] == fold:
                    grid[r][c].result = above if above is not None and above[0] == fold else None
        for c in range(self.cols if step < self._steps else 0):
            address = self._place("dst", step) + c
            result = results[c]
            assert result is not None and result[0] == fold, "a result is missing"
            bias = self._added[c] if self._added is not None else 0.0
            old = memory.spad[address] if ins["accumulate"] else 0.0
            memory.use("out", now + 1 - self._out + c // array.port_words_out)
            memory.later(now, address, float(complex(result[1]).real + bias + old))
        if not self._shifts:
            self.done = self.passed = now + 1

    def leave(self, kind: str, column: int, packet: Packet, now: int) -> None:
        """Operands that have passed every element are done with."""
