"""Steps that were written out one after the other are rolled up again into one step and its states.

Exporters that trace a loop over time leave, for every step, a copy of the same nodes around a `Gather(x, t)`. Every
node belongs to the last step whose input it depends on; the copies are equal but for which step's values they
read, so one of them is the body of a recurrence. What a copy reads from the one before is a state.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssmc.frontend.evaluate import evaluate
from ssmc.frontend.kernels import slices_of
from ssmc.frontend.listing import Call, Listing
from ssmc.frontend.translator import Samples
from ssmc.ir.graph import Value
from ssmc.ir.op import Array, Op

FEWEST = 4  # steps; fewer are not worth it and cannot be checked against each other
TEMPLATE = 2  # the step that stands for all: the first has no step before it, and often neither does the second


@dataclass(frozen=True)
class Leaf:
    """One step of a sequence: entry `step` of `axis` of `source`; `kept` says the axis stays, with size one."""

    source: Value
    axis: int
    step: int
    kept: bool

    @property
    def form(self) -> tuple[Value, int, bool]:
        return (self.source, self.axis, self.kept)


@dataclass(frozen=True, eq=False)
class Carried:
    """A state of the rolled steps: `current` and `following` are values of the template step."""

    current: Value
    following: Value
    initial: Value | None  # None: zero, because the first step was simplified away


@dataclass(frozen=True, eq=False)
class Collected:
    """Pieces of all steps joined: `piece` is the template's, `axis` where they were joined."""

    result: Value
    piece: Value
    axis: int
    backward: bool


@dataclass(frozen=True, eq=False)
class Rolled:
    """What replaces the copies: the template step, as the body of a recurrence over `length` steps."""

    original: Listing
    body: Listing
    leaves: dict[Value, Leaf]  # the template's inputs
    later: dict[Value, Value]  # the same inputs at a later step, as a second sample
    states: tuple[Carried, ...]
    collected: tuple[Collected, ...]
    last: dict[Value, Value]  # value of the last step that others read -> the template's
    length: int
    backward: bool
    operands: tuple[Value, ...]


def roll_up(listing: Listing, samples: Samples) -> Listing:
    """The listing with every family of unrolled steps replaced by one call of kind `Steps`."""
    while True:
        leaves = _leaves(listing, samples)
        families = _families(listing, leaves)
        rolled = None
        for length, members in families:
            for backward in (False, True):
                rolled = _Rolling(listing, samples, members, length, backward).run()
                if rolled is not None:
                    break
            if rolled is not None:
                break
        if rolled is None:
            return listing
        listing = rolled
        samples = Samples(listing, samples.points)


def _leaves(listing: Listing, samples: Samples) -> dict[Value, Leaf]:
    """Values that are single steps of something."""
    found: dict[Value, Leaf] = {}
    for call in listing.calls:
        if call.kind not in ("Gather", "Slice", "Split") or call.operands[0] in listing.constants:
            continue
        source = call.operands[0]
        assert source is not None
        others = [None if v is None else listing.constants.get(v) for v in call.operands[1:]]
        if any(v is not None and a is None for v, a in zip(call.operands[1:], others, strict=True)):
            continue
        if call.kind == "Gather" and others[0] is not None and others[0].size == 1:
            axis = int(call.attrs.get("axis", 0))
            found[call.results[0]] = Leaf(source, axis, int(others[0].reshape(-1)[0]), others[0].ndim == 1)
        elif call.kind == "Slice" and len(others) >= 2:
            parts = slices_of([np.empty(()), *others], call.attrs, 64)
            if len(parts) == 1 and parts[0][1].step == 1 and parts[0][1].stop - parts[0][1].start == 1:
                axis = parts[0][0] - 64 if parts[0][0] > 31 else parts[0][0]
                found[call.results[0]] = Leaf(source, axis, parts[0][1].start, True)
        elif call.kind == "Split" and len(call.results) >= FEWEST:
            axis = int(call.attrs.get("axis", 0))
            for step, value in enumerate(call.results):
                found[value] = Leaf(source, axis, step, True)
    return found


def _families(listing: Listing, leaves: dict[Value, Leaf]) -> list[tuple[int, dict[Value, Leaf]]]:
    """Leaves of complete sequences by their length, longest first; sources made of others' steps come later."""
    steps: dict[tuple[Value, int], set[int]] = defaultdict(set)
    for leaf in leaves.values():
        steps[leaf.source, leaf.axis].add(leaf.step)
    complete = {
        key: len(seen) for key, seen in steps.items() if len(seen) >= FEWEST and seen == set(range(max(seen) + 1))
    }
    chosen = {value: leaf for value, leaf in leaves.items() if (leaf.source, leaf.axis) in complete}
    influenced = listing.influenced(set(chosen)) - set(chosen)
    by_length: dict[int, dict[Value, Leaf]] = defaultdict(dict)
    for value, leaf in chosen.items():
        if leaf.source not in influenced:
            by_length[complete[leaf.source, leaf.axis]][value] = leaf
    return sorted(by_length.items(), reverse=True)


@dataclass(eq=False)
class _Rolling:
    listing: Listing
    samples: Samples
    leaves: dict[Value, Leaf]
    length: int
    backward: bool
    label: dict[Value, int] = field(default_factory=dict)
    joins: dict[Value, tuple[list[Value], int, bool]] = field(default_factory=dict)

    def run(self) -> Listing | None:
        """The listing with this family rolled up; None where the steps are not alike."""
        if not self._whole_axis():
            return None
        steps = self._steps()
        if steps is None:
            return None
        self.steps = steps
        self.place = {
            r: (t, i, k) for t, calls in enumerate(steps) for i, c in enumerate(calls) for k, r in enumerate(c.results)
        }
        template = self._signature(TEMPLATE)
        if template is None or any(self._signature(t) != template for t in range(TEMPLATE, self.length - 1)):
            return None
        if len(steps[1]) != len(steps[TEMPLATE]):
            return None
        last = self._last_step()
        states = self._states(template)
        if states is None:
            return None
        collected = self._collected()
        if collected is None:
            return None
        outside = self._read_outside(last)
        return None if outside is None else self._replaced(states, collected, outside)

    def _whole_axis(self) -> bool:
        """Do the leaves cover their axis, which then has a length that the file fixes?"""
        for leaf in {leaf.form: leaf for leaf in self.leaves.values()}.values():
            shape = np.shape(self.samples.at(0, [leaf.source])[leaf.source])
            if not -len(shape) <= leaf.axis < len(shape) or shape[leaf.axis] != self.length:
                return False
        return True

    def _order(self, step: int) -> int:
        return self.length - 1 - step if self.backward else step

    def _steps(self) -> list[list[Call]] | None:
        """The calls of every step: each belongs to the last step that it depends on."""
        steps: list[list[Call]] = [[] for _ in range(self.length)]
        after: set[Value] = set()
        self.label = {value: self._order(leaf.step) for value, leaf in self.leaves.items()}
        for call in self.listing.calls:
            operands = [v for v in call.operands if v is not None]
            if any(v in after for v in operands):
                after.update(call.results)
                continue
            labels = [self.label[v] for v in operands if v in self.label]
            if not labels or call.results[0] in self.leaves:
                continue
            join = self._join(call)
            if join is not None:
                self.joins[call.results[0]] = join
                after.update(call.results)
                continue
            now = max(labels)
            steps[now].append(call)
            for value in call.results:
                self.label[value] = now
        return steps if all(steps[1:-1]) else None

    def _join(self, call: Call) -> tuple[list[Value], int, bool] | None:
        """Is the call one that joins a piece of every step, in order or backwards?"""
        if call.kind != "Concat" or len(call.operands) != self.length:
            return None
        pieces = [v for v in call.operands if v is not None]
        labels = [self.label.get(v, -1) for v in pieces]
        if labels == list(range(self.length)):
            return pieces, int(call.attrs["axis"]), self.backward
        if labels == list(range(self.length))[::-1]:
            return pieces[::-1], int(call.attrs["axis"]), not self.backward
        return None

    def _signature(self, t: int) -> tuple[Any, ...] | None:
        """What step t looks like, its operands named by their place in this step or the one before."""
        found = []
        for call in self.steps[t]:
            keys = tuple(self._key(v, t) for v in call.operands)
            if None in keys:
                return None
            found.append((call.kind, attribute_key(call), keys))
        return tuple(found)

    def _key(self, value: Value | None, t: int) -> Any:
        if value is None:
            return ("absent",)
        if value not in self.label:
            return ("outer", self._constant_key(value))
        back = t - self.label[value]
        if back > 1:
            return None  # reads further back than one step
        if value in self.leaves:
            return ("leaf", back, self.leaves[value].form)
        return ("made", back, *self.place[value][1:])

    def _constant_key(self, value: Value) -> Any:
        array = self.listing.constants.get(value)
        if array is None or array.size > 1 << 16:
            return value
        return (array.shape, array.dtype.str, array.tobytes())

    # -- states --------------------------------------------------------------------------------------------

    def _slots(self) -> list[tuple[int, int, Value]]:
        """(call, operand slot, value) of what the template reads from the step before, each value once."""
        found: dict[Value, tuple[int, int, Value]] = {}
        for i, call in enumerate(self.steps[TEMPLATE]):
            for slot, value in enumerate(call.operands):
                if value is not None and self.label.get(value) == TEMPLATE - 1:
                    found.setdefault(value, (i, slot, value))
        return list(found.values())

    def _states(self, template: tuple[Any, ...]) -> tuple[Carried, ...] | None:
        whole_first = len(self.steps[0]) == len(self.steps[TEMPLATE])
        found = []
        for i, slot, current in self._slots():
            if current in self.leaves:
                form, t = self.leaves[current].form, self._order(TEMPLATE)
                following = next(v for v, leaf in self.leaves.items() if leaf.form == form and leaf.step == t)
            else:
                _, j, r = self.place[current]
                following = self.steps[TEMPLATE][j].results[r]
            initial: Value | None = None
            if whole_first:
                initial = self.steps[0][i].operands[slot]
                if initial is None or initial in self.label:
                    return None
            elif not self._starts_at_zero():
                return None
            found.append(Carried(current, following, initial))
        return tuple(found)

    def _starts_at_zero(self) -> bool:
        """Does the template, from zero states and the first input, give what the second step reads?"""
        if not hasattr(self, "_zero_start"):
            self._zero_start = self._check_zero_start()
        return self._zero_start

    def _check_zero_start(self) -> bool:
        given: dict[Value, Any] = {}
        first = {leaf.form: v for v, leaf in self.leaves.items() if self._order(leaf.step) == 0}
        for value, leaf in self.leaves.items():
            if self._order(leaf.step) == TEMPLATE:
                given[value] = self.samples.at(0, [first[leaf.form]])[first[leaf.form]]
        wanted, expected = [], []
        for i, slot, current in self._slots():
            given[current] = np.zeros(np.shape(self.samples.at(0, [current])[current]))
            if current in self.leaves:
                continue
            _, j, r = self.place[current]
            wanted.append(self.steps[TEMPLATE][j].results[r])
            expected.append(self.steps[1][i].operands[slot])
        outer = {
            v
            for call in self.steps[TEMPLATE]
            for v in call.operands
            if v is not None and v not in self.label and v not in self.listing.constants
        }
        given.update(self.samples.at(0, outer))
        found = evaluate(self.listing, given, wanted)
        for value, other in zip(wanted, expected, strict=True):
            assert other is not None
            reference = self.samples.at(0, [other])[other]
            scale = max(float(np.abs(reference).max(initial=0.0)), 1e-12)
            try:
                if np.abs(found[value] - reference).max(initial=0.0) > 1e-9 * scale:
                    return False
            except ValueError:
                return False
        return True

    # -- results -------------------------------------------------------------------------------------------

    def _last_step(self) -> dict[Value, Value]:
        """Values of the last step -> the template's; the last step may lack some and have others besides."""
        calls = {(c.kind, attribute_key(c), tuple(map(self._actual, c.operands))): c for c in self.steps[-1]}
        own: dict[Value, Value] = {}
        found: dict[Value, Value] = {}
        final = {leaf.form: v for v, leaf in self.leaves.items() if self._order(leaf.step) == self.length - 1}
        for call in self.steps[TEMPLATE]:
            operands = []
            for value in call.operands:
                if value is None or value not in self.label:
                    operands.append(self._actual(value))
                elif value in self.leaves:
                    back = TEMPLATE - self.label[value]
                    operands.append(final[self.leaves[value].form] if back == 0 else None)
                elif self.label[value] == TEMPLATE:
                    operands.append(own.get(value))
                else:
                    _, j, r = self.place[value]
                    operands.append(self.steps[self.length - 2][j].results[r])
            match = calls.get((call.kind, attribute_key(call), tuple(operands)))
            if match is not None:
                for mine, theirs in zip(call.results, match.results, strict=True):
                    own[mine], found[theirs] = theirs, mine
        return found

    def _actual(self, value: Value | None) -> Any:
        return value if value is None or value in self.label else self._constant_key(value)

    def _collected(self) -> tuple[Collected, ...] | None:
        found = []
        for result, (pieces, axis, backward) in self.joins.items():
            piece = pieces[TEMPLATE]
            if piece in self.leaves or piece not in self.place:
                return None
            places = {self.place[p][1:] for p in pieces[1:-1] if p in self.place}
            if places != {self.place[piece][1:]}:
                return None
            found.append(Collected(result, piece, axis, backward))
        return tuple(found)

    def _read_outside(self, last: dict[Value, Value]) -> dict[Value, Value] | None:
        """Values of the last step that the rest of the model reads; None if it reads others."""
        matched = {self.listing.producer[v].position for v in last}
        steps = {call.position for calls in self.steps[:-1] for call in calls} | matched
        joins = {self.listing.producer[v].position for v in self.joins}
        outputs = set(self.listing.outputs.values())
        found: dict[Value, Value] = {}
        values = [r for calls in self.steps for c in calls if c.position in steps for r in c.results]
        for value in values:
            users = self.listing.users.get(value, [])
            if value not in outputs and all(u.position in steps or u.position in joins for u in users):
                continue
            if value not in last:
                return None
            found[value] = last[value]
        for value in self.leaves:
            users = self.listing.users.get(value, [])
            if (
                any(u.position not in steps and u.position not in joins for u in users)
                and self._order(self.leaves[value].step) != self.length - 1
            ):
                return None
        return found

    def _replaced(
        self, states: tuple[Carried, ...], collected: tuple[Collected, ...], last: dict[Value, Value]
    ) -> Listing | None:
        listing, template = self.listing, self.steps[TEMPLATE]
        inputs = {v: leaf for v, leaf in self.leaves.items() if self._order(leaf.step) == TEMPLATE}
        second = self.length - 2
        forms = {leaf.form: v for v, leaf in self.leaves.items() if self._order(leaf.step) == second}
        inputs = {v: leaf for v, leaf in inputs.items() if leaf.form in forms}
        outer = [
            v
            for call in template
            for v in call.operands
            if v is not None and v not in self.label and v not in listing.constants
        ]
        initial = [s.initial for s in states if s.initial is not None and s.initial not in listing.constants]
        operands = tuple(dict.fromkeys([leaf.source for leaf in inputs.values()] + outer + initial))
        if not collected and not last:
            return None
        body = listing_of(template, listing.constants)
        rolled = Rolled(
            listing,
            body,
            inputs,
            {v: forms[leaf.form] for v, leaf in inputs.items()},
            states,
            collected,
            last,
            self.length,
            self.backward,
            operands,
        )
        results = (*(c.result for c in collected), *last)
        sources = tuple(dict.fromkeys(name for calls in self.steps[:-1] for c in calls for name in c.provenance))
        call = Call("Steps", Op("onnx.Steps", {"rolled": rolled}), operands, results, sources, 0, ("?",) * len(results))
        gone = {c.position for calls in self.steps[:-1] for c in calls}
        gone |= {listing.producer[v].position for v in (*results, *self._mapped_last())}
        at = min(listing.producer[v].position for v in results)
        return _with_call(listing, call, gone, at)

    def _mapped_last(self) -> list[Value]:
        return list(self._last_step())


def attribute_key(call: Call) -> Any:
    """Attributes of a call in a form that can be compared; calls with subgraphs equal only themselves."""
    if call.op.name == "onnx.Steps" or call.op["regions"]:
        return call.position
    return tuple(sorted(a.SerializeToString(deterministic=True) for a in call.op["node"].attribute))


def listing_of(calls: Sequence[Call], constants: dict[Value, Array]) -> Listing:
    """A listing of some of another's calls."""
    found = Listing(constants=constants)
    for call in calls:
        _append(found, call)
    return found


def _append(listing: Listing, call: Call) -> None:
    new = Call(call.kind, call.op, call.operands, call.results, call.provenance, len(listing.calls), call.dtypes)
    listing.calls.append(new)
    for value in new.results:
        listing.producer[value] = new


def _with_call(listing: Listing, call: Call, gone: set[int], at: int) -> Listing:
    new = Listing([], listing.constants, listing.inputs, listing.outputs)
    for old in listing.calls:
        if old.position == at:
            _append(new, call)
        if old.position not in gone:
            _append(new, old)
    return new
