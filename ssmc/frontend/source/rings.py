"""One-step models whose cache is a ring: a counter, modulo its size, gives the place at which a step is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Refusal
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value

RING = (
    "it tells the place in a ring of {size} steps at which the cache '{cache}' is written, and the taps of a causal "
    "convolution turn with it: what a step reads and writes then depends on a number of the data. Export the cache as "
    "the last steps in their order (torch.cat([cache[..., 1:], x[..., None]], -1)), which is lifted"
)


def ring(listing: Listing, point: Mapping[Value, Any]) -> Refusal | None:
    """The node that gives the place in a ring, where an output is the next value of a cache that is one."""
    shapes = {name: np.shape(point[value]) for name, value in listing.inputs.items()}
    kinds = {name: np.asarray(point[value]).dtype.kind for name, value in listing.inputs.items()}
    counters = {listing.inputs[n] for n, shape in shapes.items() if kinds[n] in "iu" and np.prod(shape, dtype=int) == 1}
    counted = listing.influenced(counters) if counters else set()
    for call in listing.calls:
        size = _divisor(listing, call) if call.kind == "Mod" and call.operands[0] in counted else 0
        if size < 2:
            continue
        placed = listing.influenced(call.results)
        for name, value in sorted(listing.inputs.items(), key=lambda item: -int(np.prod(shapes[item[0]], dtype=int))):
            if kinds[name] == "f" and size in shapes[name]:
                kept = listing.influenced([value])
                following = [v for v in listing.outputs.values() if v in placed and v in kept]
                if any(shape == shapes[name] for shape in _shapes(listing, point, following)):
                    return Refusal(call.name, call.kind, RING.format(size=size, cache=name))
    return None


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
