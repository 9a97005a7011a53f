"""Several layers' states in one tensor: each layer reads its part of it, and the new parts are put together.

Nothing is said of the ops that take the tensor apart and put it together again, but that they only move numbers: run on
the numbers of the places, they tell which number comes from where.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Refused, Tracked, Unsupported
from ssmc.frontend.source.evaluate import evaluate, run_call
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.operands import text
from ssmc.frontend.states.lifting import State
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

AFFINE_TOLERANCE = 1e-8

# Ops that only move numbers, and which of their operands the numbers are of; None: all.
MOVERS: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(["Gather", "GatherElements", "GatherND", "Slice", "Split", "Expand", "Cast", "Identity"], (0,)),
    **dict.fromkeys(["Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose"], (0,)),
    **dict.fromkeys(["ScatterND", "ScatterElements"], (0, 2)),
    "Concat": None,
}


@dataclass(frozen=True)
class Parts:
    """What a layer reads -> what it writes there; other names under which the same is read; shapes of what is written
    beside the state."""

    members: Mapping[Value, Value]
    others: Mapping[Value, Value]
    shapes: Mapping[Value, tuple[int, ...]]


@dataclass(frozen=True)
class Divided:
    """A state as the states that are its parts; `before` translates the listing as it is before these are lifted."""

    whole: State
    states: tuple[State, ...]
    before: Translator

    def together(self, last: dict[str, Tracked]) -> Tracked:
        """The last state, of the last states of the parts, which are taken out of `last`. Raises Unsupported."""
        found = {state.following: last.pop(state.name) for state in self.states}
        if any(isinstance(item, Refused) for item in found.values()):
            return Refused()
        return _moved(self.before, {self.whole.current: self.whole.initial, **found}, self.whole.following)


def divide(translator: Translator, state: State, parts: Parts) -> Divided:
    """A state as its parts. Raises Unsupported where its first value cannot be taken apart."""
    nothing = {value: Known(np.zeros(shape)) for value, shape in parts.shapes.items()}
    states = []
    for k, (current, following) in enumerate(parts.members.items()):
        initial = _moved(translator, {**nothing, state.current: state.initial}, current)
        if not isinstance(initial, Flow | Known):
            raise Unsupported("its first value cannot be taken apart")
        states.append(State(f"{state.name}[{k}]", current, following, initial))
    return Divided(state, tuple(states), replace(translator, env=dict(translator.env)))


def _moved(translator: Translator, given: Mapping[Value, Tracked], wanted: Value) -> Tracked:
    """What the nodes between make of other values than those of a step."""
    inputs = [value for value in translator.listing.inputs.values() if value in translator.env]
    env = {**{value: translator.env[value] for value in inputs}, **given}
    return replace(translator, env=env, later={}, outer=None).demand([wanted])[0]


def with_parts(listing: Listing, parts: Iterable[Parts]) -> Listing:
    """The listing in which what is read under several names is read under one."""
    others = {old: new for found in parts for old, new in found.others.items()}
    if not others:
        return listing
    calls = [
        replace(call, operands=tuple(others.get(v, v) for v in call.operands))  # type: ignore[arg-type]
        if not others.keys().isdisjoint(call.operands)
        else call
        for call in listing.calls
    ]
    producer = {value: call for call in calls for value in call.results}
    return replace(listing, calls=calls, producer=producer)


def affine(listing: Listing, point: Mapping[Value, Array], current: Value, following: Value) -> bool:
    """Does the next state move with the present one as a sum does with its terms?"""
    rng = np.random.default_rng(1)
    shape = np.shape(point[current])
    steps = [np.zeros(shape), *(rng.standard_normal(shape) for _ in range(2))]
    steps.append(steps[1] + steps[2])
    base, first, second, both = (
        np.asarray(evaluate(listing, {**point, current: point[current] + step}, [following])[following])
        for step in steps
    )
    moved = np.abs(both - first - second + base).max(initial=0.0)
    return bool(moved <= AFFINE_TOLERANCE * max(np.abs(both - base).max(initial=0.0), 1.0))


def parts_move(listing: Listing, parts: Parts, point: Mapping[Value, Array]) -> tuple[bool, bool]:
    """Does every part's next value move with the part itself as a sum does with its terms, all else as it is; and
    element by element?"""
    listing, rng = with_parts(listing, [parts]), np.random.default_rng(1)
    here = evaluate(listing, point, parts.members)
    elementwise = True
    for current, following in parts.members.items():
        shape = np.shape(here[current])
        steps = [np.zeros(shape), *(rng.standard_normal(shape) for _ in range(2))]
        steps.append(steps[1] + steps[2])
        given = [{**point, current: np.asarray(here[current]) + step} for step in steps]
        base, first, second, both = (np.asarray(evaluate(listing, x, [following])[following]) for x in given)
        scale = max(np.abs(both - base).max(initial=0.0), 1.0) * AFFINE_TOLERANCE
        if not np.abs(both - first - second + base).max(initial=0.0) <= scale or not np.any(first - base):
            return False, False
        if first.size == steps[1].size:
            slope = (first - base).reshape(shape) / steps[1]
            apart = np.abs((second - base).reshape(shape) - slope * steps[2]).max(initial=0.0)
        elementwise = elementwise and first.size == steps[1].size and bool(apart <= scale)
    return True, elementwise


def find_parts(listing: Listing, current: Value, following: Value, point: Mapping[Value, Array]) -> Parts | None:
    """How a state is made of parts, each read and written; None where it is not.

    `point` are sample arrays of all inputs.
    """
    maker = listing.producer.get(following)
    if maker is None or not moved_by(maker) or not _forks(listing, current):
        return None
    numbers = _Numbers(listing, current, following, point)
    places = numbers.places() if following in numbers.of else None
    if places is None:
        return None
    size = numbers.of[current].size
    written = {v: places[numbers.of[v]] for v in reversed(numbers.written)}
    needed = numbers.needed()
    pairs = [
        (v, next((w for w, there in written.items() if np.array_equal(there, numbers.of[v])), None))
        for v in numbers.read
        if v in needed and 0 < numbers.of[v].size < size and numbers.of[v].max() < size
    ]
    # The smallest parts that hold, else larger ones; each as it is used, else as it is first.
    for turn, used in product((1, -1), (True, False)):
        free = np.full(size, True)
        found: dict[Value, Value] = {}
        order = {v: (0, k) if numbers.is_used(v) else (1, -k) for k, (v, _) in enumerate(pairs)} if used else {}
        for v, w in sorted(pairs, key=lambda p: (turn * numbers.of[p[0]].size, order.get(p[0], (0, 0)))):
            if w is not None and free[numbers.of[v]].all():
                found[v] = w
                free[numbers.of[v]] = False
        others = numbers.others(found, places)
        if len(found) > 1 and others is not None:
            ordered = sorted(found, key=lambda v: int(numbers.of[v].min()))
            return Parts({v: found[v] for v in ordered}, others, numbers.beside())
    return None


def _forks(listing: Listing, value: Value) -> bool:
    """Is a value read in more than one way, at once or after it was moved?"""
    while True:
        users = [call for call in listing.users.get(value, []) if value in moved_by(call).values()]
        if len(users) != 1 or len(users[0].results) != 1:
            return bool(users)
        value = users[0].results[0]


class _Numbers:
    """A number for each place of a state, and for each number that is written to it, wherever they are moved.

    `of`: the numbers in each value; `read`: values that are made of the state by moving alone, `written`: those that
    the next state is put together of, the last ones first.
    """

    def __init__(self, listing: Listing, current: Value, following: Value, point: Mapping[Value, Array]) -> None:
        self.listing, self.current, self.following = listing, current, following
        back = self._behind(following)
        moved, made = {current}, set[Value]()
        calls = []
        for call in listing.calls:
            if not moved.isdisjoint(moved_by(call).values()):
                moved.update(call.results)
            elif call.position not in back:
                continue
            made.update(call.results)
            calls.append(call)
        inner = (v for call in calls for v in moved_by(call).values() if v not in made and v != current)
        self.leaves = leaves = list(dict.fromkeys(inner))
        told = [v for call in calls for k, v in enumerate(call.operands) if v is not None and k not in moved_by(call)]
        arrays = evaluate(listing, point, [*leaves, *told, current])
        self.of: dict[Value, Array] = {}
        self.constant = np.zeros(0, bool)
        for value in (current, *leaves):
            shape, first = np.shape(arrays[value]), len(self.constant)
            count = int(np.prod(shape, dtype=np.int64))
            self.of[value] = np.arange(first, first + count).reshape(shape)
            self.constant = np.append(self.constant, np.full(count, value in listing.constants))
        for call in calls:
            given = [
                None if v is None else self.of[v].astype(np.float64) if k in moved_by(call) else np.asarray(arrays[v])
                for k, v in enumerate(call.operands)
            ]
            for value, array in zip(call.results, run_call(call, given), strict=False):
                self.of[value] = np.asarray(array).astype(np.int64)
        self.calls = {call.position for call in calls}
        self.read = [v for call in calls for v in call.results if v in moved]
        self.written = [v for call in back.values() for v in moved_by(call).values() if v != current]

    def beside(self) -> dict[Value, tuple[int, ...]]:
        """Shapes of what is moved besides the state, but for constants."""
        return {v: self.of[v].shape for v in self.leaves if v not in self.listing.constants}

    def _behind(self, value: Value) -> dict[int, Call]:
        """Calls that only move numbers on their way to a value."""
        found: dict[int, Call] = {}
        waiting = [value]
        while waiting:
            call = self.listing.producer.get(waiting.pop())
            if call is not None and call.position not in found and moved_by(call):
                found[call.position] = call
                waiting += moved_by(call).values()
        return dict(sorted(found.items(), reverse=True))

    def places(self) -> Array | None:
        """The place in the next state of each number, -1 for one that is not in it; None where one is in two places."""
        after, size = self.of[self.following].reshape(-1), self.of[self.current].size
        if after.size != size:
            return None
        told = ~self.constant[after]
        found = np.full(len(self.constant), -1)
        found[after[told]] = np.flatnonzero(told)
        return found if np.count_nonzero(found >= 0) == np.count_nonzero(told) else None

    def others(self, parts: Mapping[Value, Value], places: Array) -> dict[Value, Value] | None:
        """What else is read is the same as what; None where some of the state is read or written in no part.

        Places that are never written are what they were at first, whoever reads them.
        """
        size = self.of[self.current].size
        inside = np.full(size, False)
        for value in parts:
            inside[self.of[value]] = True
        moved = places[np.flatnonzero(places != np.arange(len(places)))]
        if np.any(~inside[moved[moved >= 0]]) or self.is_used(self.current):
            return None
        found: dict[Value, Value] = {}
        passed = {self.current}
        for call in self.listing.calls:
            if call.position not in self.calls or passed.isdisjoint(moved_by(call).values()):
                continue
            for value in call.results:
                if value in parts:
                    continue
                passed.add(value)
                numbers, used = self.of[value], self.is_used(value)
                same = (v for v in (*parts, *self.written) if v not in passed and np.array_equal(self.of[v], numbers))
                other = next(same, None) if used else None
                if other is not None:
                    found[value] = other
                elif used and np.any(inside[numbers[numbers < size]]):
                    return None
        return found

    def needed(self) -> set[Value]:
        """Values of which something needs the numbers, wherever they are moved before."""
        found: set[Value] = set()
        for call in reversed(self.listing.calls):
            if call.position in self.calls and any(v in found or self.is_used(v) for v in call.results):
                found.update(call.results, moved_by(call).values())
        return found

    def is_used(self, value: Value) -> bool:
        """Does anything need the numbers of a value, but what only moves them?"""
        if value == self.following:
            return False
        users = (c for c in self.listing.users.get(value, []) if c.kind not in ("Shape", "Size"))
        return value in self.listing.outputs.values() or any(
            c.position not in self.calls or any(v == value and k not in moved_by(c) for k, v in enumerate(c.operands))
            for c in users
        )


def moved_by(call: Call) -> dict[int, Value]:
    """The operands of which a call moves the numbers, by their slots; none for any other call."""
    if call.kind not in MOVERS or (call.kind == "Cast" and not call.dtypes[0].startswith(("float", "double"))):
        return {}
    if call.kind.startswith("Scatter") and text(call.attrs.get("reduction", "none")) != "none":
        return {}
    slots = MOVERS[call.kind]
    return {k: v for k, v in enumerate(call.operands) if v is not None and (slots is None or k in slots)}
