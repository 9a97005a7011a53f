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


def bends(moved: Callable[[Array], Array], shape: tuple[int, ...]) -> bool:
    """Is every element linear in its own one near by, if not far away, as a potential with a threshold is?"""
    small = NEAR * np.random.default_rng(2).uniform(1.0, 2.0, shape)
    odd = np.indices(shape).sum(axis=0) % 2
    with np.errstate(all="ignore"):
        near, double, lone = moved(small), moved(2 * small), moved(np.where(odd, small, 0))
        slope = near / small
    straight = np.abs(double - 2 * near) <= TOLERANCE * NEAR
    apart = np.abs(lone) <= TOLERANCE * NEAR + np.abs(np.where(odd, near, 0))
    return bool(straight.mean() > 0.5 and apart.mean() > 0.5 and np.any(slope))


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
