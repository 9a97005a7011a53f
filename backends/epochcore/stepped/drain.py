"""States on their way out where engines hand over step by step."""

from __future__ import annotations

from dataclasses import dataclass

from backends.epochcore.program.dispatch import Op
from backends.epochcore.stepped.passes import Chip
from backends.epochcore.stepped.places import places_of
from backends.epochcore.stepped.ports import through
from backends.epochcore.stepped.shifts import stored_columns, stored_words


@dataclass
class Drain:
    """When a pass has ended its states go to registers of their own, unless the next pass sent them there already; then
    down the columns and out."""

    op: Op
    chip: Chip
    start: int
    done: int | None = None

    def __post_init__(self) -> None:
        held, ins, memory = self.op.held, self.op.ins, self.chip.memory
        assert held is not None
        at, array = places_of(held, self.chip.arch, self.op.samples), self.chip.arch.array
        rows = int(held["rows"])
        number = self.op.samples * int(ins["words"])
        before, cols = stored_columns(self.op)
        self._cells = [line[: at.cols * at.gang : at.gang] for line in self.chip.grid.at[: at.rows * at.gang : at.gang]]
        for line in self._cells:
            for cell in line:
                if cell.out is None:
                    assert cell.unsaved, "states go out twice"
                    cell.out, cell.unsaved = list(cell.states), False
        first = self.start + at.rows * at.stack * at.gang
        for count, (word, row, col) in enumerate(stored_words(self.op, rows, cols, before)):
            half = word // (rows * cols)
            high, across, state = at.at[row, col]
            out = self._cells[high][across].out
            assert out is not None
            value = complex(out[state])
            target = int(self.chip.rounds.of(count // int(ins["words"]), ins)["dst"]) + word
            memory.later(first + count // array.port_words_out, target, value.imag if half else value.real)
        self._end = first + through(number, array.port_words_out)

    def tick(self, now: int) -> None:
        if now == self._end - 1:
            self.done = self._end
            for line in self._cells:
                for cell in line:
                    cell.out = None
