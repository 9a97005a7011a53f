"""Whole numbers that the file holds its lengths and counts of steps against: behind them it may be another model."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from ssmc.frontend.source.evaluate import body_of
from ssmc.frontend.source.listing import Listing
from ssmc.ir.graph import Value

COMPARED = frozenset(["Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Min", "Max", "Clip", "Mod"])
SIZES = frozenset(["Shape", "Size"])
MOST = 1 << 13  # whole numbers beyond this are taken for no lengths (ours)
SEEN = 8  # steps behind a bound, which show what is otherwise there (ours)
MOST_WORK = 1 << 30  # steps times weights that are run once more to see (ours)


def behind_bounds(listing: Listing, cut: int = 0) -> int:
    """A length behind all that lengths and numbers of steps are compared with, and at which they may be `cut`; 0 where
    there is nothing of the kind, or where so many steps take long."""
    bound = max(_bounds(listing, set(listing.inputs.values())), default=0)
    bound = max(bound, cut)
    weights = sum(int(np.size(a)) for a in listing.constants.values())
    return bound + SEEN if 0 < bound * (weights + len(listing.calls)) <= MOST_WORK else 0


def _bounds(listing: Listing, data: Collection[Value]) -> Iterator[int]:
    found = set(data)
    for call in listing.calls:
        of_data = call.kind not in SIZES and any(v in found for v in call.operands)
        if of_data:
            found.update(call.results)
        elif call.kind in COMPARED:
            told = [listing.constants[v] for v in call.operands if v in listing.constants]
            if len(told) < len(call.operands):
                whole = (int(np.ravel(a)[0]) for a in map(np.asarray, told) if a.size == 1 and a.dtype.kind in "iu")
                yield from (number for number in whole if 0 < number <= MOST)
        for name in call.op["regions"] if "regions" in call.op.attrs else ():
            body = body_of(call, name)
            inputs = list(body.inputs.values())
            counts = inputs[:1] if call.kind == "Loop" else []
            yield from _bounds(body, set(inputs) - set(counts))
