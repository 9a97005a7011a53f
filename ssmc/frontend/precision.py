"""Formats of few digits: how far a table that a file stores in one of them is from what was meant."""

from __future__ import annotations

from collections.abc import Iterable

from ssmc.frontend.listing import Listing
from ssmc.ir.graph import Value

ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-9}  # half a unit in the last place, relative


def stored_rounding(listing: Listing, constants: Iterable[Value]) -> float:
    """The rounding, relative, of the coarsest weights behind these constants; 0 where all have float32's digits.

    Powers of a decay, say, that the file has in float16 are powers of no number to more digits than that.
    """
    coarsest, seen = 0.0, set()
    waiting = list(constants)
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        coarsest = max(coarsest, ROUNDING.get(listing.formats.get(value, ""), 0.0))
        call = listing.producer.get(value)
        if call is not None:
            waiting += [v for v in call.operands if v is not None]
    return coarsest
