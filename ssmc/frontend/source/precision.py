"""Formats of few digits: how far a table that a file stores in one of them is from what was meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ssmc.frontend.source.listing import Listing
from ssmc.ir.graph import Value

WIDENING = frozenset(["Cast", "CastLike", "DequantizeLinear", "QuantizeLinear", "Shape", "Size"])
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-9}  # half a unit in the last place, relative


def coarsest_format(listing: Listing, declared: Iterable[str]) -> str:
    """The coarsest format in which a file computes, of what its values are declared as and its weights stored in.

    Weights that are widened before anything is computed do not count.
    """
    used = {*declared, *(dtype for call in listing.calls if call.kind != "Constant" for dtype in call.dtypes)}
    read = {v for call in listing.calls if call.kind not in WIDENING for v in call.operands if v is not None}
    used |= {listing.formats[v] for v in read & listing.formats.keys()}
    return _coarsest(used)


def coarsest_table(listing: Listing) -> str:
    """The coarsest format of the tables of cosines in which a file stores something else than what was meant."""
    return _coarsest({listing.formats[v] for v in listing.off.keys() & listing.formats.keys()})


def _coarsest(used: Collection[str]) -> str:
    return next((name for name in ("bfloat16", "float16") if name in used), "float32")


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


def cosines_off(listing: Listing, constants: Iterable[Value]) -> float:
    """By how much the file's tables of cosines behind these constants are off, relative; 0 where there are none."""
    return max((listing.off.get(v, 0.0) for v in _behind(listing, constants)), default=0.0) if listing.off else 0.0


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
