"""One-step models whose cache is a ring: a counter, modulo its size, gives the place at which a step is written.

The counter is no data that drives the step; what it picks is computed from its number, as from any other input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value


def counters(listing: Listing, point: Mapping[Value, Any]) -> set[str]:
    """The inputs that count the steps, as which the places in rings are told."""
    found: set[str] = set()
    for call, size in _places(listing, point):
        if any(_is_written(listing, point, call, size, name) for name in _floats(listing, point)):
            read = {v for other in listing.needed(call.results, ()) for v in other.operands}
            found |= {name for name, value in listing.inputs.items() if value in read}
    return found


def _places(listing: Listing, point: Mapping[Value, Any]) -> Iterator[tuple[Call, int]]:
    """Remainders of counters, and what they are divided by."""
    single = {
        value
        for value in listing.inputs.values()
        if np.asarray(point[value]).dtype.kind in "iu" and np.size(point[value]) == 1
    }
    counted = listing.influenced(single) if single else set[Value]()
    for call in listing.calls:
        size = _divisor(listing, call) if call.kind == "Mod" and call.operands[0] in counted else 0
        if size > 1:
            yield call, size


def _floats(listing: Listing, point: Mapping[Value, Any]) -> list[str]:
    """Inputs of real numbers, the largest first."""
    names = [name for name, value in listing.inputs.items() if np.asarray(point[value]).dtype.kind == "f"]
    return sorted(names, key=lambda name: -np.size(point[listing.inputs[name]]))


def _is_written(listing: Listing, point: Mapping[Value, Any], call: Call, size: int, name: str) -> bool:
    """Is an input as long as the ring, and an output of its shape it with what is written at the place?"""
    shape, placed = np.shape(point[listing.inputs[name]]), listing.influenced(call.results)
    if size not in shape:
        return False
    kept = listing.influenced([listing.inputs[name]])
    following = [v for v in listing.outputs.values() if v in placed and v in kept]
    return any(found == shape for found in _shapes(listing, point, following))


def _shapes(listing: Listing, point: Mapping[Value, Any], values: Sequence[Value]) -> list[tuple[int, ...]]:
    try:
        found = evaluate(listing, dict(point), values)
    except (UserError, ValueError):
        return []
    return [np.shape(found[v]) for v in values]


def _divisor(listing: Listing, call: Call) -> int:
    value = call.operands[1]
    array = None if value is None else listing.constants.get(value)
    return int(np.ravel(array)[0]) if array is not None and np.size(array) == 1 else 0
