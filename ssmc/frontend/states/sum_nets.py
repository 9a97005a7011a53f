"""The step of a net as numbers: what is summed, rounded, let through; their drives, layouts and places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ssmc.frontend.graph.flow import Flow, Tracked
from ssmc.frontend.graph.rows import Layout, layout_of
from ssmc.frontend.states.couplings import Couplings
from ssmc.frontend.states.state_step import Step
from ssmc.frontend.states.sum_nodes import Rounding
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

Number = tuple[Value, int]  # of a state's current value, of what a rounding gives, or of a state's next value


@dataclass(frozen=True, eq=False)
class Gated:
    """`result` is `factor` where `gate` is 1, and 0 where it is 0, in `shape`; `position` is that of its node."""

    factor: Value
    gate: Value
    result: Value
    shape: tuple[int, ...]
    position: int

    def places(self, shape: tuple[int, ...]) -> Array:
        """Which number of an operand of a shape each number of the result reads."""
        numbers = np.arange(int(np.prod(shape))).reshape(shape)
        return np.array(np.broadcast_to(numbers, self.shape)).reshape(-1)


def _position(each: Rounding | Gated) -> int:
    return each.position if isinstance(each, Gated) else each.call.position


@dataclass(eq=False)
class Net:
    """A step as numbers, those of one sequence: sums before their roundings, and next states."""

    step: Step
    roundings: Sequence[Rounding]
    products: Sequence[Gated]
    couplings: Couplings
    drives: Mapping[Value, Tracked]  # by what is rounded, or the next value of a state
    layouts: dict[Value, Layout] = field(default_factory=dict)
    owners: dict[Value, Array] = field(default_factory=dict)  # sequence of every number, -1 where it is not known

    def __post_init__(self) -> None:
        lifting = self.step.lifting
        for state, layout in zip(lifting.states, lifting.layouts, strict=True):
            self.owners[state.current] = owners_of(layout)
        for each in self.cuts():
            if isinstance(each, Rounding):
                self.owners[each.result] = self._place(each.source, each.shape)
                continue
            self.layouts[each.result] = Layout(each.shape, "", ())
            read = [(self._place(v, s), each.places(s)) for v in (each.factor, each.gate) for s in (self.shape(v),)]
            found = [owners[at] for owners, at in read]
            self.owners[each.result] = np.where(found[0] >= 0, found[0], found[1])
        for following, layout in zip(self.step.followings, lifting.layouts, strict=True):
            self.layouts[following], self.owners[following] = layout, owners_of(layout)

    def cuts(self) -> list[Rounding | Gated]:
        """Roundings and products, in the order of their nodes."""
        return sorted([*self.roundings, *self.products], key=_position)

    def shape(self, value: Value) -> tuple[int, ...]:
        return np.shape(self.couplings.base[value])

    def _place(self, target: Value, shape: tuple[int, ...]) -> Array:
        """Of which sequence each number of a target is: as its drive tells, or what it is made of."""
        drive = self.drives[target]
        self.layouts[target] = layout = layout_of(drive, shape)
        if isinstance(drive, Flow):
            return owners_of(layout)
        owners = np.full(int(np.prod(shape)), -1)
        for k, value, j, _ in self.couplings.terms[target]:
            if self.owners[value][j] >= 0:
                owners[k] = self.owners[value][j]
        return owners


def owners_of(layout: Layout) -> Array:
    """Which sequence each number of a value belongs to, -1 for none."""
    rows = np.arange(int(np.prod(layout.shape))).reshape(layout.shape)
    owners = np.full(rows.size, -1)
    for which, row in enumerate(layout.rows(rows)):
        owners[row] = which
    return owners


@dataclass(frozen=True, eq=False)
class Words:
    """The numbers of a step in the order of the op: `of` them (target, place), and which word each state is."""

    of: Sequence[Number]
    grid: Array
    terms: Array
    states: Array  # (n,) words of the states, in rows of all states
    results: Mapping[Value, Array]  # words of what a rounding gives, in rows of its layout
