"""Parallel scans of logarithmic depth whose number of levels was fixed when the file was traced.

A scan that doubles its shifts (Hillis and Steele, doi:10.1145/7902.7903) or halves its steps (Blelloch, CMU-CS-90-190)
has as many levels as the length has bits; unrolled over a dynamic length, it is right as far as those reach.
"""

from __future__ import annotations

import numpy as np

from ssmc.frontend.findings import Refusal
from ssmc.frontend.source.listing import Call, Listing

FEWEST = 3  # shifts by 1, 2, 4, or halvings, that tell such a scan (ours)
FARTHEST = 1 << 13  # steps up to which files are run to see how far their levels reach (ours)


def reach(listing: Listing) -> int:
    """So many steps the file's shifts by 1, 2, 4 and so on reach; 0 where there are none, or they reach far."""
    shifts = _shifts(listing)
    found = 1
    while found in shifts:
        found *= 2
    return found if 1 << FEWEST <= found <= FARTHEST else 0


def fixed_levels(listing: Listing) -> Refusal | None:
    """The node that tells a fixed number of levels, for a file that is another model at another length."""
    steps, shifts = reach(listing), _shifts(listing)
    if steps:
        call, levels = shifts[steps // 2], steps.bit_length() - 1
        return _refusal(call, f"the last of {levels} levels of a scan that doubles its shifts", f"up to {steps} steps")
    halved: dict[object, int] = {}
    deepest: tuple[int, Call] | None = None
    for call in listing.calls:
        behind = max((halved.get(v, 0) for v in call.operands if v is not None), default=0)
        depth = behind + (2 in _constants(listing, call, 4) if call.kind == "Slice" else 0)
        halved.update((value, depth) for value in call.results)
        if deepest is None or depth > deepest[0]:
            deepest = depth, call
    if deepest is None or deepest[0] < FEWEST:
        return None
    return _refusal(deepest[1], f"the last of {deepest[0]} levels of a scan that halves its steps", "at that length")


def _refusal(call: Call, what: str, where: str) -> Refusal:
    reason = f"{what}; their number was fixed at the length that was traced, and the file is right {where} only"
    return Refusal(call.name, call.kind, reason)


def _shifts(listing: Listing) -> dict[int, Call]:
    """By how many steps constants slice or pad, and the first node that does."""
    found: dict[int, Call] = {}
    for call in listing.calls:
        numbers = _constants(listing, call, 1) if call.kind == "Pad" else set()
        if call.kind == "Slice":
            numbers = _constants(listing, call, 1) | {-n for n in _constants(listing, call, 2)}
        for number in numbers:
            found.setdefault(number, call)
    return found


def _constants(listing: Listing, call: Call, slot: int) -> set[int]:
    value = call.operands[slot] if len(call.operands) > slot else None
    array = None if value is None else listing.constants.get(value)
    return set() if array is None else {int(n) for n in np.ravel(np.asarray(array))}
