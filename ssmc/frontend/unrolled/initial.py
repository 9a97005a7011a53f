"""States that an unrolled loop starts from but does not show, since the first step was simplified: solved for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Listing
from ssmc.frontend.unrolled.attempt import Attempt
from ssmc.frontend.unrolled.scans import Plan
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

MAX_UNKNOWNS = 512
TOLERANCE = 1e-6  # as in `reroll`

Key = tuple[int, int]
Shape = tuple[int, ...]


def solve_initial(plan: Plan, attempt: Attempt) -> dict[Key, Array] | None:
    """Constant initial values with which a plan gives what the unrolled nodes give; None where there are none.

    The outputs are affine in the initial values of a linear recurrence, so that a probe of each value tells all. Values
    that are the same for every sample of the batch are tried first.
    """
    made_up = attempt.made_up[plan]
    if not made_up:
        return None
    survey, listing = plan.survey, attempt.listing
    pairs = [(old, new) for old, new, owner in attempt.replaced if owner is plan]
    point = survey.points[0]
    old = evaluate(survey.listing, point, [a for a, _ in pairs])
    expected = _flat([old[a] for a, _ in pairs])
    operands = [v for v in attempt.graph.operands(attempt.scans[plan].node) if v is not None]
    whole = {key: plan.state_shapes(plan.histories[key[0]]) for key in made_up}
    try:
        given = evaluate(listing, point, [v for v in operands if v not in made_up.values()])

        def respond(parts: Mapping[Key, Array]) -> Array:
            feed = dict(given)
            feed.update((made_up[key], np.broadcast_to(part, whole[key][0])) for key, part in parts.items())
            found = evaluate(listing, feed, [b for _, b in pairs])
            return _flat([found[b] for _, b in pairs])

        for tied in (True, False):
            found = _solve(respond, expected, {key: _one_sample(shapes, tied) for key, shapes in whole.items()})
            if found is not None:
                feed = {made_up[key]: np.broadcast_to(part, whole[key][0]) for key, part in found.items()}
                return found if _holds(survey.listing, listing, pairs, point, feed) else None
    except UserError:
        return None
    return None


def _holds(
    before: Listing,
    after: Listing,
    pairs: list[tuple[Value, Value]],
    point: Mapping[Value, Any],
    feed: Mapping[Value, Any],
) -> bool:
    """Are they right for other data too? With enough of them there are some for any data."""
    rng = np.random.default_rng(0)
    other = {v: rng.permutation(np.ravel(array)).reshape(np.shape(array)) for v, array in point.items()}
    old = evaluate(before, other, [a for a, _ in pairs])
    new = evaluate(after, {**other, **feed}, [b for _, b in pairs])
    expected = _flat([old[a] for a, _ in pairs])
    missed = float(np.abs(_flat([new[b] for _, b in pairs]) - expected).max(initial=0.0))
    return missed <= TOLERANCE * max(float(np.abs(expected).max(initial=0.0)), 1e-12)


def _solve(
    respond: Callable[[Mapping[Key, Array]], Array], expected: Array, shapes: Mapping[Key, Shape]
) -> dict[Key, Array] | None:
    count = sum(map(prod, shapes.values()))
    if count > MAX_UNKNOWNS:
        return None

    def split(x: Array) -> dict[Key, Array]:
        parts, start = {}, 0
        for key, shape in shapes.items():
            parts[key] = x[start : start + prod(shape)].reshape(shape)
            start += prod(shape)
        return parts

    base = respond(split(np.zeros(count)))
    if base.shape != expected.shape or not np.isfinite(base).all():
        return None
    matrix = np.stack([respond(split(unit)) - base for unit in np.eye(count)], axis=1)
    if not np.isfinite(matrix).all():
        return None
    x: Array = np.linalg.lstsq(matrix, expected - base, rcond=None)[0]
    error = float(np.abs(respond(split(x)) - expected).max(initial=0.0))
    return split(x) if error <= TOLERANCE * max(float(np.abs(expected).max(initial=0.0)), 1e-12) else None


def _flat(arrays: list[Any]) -> Array:
    return np.concatenate([np.asarray(a, np.float64).reshape(-1) for a in arrays])


def _one_sample(shapes: list[Shape], tied: bool) -> Shape:
    """The shape of a state, with size one where it follows the batch (or may be the batch: the first axis)."""
    return tuple(
        1 if (tied and i == 0 and len(shapes[0]) > 1) or any(other[i] != d for other in shapes) else d
        for i, d in enumerate(shapes[0])
    )
