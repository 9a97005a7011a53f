"""A one-step model at one point: what its outputs hold there, and how they move with one of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ssmc.frontend.source.evaluate import evaluate, evaluator
from ssmc.frontend.source.listing import Listing
from ssmc.frontend.states.stabilised import MAXIMA
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

TOLERANCE = 1e-8  # how far from affine a move may be, for one of size 1
NEAR = 1e-3  # a move that few elements cross a threshold by
COMPARISONS = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Sign"}
PLACES = (0.0, -10.0, 10.0)  # here, and where all neurons rest, or fire
FAR = 1e3  # a move that all cross it by
LOOSE = 1e-6  # how far off a line of a slope found near by it may be, for a move of size 1
HALVINGS = 40  # leave 1e-9 of FAR, across which a kink is less than
JUMP = 1e-4


@dataclass(frozen=True, eq=False)
class Step:
    """A one-step model; `point` are sample arrays of all inputs, `outputs` what the outputs, by name, hold there."""

    listing: Listing
    point: Mapping[Value, Array]
    outputs: Mapping[str, Array]

    @classmethod
    def at(cls, listing: Listing, point: Mapping[Value, Array]) -> Step:
        """The model run at a point."""
        found = evaluate(listing, point, listing.outputs.values())
        return cls(listing, point, {name: np.asarray(found[value]) for name, value in listing.outputs.items()})

    def shape(self, source: str) -> tuple[int, ...]:
        """The shape of an input."""
        return np.shape(self.point[self.listing.inputs[source]])


@dataclass(frozen=True, eq=False)
class Moves:
    """How the outputs move with one input: each move of the input is run once, for all of them.

    `local` is the step's point; it may know values on the way that do not depend on the input. `reached` are those to
    be looked at.
    """

    step: Step
    local: Mapping[Value, Array]
    source: str
    reached: Set[Value]
    found: dict[bytes, dict[Value, Array]] = field(default_factory=dict)

    @cached_property
    def x(self) -> Value:
        """The input that moves."""
        return self.step.listing.inputs[self.source]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.step.shape(self.source)

    @cached_property
    def compared(self) -> bool:
        """Does the input meet a maximum, at once or after one node?"""
        users = self.step.listing.users
        after = (call for user in users[self.x] for v in user.results for call in users.get(v, []))
        return any(call.kind in MAXIMA for call in (*users[self.x], *after))

    @cached_property
    def _fired(self) -> Set[Value]:
        """What follows from comparisons with the input."""
        listing = self.step.listing
        reached = listing.influenced({self.x}) if any(call.kind in COMPARISONS for call in listing.calls) else set()
        comparing = [c for c in listing.calls if c.kind in COMPARISONS and reached.intersection(c.operands)]
        return listing.influenced({v for call in comparing for v in call.results})

    def fires(self, target: str) -> bool:
        """Can an output jump as the input moves, for its ops alone?"""
        return self.step.listing.outputs[target] in self._fired

    def of(self, target: str) -> Callable[[Array], Array]:
        """The function from moves of the input to those of an output."""
        value, base = self.step.listing.outputs[target], self.step.outputs[target]

        def moved(move: Array) -> Array:
            key = np.asarray(move, np.float64).tobytes()
            if key not in self.found:
                self.found[key] = self._run({**self.local, self.x: self.local[self.x] + move})
            return np.asarray(self.found[key][value]) - base

        return moved

    @cached_property
    def _run(self) -> Callable[[Mapping[Value, Array]], dict[Value, Array]]:
        listing, outputs = self.step.listing, self.step.outputs
        wanted = [v for n, v in listing.outputs.items() if v in self.reached and outputs[n].shape == self.shape]
        return evaluator(listing, self.local.keys(), wanted)


def bends(moved: Callable[[Array], Array], shape: tuple[int, ...], places: Sequence[float] = (0.0,)) -> bool:
    """Is every element linear in its own one near by, if not far away, as a potential with a threshold is?"""
    return any(_bends_at(moved, np.full(shape, place)) for place in places)


def _bends_at(moved: Callable[[Array], Array], place: Array) -> bool:
    small = NEAR * np.random.default_rng(2).uniform(1.0, 2.0, place.shape)
    odd = np.indices(place.shape).sum(axis=0) % 2
    with np.errstate(all="ignore"):
        here = moved(place)
        near, double, lone = (moved(place + m) - here for m in (small, 2 * small, np.where(odd, small, 0)))
    straight = np.abs(double - 2 * near) <= TOLERANCE * NEAR
    apart = np.abs(lone - np.where(odd, near, 0)) <= TOLERANCE * NEAR
    moving = (near != 0) | (lone != 0)
    return bool(moving.any() and (straight & apart)[moving].mean() > 0.5)


def is_still(moved: Callable[[Array], Array], shape: tuple[int, ...]) -> bool:
    """Does an output stay the same for small moves, if not for larger ones, as spikes do?"""
    return not np.any(moved(NEAR * np.random.default_rng(2).uniform(1.0, 2.0, shape)))


def jumps(moved: Callable[[Array], Array], shape: tuple[int, ...]) -> bool:
    """Does an output, linear near by, leave its straight line with a jump, as a reset does, and not with a kink?"""
    direction = np.random.default_rng(2).uniform(1.0, 2.0, shape)
    with np.errstate(all="ignore"):
        slope = moved(NEAR * direction) / NEAR

        def off(size: float) -> bool:
            return bool(np.any(np.abs(moved(size * direction) - size * slope) > LOOSE * max(abs(size), 1.0)))

        for beyond in (FAR, -FAR):
            on = 0.0
            if not off(beyond):
                continue
            for _ in range(HALVINGS):
                middle = (on + beyond) / 2
                on, beyond = (on, middle) if off(middle) else (middle, beyond)
            across = moved(beyond * direction) - moved(on * direction)
            if np.abs(across).max(initial=0.0) > JUMP:
                return True
    return False


def shifted(step: Step, source: str, target: str) -> bool:
    """Is an output what an input holds, in other places and without a part of it, as the next value of a cache is?"""
    before, after = np.asarray(step.point[step.listing.inputs[source]]), step.outputs[target]
    if before.shape != after.shape or after.size < 2:
        return False
    kept = np.isin(after, before)
    return bool(kept.any() and not kept.all() and (after != before).all())


def handed_through(step: Step, source: str, targets: Sequence[str]) -> bool:
    """Does one of some outputs move just as an input does?"""
    x, values = step.listing.inputs[source], [step.listing.outputs[target] for target in targets]
    move = np.random.default_rng(3).uniform(0.5, 1.5, step.shape(source))
    found = evaluate(step.listing, {**step.point, x: step.point[x] + move}, values)
    moved = (np.asarray(found[value]) - step.outputs[target] for target, value in zip(targets, values, strict=True))
    return any(m.shape == move.shape and np.abs(m - move).max(initial=0.0) <= TOLERANCE for m in moved)
