"""At which sizes a file whose axes are dynamic is studied, and proved."""

from __future__ import annotations

import numpy as np

from ssmc.frontend.listing import Listing

BATCH, LENGTH = 3, 11
LONGEST = 1 << 14
MORE = 6  # steps more, or fewer, at the other length of a proof
WIDE = 256  # steps that tell the modes of a stored kernel (ours)
STRIDES = 64  # how many times longer the studied length gets for strides in the file, at most (ours)
INDIVISIBLE = "cannot become"  # what a refusal says that another length may spare (axes that a Reshape makes)
DIVISIBLE = (48, 160, 448)  # lengths to study where the file splits its steps into windows


def studied_length(listing: Listing, stored: int) -> int:
    """Steps to study a dynamic length at: more than the taps of any filter in the file, so that its end is seen.

    `stored` are the steps that the file has weights for, 0 where that is no matter.
    """
    weights = [listing.constants.get(c.operands[1]) for c in listing.calls if c.kind == "Conv"]  # type: ignore[arg-type]
    taps = [int(w.shape[2]) for w in weights if w is not None and np.ndim(w) == 3]
    longest, least = max(taps, default=0), LENGTH * strides(listing)
    if longest >= LENGTH - 2:
        return min(max(longest + 8, least), LONGEST)
    # A stored kernel that is sliced to the length: as much of it as tells its modes.
    return min(max(stored, least), max(WIDE, least))


def strides(listing: Listing) -> int:
    """How many steps become one in the file, as far as its filters and poolings tell."""
    found = 1
    for call in listing.calls:
        if call.kind in ("Conv", "AveragePool", "MaxPool"):
            found *= max(call.attrs.get("strides", [1]), default=1)
    return min(int(found), STRIDES)


def other_length(length: int, stored: int, stride: int = 1, least: int = 0) -> int:
    """A length that differs, not longer than what is `stored`; at least `least` where that allows."""
    more = length if length in DIVISIBLE else MORE * stride
    if stored and length + more > stored:
        return length - MORE
    times = max(1, -(-(least - length) // more))
    return length + more * (times if not stored else min(times, (stored - length) // more))


def stored_steps(listing: Listing) -> list[int]:
    """How long the weights are that the file slices to a length that it computes."""
    found = []
    for call in listing.calls:
        table = None if call.kind != "Slice" or call.operands[0] is None else listing.constants.get(call.operands[0])
        bounds = [v for v in call.operands[1:3] if v is not None and v not in listing.constants]
        if table is None or not bounds or np.ndim(table) < 1 or table.dtype.kind != "f":
            continue
        axes = listing.constants.get(call.operands[3]) if len(call.operands) > 3 and call.operands[3] else np.zeros(1)
        if axes is not None:
            found += [int(table.shape[int(a)]) for a in np.atleast_1d(axes) if table.ndim > int(a) >= -table.ndim]
    return found
