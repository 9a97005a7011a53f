"""Formats of few digits: how far a table that a file stores in one of them is from what was meant."""

from __future__ import annotations

from collections.abc import Iterable

from ssmc.frontend.listing import Listing
from ssmc.ir.graph import Value

ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-9}  # half a unit in the last place, relative


def stored_rounding(listing: Listing, constants: Iterable[Value]) -> float:
    """The rounding, relative, of the coarsest weights behind these constants; 0 where all have float32's digits.

    Tables of cosines count with what their angles were rounded by: what the file made of them before has it still.

    Powers of a decay, say, that the file has in float16 are powers of no number to more digits than that.
    """
    return max(
        (
            max(ROUNDING.get(listing.formats.get(v, ""), 0.0), listing.off.get(v, 0.0))
            for v in _behind(listing, constants)
        ),
        default=0.0,
    )


def has_cosines(listing: Listing, constants: Iterable[Value]) -> bool:
    """Are there tables of cosines behind these constants?"""
    return bool(listing.off) and any(value in listing.off for value in _behind(listing, constants))


def _behind(listing: Listing, constants: Iterable[Value]) -> set[Value]:
    """These constants, and what they are made of."""
    seen = set[Value]()
    waiting = list(constants)
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        call = listing.producer.get(value)
        if call is not None:
            waiting += [v for v in call.operands if v is not None]
    return seen
