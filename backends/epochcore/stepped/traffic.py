"""How closely passes follow each other, register by register.

A step is sent through a bare grid, and where it comes is written down. A pass may begin as soon as its first step comes
nowhere before one more step of the pass before it would have: to no element with its operands, to none with its sums,
and with its words to no port before the last ones have left. Rows and columns that gangs leave over are passed as all
others are; a `state.store` goes through as a step does, with sums that nothing is added to. Where results stay in place
nothing is left when the pass is over.

What is shifted in may begin as soon as no word of it comes to an element in whose shadow registers the first step of
the pass before has not taken over what was there. A row comes in word by word, while those before it wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from backends.epochcore.program.dispatch import Op
from backends.epochcore.stepped.grid import Form, Grid, Packet
from backends.epochcore.stepped.places import places_of
from backends.epochcore.stepped.ports import through
from backends.epochcore.stepped.routes import Entry, delay, entries, route_of

Cycles = NDArray[np.int64]


@dataclass(frozen=True)
class Front:
    """A step's cycles after it begins: when its operands and its sums come to each element, and when its words begin
    to leave through the ports and have left."""

    operands: Cycles
    sums: Cycles
    out: int
    over: int


@dataclass
class _Scout:
    """A step that computes nothing."""

    form: Form
    left: int = 0  # the last cycle in which a sum left the last row

    def leave(self, kind: str, column: int, packet: Packet, now: int) -> None:
        if kind == "sums":
            self.left = now


class _Bare(Grid):
    """A grid that notes when something comes to a register."""

    def __init__(self, rows: int, cols: int, depth: int) -> None:
        super().__init__(rows, cols, depth)
        self.clock = 0
        self.reached: dict[str, dict[tuple[int, int], int]] = {"operands": {}, "sums": {}}

    def put(self, kind: str, row: int, col: int, packet: Packet) -> None:
        super().put(kind, row, col, packet)
        self.reached["sums" if kind == "sums" else "operands"].setdefault((row, col), self.clock)


def _sent(first: int, ways: Iterable[Entry], scout: _Scout, rows: int, cols: int) -> _Bare:
    """A step that enters a bare grid, followed until it has left."""
    grid, found = _Bare(rows, cols, 1), [(first + cycle, kind, r, c) for cycle, kind, r, c in ways]
    last = max(cycle for cycle, *_ in found)
    while grid.clock <= last or any(e.west or e.north or e.sums for line in grid.at for e in line):
        for cycle, kind, row, col in found:
            if cycle == grid.clock:
                grid.put(kind, row, col, Packet(scout, 0, None))
        grid.clock += 1  # what moves is in the next register when the next cycle begins
        grid.move(grid.clock - 1)
    return grid


def front_of(op: Op, arch: Arch) -> Front:
    """Of a pass, or of a `state.store`."""
    array, name = arch.array, op.ins.mnemonic
    assert op.held is not None
    if name == "mac" and op.held["mode"] == "mac.os":
        return _of_results(op, arch)
    if name == "state.store":
        at = places_of(op.held, arch, op.samples)
        first, scatter, form = 0, 0, Form(name, at.stack * at.gang, at.gang)
    else:
        route = route_of(op, arch)
        first, scatter, form = route.gather - 1, route.scatter, Form(name, route.hop, route.gang)
    rows, cols = (-(-n // form.gang) * form.gang for n in (array.rows, array.cols))
    own, weights = _Scout(form), name == "mac"
    grid = _sent(first, entries(weights, form.gang, rows, cols, arch), _Scout(form), rows, cols)
    _sent(first, entries(weights, form.gang, array.rows, array.cols, arch), own, array.rows, array.cols)
    operands, sums = (_spread(grid.reached[kind], form, array.rows, array.cols) for kind in ("operands", "sums"))
    return Front(operands, sums, own.left, own.left + scatter)


def _spread(reached: dict[tuple[int, int], int], form: Form, rows: int, cols: int) -> Cycles:
    """By element: a step goes through a gang row by row."""
    found = np.zeros((rows, cols), np.int64)
    for r in range(rows):
        for c in range(cols):
            inside = r % form.gang
            found[r, c] = reached[r - inside, c - c % form.gang] + inside * form.hop // form.gang
    return found


def _of_results(op: Op, arch: Arch) -> Front:
    """Of the first term, where results stay in place."""
    array, held = arch.array, op.held
    assert held is not None
    form, steps = Form("mac.os"), min(array.rows, op.steps * op.samples)
    first = max(through(steps, array.port_words_in), through(int(held["cols"]), array.port_words_in)) - 1
    grid = _sent(first, ((r, "west", r, 0) for r in range(array.rows)), _Scout(form), array.rows, array.cols)
    operands = _spread(grid.reached["operands"], form, array.rows, array.cols)
    out = first + (int(held["rows"]) - 1) * (first + 1) + array.mac_depth + int(operands[-1, -1] - operands[0, 0])
    return Front(operands, operands + array.mac_depth - 1, out, out)


@dataclass
class Traffic:
    """From when on the array's registers and ports are free for another pass."""

    arch: Arch
    operands: Any = 0
    sums: Any = 0
    port: int = 0
    _fronts: dict[tuple[int, ...], Front] = field(default_factory=dict)

    def front(self, op: Op) -> Front:
        key = op.index, id(op.held), op.samples, op.steps
        if key not in self._fronts:
            self._fronts[key] = front_of(op, self.arch)
        return self._fronts[key]

    def lets(self, op: Op, now: int) -> bool:
        """Whether a pass may begin."""
        front = self.front(op)
        behind = (now + front.operands >= self.operands).all() and (now + front.sums >= self.sums).all()
        return bool(behind) and now + front.out >= self.port

    def follow(self, op: Op, end: int, interval: int) -> None:
        """A pass would take one more step at `end`, `interval` cycles after its last."""
        front = self.front(op)
        self.operands = np.maximum(self.operands, end + front.operands)
        self.sums = np.maximum(self.sums, end + front.sums)
        self.port = max(self.port, end - interval + front.over)

    def empty(self) -> None:
        """All that was in the array has left it."""
        self.operands, self.sums, self.port = 0, 0, 0

    @property
    def free(self) -> int:
        """From when on every pass may begin."""
        return max(int(np.max(self.operands)), int(np.max(self.sums)), self.port)

    def lets_in(self, rows: int, wide: int, gang: int, cols: int, leader: Op, begun: int, now: int) -> bool:
        """Whether `rows` of `cols` cells may be shifted in, each in `wide` cycles, behind the pass that led."""
        taken = begun + self.front(leader).operands
        for r in range(rows * gang):
            for c in range(cols * gang):
                if now + r // gang * wide + delay(c, self.arch) <= taken[r, c]:
                    return False
        return True
