"""Loops that an exporter unrolled over an axis which the file declares dynamic: right at the traced size alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Refusal
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.interface import concrete_shapes, is_dynamic, sample_inputs
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.operands import slices_of
from ssmc.frontend.source.sizes import BATCH, DIVISIBLE
from ssmc.ir.graph import Value
from ssmc.ir.types import TensorType

FEWEST = 3  # single steps from the first one on that tell a loop from a model that looks at its first steps (ours)
FIRST = 4  # of such loops, in the order of the file, that are looked at: where one is too short, so are all (ours)
AXES = ("batch", "length")
ENTRIES = ("sequences", "steps")
RANK = 1 << 10  # of nothing: an axis counted from the end comes out beyond the half of it


def unrolled_size(listing: Listing, types: Mapping[str, TensorType], length: int) -> Refusal | None:
    """The node that takes the first of the steps of an unrolled loop, where there may be more steps than it takes.

    Such a file runs at any size, and leaves out what comes after the traced one.
    """
    dynamic = is_dynamic(types)
    if not any(dynamic):
        return None
    loops = [
        (source, axis, size, taken)
        for (source, axis, size), taken in _taken(listing).items()
        if len(taken) >= FEWEST and sorted(taken) == list(range(0, size * len(taken), size))
    ][:FIRST]
    whole = {d for kind in types.values() for d in (kind.shape or ())[1:]}  # lengths that are given
    loops = [loop for loop in loops if dynamic[1] or loop[2] * len(loop[3]) not in whole]
    for k, which in enumerate(AXES):
        found = _follows(listing, types, [loop[:2] for loop in loops], k, length) if dynamic[k] and loops else []
        for (_, _, size, taken), follows in zip(loops, found, strict=False):
            if follows:
                what = ENTRIES[k] if size == 1 else f"chunks of {size} {ENTRIES[k]}"
                reason = (
                    f"the first of {len(taken)} {what} that the file takes one by one, as an unrolled loop does; "
                    f"it declares the {which} dynamic, and would leave out all further {ENTRIES[k]}"
                )
                return Refusal(taken[0].name, taken[0].kind, reason)
    return None


def _taken(listing: Listing) -> dict[tuple[Value, int, int], dict[int, Call]]:
    """Which entries of an axis the file takes by constant numbers: by value, axis and how many, first -> node."""
    found: dict[tuple[Value, int, int], dict[int, Call]] = defaultdict(dict)
    for call in listing.calls:
        place = _part(listing, call)
        if place is not None:
            axis, start, size = place
            found[call.operands[0], axis, size].setdefault(start, call)  # type: ignore[index]
    return found


def _part(listing: Listing, call: Call) -> tuple[int, int, int] | None:
    """Axis, first number and how many of the entries that a node takes; None where they are counted from the end."""
    if call.kind not in ("Gather", "Slice") or call.operands[0] is None or call.operands[0] in listing.constants:
        return None
    told = [None if v is None else listing.constants.get(v) for v in call.operands[1:]]
    if any(t is None and v is not None for t, v in zip(told, call.operands[1:], strict=True)):
        return None
    if call.kind == "Gather":
        numbers, axis = np.ravel(np.asarray(told[0])), int(call.attrs.get("axis", 0))
        return (axis, int(numbers[0]), 1) if numbers.size == 1 and axis >= 0 <= numbers[0] else None
    try:
        ((axis, part),) = slices_of([None, *told], call.attrs, RANK)
    except (KeyError, TypeError, ValueError):  # no node says so in any form that there is
        return None
    regular = part.step in (None, 1) and part.start is not None and part.stop is not None
    return (
        (axis, part.start, part.stop - part.start)
        if regular and 0 <= part.start < part.stop and axis < RANK // 2
        else None
    )


def _follows(
    listing: Listing, types: Mapping[str, TensorType], places: Sequence[tuple[Value, int]], which: int, length: int
) -> list[bool]:
    """Which axes of values are twice as large where the batch (0) or the length (1) is."""
    for steps in (length, *DIVISIBLE):
        sizes = []
        for times in (1, 2):
            shapes = concrete_shapes(types, *((BATCH * times, steps) if which == 0 else (BATCH, steps * times)))
            point = sample_inputs(listing, shapes, types, 0)
            try:
                found = evaluate(listing, point, [value for value, _ in places])
            except (UserError, KeyError):  # it does not run at this size
                break
            shaped = [np.shape(found[value]) for value, _ in places]
            sizes.append([s[axis] if axis < len(s) else 0 for s, (_, axis) in zip(shaped, places, strict=True)])
        if len(sizes) == 2:
            return [0 < 2 * a == b for a, b in zip(*sizes, strict=True)]
    return []
