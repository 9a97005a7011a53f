"""Products of complex states with their decays, each rounded, and their sums: which is whose, by what numbers become.

What quantisation tools make of `p re - q im + v`: every node's result is rounded. Between the roundings a step is
linear; random numbers in one place are found again in others, times a decay, or with a sign.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Unsupported
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call
from ssmc.frontend.states.grids import Grid
from ssmc.frontend.states.state_step import Step
from ssmc.frontend.states.sum_nodes import grid_between
from ssmc.frontend.states.transition import find_transition
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.ops.rounded import GRID, rounded_step

TOLERANCE = 1e-9
LONGEST = 8  # nodes of a rounding, behind what rounds (ours)
ELSEWHERE = "it is rounded on the way to its next value in more places than the state, its products and their sums"


@dataclass(frozen=True, eq=False)
class Rounded:
    """A rounding: `source` becomes `result`, number by number, each on a grid of its own."""

    source: Value
    result: Value
    grid: Grid


@dataclass(frozen=True, eq=False)
class Products:
    """What the op `rounded` takes: a decay, real or in halves, of states in `order` (all real parts, then the imaginary
    ones), grids by place in that order; and the values to which only the drive is added."""

    decay: Array
    order: Array
    grids: Mapping[str, Array]
    rounding: str
    summed: list[Value]
    is_complex: bool = True

    def step(self, x: Array, drive: Array, by: float = 0.0) -> tuple[Array, Array]:
        """What a step reaches and what is kept of it, with the edges of all codes moved by so many codes."""
        shift = by * np.eye(len(GRID))[GRID.index("shift")][:, None]
        grids = {place: rows + shift for place, rows in self.grids.items()}
        return rounded_step(self.decay, grids, self.rounding, self.is_complex, x, drive)


def find_products(
    step: Step, heads: Sequence[Value], tails: Sequence[Value], kept: Sequence[Grid] | None = None
) -> Products:
    """The products between where states are read and where a step is summed. Raises Unsupported.

    `kept` are the grids on which the sums become the next values.
    """
    found = [_rounded(step, call, heads, tails) for call in step.roundings(heads, tails)]
    if len({each.grid.rounding for each in found}) != 1 or found[0].grid.rounding != "nearest":
        raise Unsupported("its products are not rounded to the nearest code")
    net = _Net(step, list(heads), list(tails), found)
    return net.turned() or net.products(None if kept is None else np.concatenate([g.rows for g in kept], axis=1))


def _rounded(step: Step, call: Call, heads: Sequence[Value], tails: Sequence[Value]) -> Rounded:
    """All that belongs to a rounding: as many nodes around it as make up one grid."""
    best = None
    for source in _before(step, call, heads):
        own = None
        for result in islice(_behind(step, call, heads, tails), LONGEST):
            # x + (Q(x) - x) is one again where Q(x) - x is none
            grid = grid_between(step, call, source, result, step.currents)
            own = own if grid is None else Rounded(source, result, grid)
        if own is None and best is not None:
            break
        best = own or best
    if best is None:
        raise Unsupported(
            "what lies around the rounding is not linear in the state, is scaled otherwise than before, or is not the "
            "same for all data"
        )
    return best


def _before(step: Step, call: Call, heads: Sequence[Value]) -> Iterator[Value]:
    listing, influenced = step.lifting.translator.listing, step.lifting.influenced
    value = call.operands[0]
    while value is not None and value not in heads:
        yield value
        producer = listing.producer.get(value)
        own = [] if producer is None else [v for v in producer.operands if v in influenced]
        value = own[0] if len(own) == 1 else None


def _behind(step: Step, call: Call, heads: Sequence[Value], tails: Sequence[Value]) -> Iterator[Value]:
    calls, value = step.calls(heads, tails), call.results[0]
    while True:
        yield value
        users = [c for c in calls if value in c.operands]
        if value in tails or len(users) != 1:
            return
        value = users[0].results[0]


@dataclass(frozen=True, eq=False)
class _Term:
    """One product that is added to the next value of a state, with the state that it is of."""

    sign: float
    decay: float
    state: int
    grid: Array  # (5,)


class _Net:
    """Evaluates what lies between heads, roundings and tails, at the first sample."""

    def __init__(self, step: Step, heads: list[Value], tails: list[Value], found: list[Rounded]) -> None:
        self.step, self.heads, self.tails, self.found = step, heads, tails, found
        self.samples = step.lifting.translator.samples
        self.given = self.samples.at(0, step.outside)
        self.rng = np.random.default_rng(43)
        self.n = step.size
        self._matches: dict[Value, dict[Value, tuple[Array, Array]]] = {}
        layouts = step.lifting.layouts
        places = np.cumsum([0, *(int(np.prod(f)) for f in step.lifting.features)])
        numbers = [np.arange(a, b) + 0 * np.zeros((step.lifting.batch, 1)) for a, b in pairwise(places)]
        # of every number of a head: which state it is, and of which sequence
        self.states = [layout.tensor(rows) for layout, rows in zip(layouts, numbers, strict=True)]
        samples = [rows * 0 + np.arange(step.lifting.batch)[:, None] for rows in numbers]
        self.sequences = [layout.tensor(rows) for layout, rows in zip(layouts, samples, strict=True)]
        self.base = self.run({}, [*(each.source for each in found), *tails])

    def run(self, feed: Mapping[Value, Array], targets: Sequence[Value]) -> dict[Value, Array]:
        """Targets where all that is not fed is zero."""
        zeros = {v: np.zeros(self.step.shape(v)) for v in (*self.heads, *self.results)}
        found = evaluate(self.samples.listing, {**self.given, **zeros, **feed}, list(dict.fromkeys(targets)))
        return {v: np.asarray(a, np.float64) for v, a in found.items()}

    @property
    def results(self) -> list[Value]:
        return [each.result for each in self.found]

    def draw(self, values: Sequence[Value]) -> dict[Value, Array]:
        shapes = {v: self.step.shape(v) for v in values}
        return {v: self.rng.uniform(0.5, 1.5, shape) * self.rng.choice([-1, 1], shape) for v, shape in shapes.items()}

    def response(self, feed: Mapping[Value, Array], target: Value) -> Array:
        return np.asarray(self.run(feed, [target])[target] - self.base[target])

    def turned(self) -> Products | None:
        """Where only what was turned is rounded: the sum of a number's products at once."""
        sources = [each.source for each in self.found]
        starts = dict(
            zip(self.results, np.cumsum([0, *(int(np.prod(self.step.shape(v))) for v in sources)]), strict=False)
        )
        places: list[Array] = []
        for which, tail in enumerate(self.tails):
            chosen = [self._chosen(tail, k, self.found) for k in range(self.states[which].size)]
            if any(len(terms) != 1 or terms[0][0] < 0 for terms in chosen):
                return None
            numbers = np.array([starts[each.result] + number for ((_, each, number),) in chosen])
            places.append(self.step.lifting.layouts[which].rows(numbers.reshape(self.states[which].shape)))
        order, layouts = np.concatenate(places, axis=1), self.step.lifting.layouts
        ends = np.cumsum([0, *(int(np.prod(f)) for f in self.step.lifting.features)])

        def f(x: Array) -> Array:
            parts = zip(self.heads, layouts, ends, ends[1:], strict=False)
            feed = {v: layout.tensor(np.ascontiguousarray(x[:, a:b])) for v, layout, a, b in parts}
            found = self.run(feed, sources)
            return np.asarray(np.concatenate([found[v].reshape(-1) for v in sources])[order])

        lifting = self.step.lifting
        transition = find_transition(f, lifting.batch, lifting.features, self.rng)
        if transition is None or transition.complex_pairs is None:
            return None
        if np.any(transition.offset):
            raise Unsupported("something is added to the state between two roundings")
        rows = np.concatenate([each.grid.rows for each in self.found], axis=1)[:, order[0]]
        pairs, states = transition.complex_pairs[0], transition.index.T.reshape(-1)
        decay = np.concatenate([pairs.real, pairs.imag])
        return Products(decay, states, {"turned": rows[:, states]}, "nearest", self.results)

    def products(self, kept: Array | None) -> Products:
        of_state = {each.result: self._of_states(each) for each in self.found}
        first = [each for each in self.found if of_state[each.result] is not None]
        second = [each for each in self.found if of_state[each.result] is None]
        if any(np.any(self.base[each.source]) for each in self.found):
            raise Unsupported("something is added to the state between two roundings")
        heads = self.draw(self.heads)
        if any(np.any(self.response(heads, v)) for v in (*self.tails, *(each.source for each in second))):
            raise Unsupported("some of its products are rounded before they are summed, and others are not")
        terms: list[list[_Term]] = []
        turned: list[Array | None] = []
        for which, tail in enumerate(self.tails):
            own = self.sequences[which].reshape(-1) == 0
            for place in np.flatnonzero(own):
                chosen = self._chosen(tail, int(place), second)
                source, at = tail, int(place)
                rows: Array | None = None
                if chosen:
                    (sign, each, number), *more = chosen
                    if more or sign < 0 or self._chosen(tail, at, first):
                        raise Unsupported(ELSEWHERE)
                    rows, source, at = each.grid.rows[:, number], each.source, number
                elif kept is not None and second and not self.base[tail].reshape(-1)[place]:
                    rows = kept[:, int(self.states[which].reshape(-1)[place])]  # nothing is added: one rounding is both
                turned.append(rows)
                terms.append([self._term(*c, of_state) for c in self._chosen(source, at, first)])
        rounded = [rows for rows in turned if rows is not None]
        if rounded and len(rounded) != len(terms):
            raise Unsupported("some of its sums of products are rounded, and others are not")
        return self._assembled(terms, rounded, [each.result for each in (*second, *first)])

    def _of_states(self, each: Rounded) -> tuple[Array, Array] | None:
        """(decay, state) of every number that is rounded, where it is a product with a state; None where it is a sum of
        what was rounded before."""
        one, other = self.draw(self.heads), self.draw(self.heads)
        a, b = (self.response(feed, each.source).reshape(-1) for feed in (one, other))
        if not np.any(a) and not np.any(b):
            return None
        x, y = (np.concatenate([feed[head].reshape(-1) for head in self.heads]) for feed in (one, other))
        states = np.concatenate([array.reshape(-1) for array in self.states])
        decay, state = np.zeros(len(a)), np.full(len(a), -1)
        for k in np.flatnonzero(a):
            match = np.abs(b[k] * x - a[k] * y) <= TOLERANCE * np.abs(a[k] * y)
            if match.sum() != 1:
                raise Unsupported("what is rounded is no product of one state")
            j = int(np.argmax(match))
            decay[k], state[k] = a[k] / x[j], states[j]
        return decay, state

    def _chosen(self, target: Value, place: int, among: Sequence[Rounded]) -> list[tuple[float, Rounded, int]]:
        """Which rounded numbers a number of `target` is the sum of, with their signs."""
        if target not in self._matches:
            self._matches[target] = {each.result: self._selection(target, each) for each in self.found}
        found = []
        for each in among:
            sign, number = self._matches[target][each.result]
            if sign[place]:
                found.append((float(sign[place]), each, int(number[place])))
        return found

    def _selection(self, target: Value, each: Rounded) -> tuple[Array, Array]:
        """(sign, number) of what each number of `target` takes of a rounding's results; a sign of 0 for none."""
        if target == each.source:
            size = int(np.prod(np.shape(self.base[target])))
            return np.zeros(size), np.zeros(size, int)
        feed = self.draw([each.result])
        drawn, got = feed[each.result].reshape(-1), self.response(feed, target).reshape(-1)
        nearest = np.argmin(np.abs(np.abs(got)[:, None] - np.abs(drawn)), axis=1)
        taken = np.abs(got) > TOLERANCE
        if np.abs(np.abs(got) - np.abs(drawn[nearest]))[taken].max(initial=0.0) > TOLERANCE:
            raise Unsupported("what was rounded is scaled before it is summed")
        return np.where(taken, np.sign(got) * np.sign(drawn[nearest]), 0.0), nearest

    @staticmethod
    def _term(sign: float, each: Rounded, number: int, of_state: Mapping[Value, Any]) -> _Term:
        decay, state = of_state[each.result]
        return _Term(sign, float(decay[number]), int(state[number]), each.grid.rows[:, number])

    def _assembled(self, terms: list[list[_Term]], turned: list[Array], summed: list[Value]) -> Products:
        """Pairs of states whose products are turned into each other."""
        order_of = np.concatenate(
            [a.reshape(-1)[s.reshape(-1) == 0] for a, s in zip(self.states, self.sequences, strict=True)]
        )
        by_state = {int(i): row for i, row in zip(order_of, terms, strict=True)}
        turned_by = {int(i): row for i, row in zip(order_of, turned, strict=True)} if turned else {}
        pairs: list[tuple[int, int]] = []
        for i, row in sorted(by_state.items()):
            others = [term.state for term in row if term.state != i]
            if len(row) != 2 or len(others) != 1 or others[0] not in by_state:
                raise Unsupported(ELSEWHERE)
            if i < others[0]:
                pairs.append((i, others[0]))
        if 2 * len(pairs) != self.n:
            raise Unsupported("its states are no pairs of real and imaginary parts")
        own = {i: next(t for t in row if t.state == i) for i, row in by_state.items()}
        cross = {i: next(t for t in row if t.state != i) for i, row in by_state.items()}
        order = np.array([*(i for i, _ in pairs), *(k for _, k in pairs)])
        half = len(pairs)
        p = np.array([own[i].sign * own[i].decay for i in order])
        q = np.array([cross[i].sign * cross[i].decay for i in order])
        scale = np.abs(np.concatenate([p, q])).max()
        if (
            np.abs(p[:half] - p[half:]).max() > TOLERANCE * scale
            or np.abs(q[:half] + q[half:]).max() > TOLERANCE * scale
        ):
            raise Unsupported("its states are no pairs of real and imaginary parts")
        # the op takes q im away from the real half, and adds q re to the other
        grids = {
            "product": np.stack([_as_seen(own[i], 1.0) for i in order], axis=1),
            "cross": np.stack([_as_seen(cross[i], -1.0 if k < half else 1.0) for k, i in enumerate(order)], axis=1),
        }
        if turned:
            grids["turned"] = np.stack([turned_by[int(i)] for i in order], axis=1)
        return Products(np.concatenate([p[half:], q[half:]]), order, grids, "nearest", summed)


def _as_seen(term: _Term, sign: float) -> Array:
    """The grid of a product that is taken with `sign`: mirrored where the file has it with the other."""
    scale, shift, zero, low, high = term.grid
    return term.grid if term.sign == sign else np.array([scale, -shift, -zero, -high, -low])
