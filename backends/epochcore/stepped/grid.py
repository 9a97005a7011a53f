"""The processing elements: registers, a pipeline of products, neighbours.

An operand stays in an element for some cycles (one, or as many as it takes to step the states that are there) and then
moves on: matrix operands to the east, drives to the south. Partial sums move south behind their operands, later by
the depth of the pipeline, and meet in every element the products that are due in that cycle. A register that would
hold two things at once, a product that no sum fetches, a state that is used before it is there: each an AssertionError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

Number = complex


@dataclass
class Packet:
    """What one step of a pass moves from element to element; `age` counts cycles in the present one."""

    work: Work
    step: int
    value: Any
    age: int = 0


@dataclass(frozen=True)
class Form:
    """What a pass asks of the elements that it goes through; cells are elements, or gangs of them."""

    name: str
    hop: int = 1  # cycles in a cell
    gang: int = 1  # elements along each axis of a cell, and cycles of one state
    deep: int = 1  # states of one channel in a cell
    wide: int = 1  # columns from a channel to the next one, in the next group of rows
    groups: int = 1  # groups of rows; channels of the same cell are so many times `wide` apart
    high: int = 1  # cells of a group, one below the other
    rows: int = 0  # rows of weights or states in use
    cols: int = 0
    takes: tuple[bool, bool] = (False, False)  # parameters and states from the shadow registers
    before: bool = False


class Work(Protocol):
    """A pass, as the grid sees it."""

    form: Form

    def leave(self, kind: str, column: int, packet: Packet, now: int) -> None:
        """A packet has left the last row."""


@dataclass
class Element:
    """One element, or the first one of a gang that holds a state together."""

    row: int
    col: int
    depth: int
    shadow: tuple[tuple[int, int], Any] | None = None  # whose parameters, of which tile, and what they are
    active: Any = None
    shadow_states: tuple[int, list[Number]] | None = None
    states: list[Number] = field(default_factory=list)
    out: list[Number] | None = None
    total: Number = 0.0
    result: tuple[int, Number] | None = None  # of which fold, and what
    west: Packet | None = None
    north: Packet | None = None
    sums: Packet | None = None
    parking: bool = False  # states that are there when others come go to `out`
    unsaved: bool = False
    _products: list[tuple[int, Work, int, Number, int | None]] = field(default_factory=list)
    _updates: list[tuple[int, list[Number], int, Number]] = field(default_factory=list)

    def take_over(self, packet: Packet) -> None:
        """The first step of a pass brings its parameters and states to life."""
        if packet.step or packet.age:
            return
        parameters, states = packet.work.form.takes
        if parameters:
            self.active, self.shadow = (None if self.shadow is None else self.shadow[1]), None
        if states:
            if self.parking and self.unsaved:
                assert self.out is None, "states are taken over before the last ones are out"
                self.out = self.states
            self.unsaved = True
            # states in rows that are not in use are nothing
            self.states, self.shadow_states = (self.shadow_states or (0, []))[1], None

    def tick(self, now: int) -> None:
        """One cycle."""
        if self.west is None and self.north is None and not self._products and not self._updates:
            return  # nothing is here
        for packet in (self.west, self.north):
            if packet is not None:
                self.take_over(packet)
        if self.west is not None and self.north is not None:
            self._meet(self.west, self.north, now)
        elif self.west is not None:
            weight = self.active or 0.0
            product = weight * self.west.value
            self._products.append((now + self.depth - 1, self.west.work, self.west.step, product, None))
        elif self.north is not None:
            self._step(self.north, now)
        self._sum(now)
        for _, states, state, value in [update for update in self._updates if update[0] == now]:
            states[state] = value
        self._updates = [update for update in self._updates if update[0] > now]
        late = [product for product in self._products if product[0] <= now]
        assert not late, f"products of {late[0][1].form.name} that no sum has fetched"

    def _meet(self, west: Packet, north: Packet, now: int) -> None:
        """Results in place: the sum stays here."""
        assert west.work is north.work and west.step == north.step, "operands of different steps meet"
        self._products.append((now + self.depth - 1, west.work, west.step, west.value * north.value, None))

    def capture(self, fold: int) -> None:
        """A result in place is finished: it goes to the register that is shifted out."""
        assert self.result is None, "a result is overwritten before it was shifted out"
        self.result, self.total = (fold, self.total), 0.0

    def _step(self, packet: Packet, now: int) -> None:
        form = packet.work.form
        if packet.age % form.gang:
            return
        state, due = packet.age // form.gang, now + self.depth + form.gang - 2
        lane, below = divmod(state, form.deep)
        cell = self.row // form.gang
        group = min(cell // form.high, form.groups - 1)
        lane = lane * form.groups + group
        here = (cell - group * form.high) * form.deep + below < form.rows
        here &= self.col // form.gang + lane * form.wide < form.cols
        here &= form.name == "state.store" or packet.value[lane] is not None
        rule = RULES[form.name]
        if rule is None:
            self._copy(state, here)
            return
        value: Number = 0.0
        if here:
            there = state < len(self.states) and (form.name == "sel" or self.active is not None)
            assert there, f"{form.name} steps a state before it and its parameters are there"
            late = [at for _, states, at, _ in self._updates if states is self.states]
            assert state not in late, f"{form.name} steps a state that is not there yet"
            following, value = rule(
                self.active[state] if self.active else None, self.states[state], packet.value[lane], form
            )
            self._updates.append((due, self.states, state, following))
        self._products.append((due, packet.work, packet.step, value, lane))

    def _copy(self, state: int, here: bool) -> None:
        if here:
            assert all(at != state for _, _, at, _ in self._updates), "a state is copied that is not there yet"
            self.out = [] if state == 0 else self.out
            assert self.out is not None
            self.out += [0j] * (state - len(self.out))
            self.out.append(self.states[state])

    def _sum(self, now: int) -> None:
        due = [product for product in self._products if product[0] == now]
        if not due:
            return
        if due[0][1].form.name == "mac.os":
            self.total += due[0][3]
            self._products.remove(due[0])
            return
        assert self.sums is not None and len(due) == 1, "a product is due and no sum is there"
        _, work, step, value, lane = due[0]
        assert self.sums.work is work and self.sums.step == step, "a product is due in the sum of another step"
        if lane is None:
            self.sums.value += value
        else:
            self.sums.value[lane] += value
        self._products.remove(due[0])


Rule = Callable[[Any, Number, Any, Form], tuple[Number, Number]]


def _inside(p: Any, x: Number, u: Any, form: Form) -> tuple[Number, Number]:
    a, b, c = p
    following = a * x + b * u
    return following, (c * (x if form.before else following)).real


def _liquid(p: Any, x: Number, u: Any, form: Form) -> tuple[Number, Number]:
    a, b, c = p
    following = (a + b * u) * x + b * u
    return following, (c * (x if form.before else following)).real


def _driven(decay: Number, v: Number, x: Number, form: Form) -> tuple[Number, Number]:
    following = decay * x + v
    return following, x if form.before else following


RULES: dict[str, Rule | None] = {
    "fri": _inside,
    "tri": _liquid,
    "fri.x": lambda p, x, v, form: _driven(p[0], v, x, form),
    "tri.x": lambda p, x, v, form: _driven(p[0] + v, v, x, form),
    "sel": lambda p, x, v, form: _driven(v[0], v[1], x, form),
    "state.store": None,
}


class Grid:
    """All elements of an array, and what moves between them at the end of every cycle."""

    def __init__(self, rows: int, cols: int, depth: int, *, parking: bool = False) -> None:
        self.rows, self.cols = rows, cols
        self.at = [[Element(r, c, depth, parking=parking) for c in range(cols)] for r in range(rows)]

    def put(self, kind: str, row: int, col: int, packet: Packet) -> None:
        """A packet enters a register at the beginning of a cycle."""
        assert getattr(self.at[row][col], kind) is None, f"two packets at once in a {kind} register"
        setattr(self.at[row][col], kind, packet)

    def tick(self, now: int) -> None:
        """Every element, then every register that moves on."""
        for line in self.at:
            for element in line:
                element.tick(now)
        self.move(now)

    def move(self, now: int) -> None:
        """The registers move on."""
        moving: list[tuple[str, int, int, Packet]] = []
        for line in self.at:
            for e in line:
                if e.west is None and e.north is None and e.sums is None:
                    continue
                for kind in ("west", "north", "sums"):
                    packet: Packet | None = getattr(e, kind)
                    if packet is None:
                        continue
                    packet.age += 1
                    last = e.row + packet.work.form.gang >= self.rows // packet.work.form.gang * packet.work.form.gang
                    # a sum leaves the last row when it is complete, elsewhere with its operand
                    stay = packet.work.form.hop - (packet.work.form.gang - 1 if kind == "sums" and last else 0)
                    if packet.age < stay:
                        continue
                    setattr(e, kind, None)
                    packet.age = 0
                    if kind == "west":
                        if e.col + 1 < self.cols:
                            moving.append((kind, e.row, e.col + 1, packet))
                    elif last:
                        packet.work.leave(kind, e.col, packet, now)
                    else:
                        moving.append((kind, e.row + packet.work.form.gang, e.col, packet))
        for kind, row, col, packet in moving:
            self.put(kind, row, col, packet)
