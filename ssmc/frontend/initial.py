"""States that an unrolled loop starts from but does not show, since the first step was simplified: solved for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.evaluate import evaluate
from ssmc.frontend.listing import list_calls
from ssmc.ir.op import Array

MAX_UNKNOWNS = 1024
TOLERANCE = 1e-6  # as in `reroll`


def solve_initial(plan: Any, attempt: Any, survey: Any) -> dict[tuple[int, int], Array] | None:
    """Constant initial values with which a plan gives what the unrolled nodes give; None where there are none.

    The outputs are affine in the initial values of a linear recurrence, so that a probe of each value tells all.
    """
    made_up: dict[tuple[int, int], Any] = attempt.made_up[plan]
    if not made_up:
        return None
    listing = list_calls(attempt.graph)
    pairs = [(old, new) for old, new, owner in attempt.replaced if owner is plan]
    point = survey.points[0]
    old = evaluate(survey.listing, point, [a for a, _ in pairs])
    expected = _flat([old[a] for a, _ in pairs])
    shapes = {key: _one_sample(plan.state_shapes(plan.histories[key[0]])) for key in made_up}
    sizes = {key: int(np.prod(shape)) for key, shape in shapes.items()}
    count = sum(sizes.values())
    if count > MAX_UNKNOWNS:
        return None
    operands = [v for v in attempt.graph.operands(attempt.scans[plan].node) if v not in made_up.values()]
    try:
        given = evaluate(listing, point, operands)
    except UserError:
        return None
    full = {key: plan.state_shapes(plan.histories[key[0]])[0] for key in made_up}

    def split(x: Array) -> dict[tuple[int, int], Array]:
        parts, start = {}, 0
        for key, size in sizes.items():
            parts[key] = x[start : start + size].reshape(shapes[key])
            start += size
        return parts

    def respond(x: Array) -> Array:
        feed = dict(given)
        feed.update((made_up[key], np.broadcast_to(part, full[key])) for key, part in split(x).items())
        found = evaluate(listing, feed, [b for _, b in pairs])
        return _flat([found[b] for _, b in pairs])

    try:
        x = _solve(respond, expected, count)
    except UserError:
        return None
    return None if x is None else split(x)


def _solve(respond: Callable[[Array], Array], expected: Array, count: int) -> Array | None:
    base = respond(np.zeros(count))
    if base.shape != expected.shape or not np.isfinite(base).all():
        return None
    matrix = np.stack([respond(unit) - base for unit in np.eye(count)], axis=1)
    x: Array = np.linalg.lstsq(matrix, expected - base, rcond=None)[0]
    error = float(np.abs(respond(x) - expected).max(initial=0.0))
    return x if error <= TOLERANCE * max(float(np.abs(expected).max(initial=0.0)), 1e-12) else None


def _flat(arrays: list[Any]) -> Array:
    return np.concatenate([np.asarray(a, np.float64).reshape(-1) for a in arrays])


def _one_sample(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of a state, with size one where it follows the batch."""
    return tuple(d if all(other[i] == d for other in shapes) else 1 for i, d in enumerate(shapes[0]))
