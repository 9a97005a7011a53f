"""The numbers of a step whose sums are rounded: which of them the next states need, and which terms each is a sum of.

Sequences of a batch are alike, so that the numbers of the first one are enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ssmc.frontend.graph.flow import Known, Unsupported
from ssmc.frontend.graph.rows import Layout
from ssmc.frontend.states.couplings import NOT_LINEAR
from ssmc.frontend.states.sum_nets import Gated, Net, Number, Words
from ssmc.frontend.states.sum_nodes import Rounding
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.ops.rounded import GRID
from ssmc.ir.ops.rounded_sums import GATED, OPEN, TERM, islands, part_of

# A term of a sum as it was found: the number of its target, whose number it takes, and the weight.
Coupling = tuple[int, Value, int, float]
FREE = np.zeros(len(GRID))  # the grid of a sum that is not rounded


def words_of(net: Net) -> Words:
    """The numbers of the first sequence that the next states need, those that depend on each other side by side.

    Raises Unsupported where sequences depend on each other, or where nothing depends on a state.
    """
    made = _Numbers(net)
    for each in net.cuts():
        if isinstance(each, Gated):
            made.let_through(each)
        else:
            made.rounded(each)
    states = made.next_states()
    n, results = len(made.of), made.results()

    def read(source: int) -> int:
        """A number of this step, or, behind all of them, one of the step before."""
        return n + source if source >= 0 else int(states[-1 - source])

    rows = [(i, read(s), w, OPEN if gate is None else read(gate)) for i, s, w, gate in made.terms]
    if not rows:
        raise Unsupported(NOT_LINEAR)
    terms = np.array(rows, np.float64).T[: len(GATED if net.products else TERM)]
    order = np.concatenate(islands(n, terms))
    back = np.argsort(order)
    return Words(
        [made.of[i] for i in order],
        np.stack(made.grids, axis=1)[:, order],
        part_of(n, terms, order),
        back[states],
        {value: back[row] for value, row in results.items()},
    )


@dataclass
class _Numbers:
    """Numbers as they are found: what each is `of`, its grid, the terms that it is a sum of, and the place of what has
    one. A source is a place, or -1 - the place of a state."""

    net: Net
    of: list[Number] = field(default_factory=list)
    grids: list[Array] = field(default_factory=list)
    terms: list[tuple[int, int, float, int | None]] = field(default_factory=list)  # number, source, weight, gate
    place: dict[Number, int] = field(default_factory=dict)
    _couplings: dict[Value, dict[int, list[Coupling]]] = field(default_factory=dict)
    _driven: dict[Value, bool] = field(default_factory=dict)

    @cached_property
    def starts(self) -> Array:
        """Where the states of each kind begin among all of them."""
        return np.cumsum([0, *(int(np.prod(f)) for f in self.net.step.lifting.features)])

    @cached_property
    def state(self) -> dict[Number, int]:
        """The place of every state among all of them."""
        step, found = self.net.step, dict[Number, int]()
        for current, layout, start in zip(step.currents, step.lifting.layouts, self.starts, strict=False):
            row = _first_sequence(layout, layout.shape)
            found |= {(current, int(k)): int(start) + i for i, k in enumerate(row)}
        return found

    def couplings(self, target: Value, k: int) -> list[Coupling]:
        """The terms of a number of a target."""
        if target not in self._couplings:
            rows = self._couplings[target] = {}
            for term in self.net.couplings.terms[target]:
                rows.setdefault(term[0], []).append(term)
        return self._couplings[target].get(k, [])

    def copied(self, target: Value, k: int) -> Number | None:
        """What a number of a target is a mere copy of."""
        if target not in self._driven:
            drive = self.net.drives[target]
            self._driven[target] = not isinstance(drive, Known) or bool(np.any(np.asarray(drive.array)))
        own = self.couplings(target, k)
        return own[0][1:3] if len(own) == 1 and own[0][3] == 1.0 and not self._driven[target] else None

    def add(self, target: Value, k: int, grid: Array, own: Sequence[Coupling]) -> int:
        """The place of one more number."""
        sources = [self.read(value, j) for _, value, j, _ in own]
        self.terms += [(len(self.of), s, term[3], None) for s, term in zip(sources, own, strict=True)]
        self.of.append((target, k))
        self.grids.append(grid)
        return len(self.of) - 1

    def read(self, value: Value, k: int) -> int:
        """The source that a number of a state, or of what a rounding gives, is; what is the same in all sequences, as
        products with a weight of 0, is made where one reads it."""
        if (value, k) in self.state:
            return -1 - self.state[value, k]
        if (value, k) not in self.place and self.net.owners[value][k] < 0:
            for each in (each for each in self.net.roundings if each.result == value):
                self.round(each, k)
        if (value, k) not in self.place:
            raise Unsupported("its sequences depend on each other")
        return self.place[value, k]

    def source(self, target: Value, k: int) -> int:
        """The source that a number of a target is."""
        same = self.copied(target, k)
        if same in self.state:
            return -1 - self.state[same]
        if same in self.place:
            return self.place[same]
        if (target, k) not in self.place:
            self.place[target, k] = self.add(target, k, FREE, self.couplings(target, k))
        return self.place[target, k]

    def let_through(self, each: Gated) -> None:
        """Numbers that count where others are not 0."""
        factors, gates = (each.places(self.net.shape(v)) for v in (each.factor, each.gate))
        for k in map(int, np.flatnonzero(self.net.owners[each.result] == 0)):
            source, gate = self.source(each.factor, int(factors[k])), self.source(each.gate, int(gates[k]))
            self.place[each.result, k] = self.add(each.result, k, FREE, [])
            self.terms.append((self.place[each.result, k], source, 1.0, gate))

    def rounded(self, each: Rounding) -> None:
        """The sums of the first sequence, and what is the same in all, on their grids."""
        own, first = self.net.owners[each.result], _first_sequence(self.net.layouts[each.source], each.shape)
        for k in sorted({*map(int, np.flatnonzero(own == 0)), *(int(k) for k in first if own[k] < 0)}):
            self.round(each, k)

    def round(self, each: Rounding, k: int) -> None:
        """One sum on its grid; one that is there on the same grid is rounded once."""
        same, grid = self.copied(each.source, k), each.grid[:, k]
        if same in self.place and np.array_equal(self.grids[self.place[same]], grid):
            self.place[each.result, k] = self.place[same]
        else:
            self.place[each.result, k] = self.add(each.source, k, grid, self.couplings(each.source, k))

    def next_states(self) -> Array:
        """The number that each state becomes, which no other one does."""
        step, taken = self.net.step, set[int]()
        found = np.zeros(step.size, np.int64)
        for following, layout, start in zip(step.followings, step.lifting.layouts, self.starts, strict=False):
            row = _first_sequence(layout, layout.shape)
            for i, k in enumerate(map(int, row)):
                same = self.copied(following, k)
                number = None if same is None else self.place.get(same)
                if number is None or number in taken:
                    number = self.add(following, k, FREE, self.couplings(following, k))
                taken.add(number)
                found[int(start) + i] = number
        return found

    def results(self) -> dict[Value, Array]:
        """Where the results of roundings are, of those whose numbers are all needed."""
        found = {}
        for each in self.net.roundings:
            row = _first_sequence(self.net.layouts[each.source], each.shape)
            if all((each.result, int(k)) in self.place for k in row):
                found[each.result] = np.array([self.place[each.result, int(k)] for k in row])
        return found


def _first_sequence(layout: Layout, shape: Sequence[int]) -> Array:
    """Which numbers of a value of some shape the first sequence's are."""
    first: Array = layout.rows(np.arange(int(np.prod(shape))).reshape(shape))[0]
    return first
