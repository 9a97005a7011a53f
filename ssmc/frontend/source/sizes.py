"""At which sizes a file whose axes are dynamic is studied, and proved."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.interface import concrete_shapes
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.taps import taps
from ssmc.ir.types import TensorType

BATCH, LENGTH = 3, 11
LONGEST = 1 << 14
MORE = 6  # steps more, or fewer, at the other length of a proof
WIDE = 256  # steps that tell the modes of a stored kernel (ours)
SEEN = 8  # steps behind the end of a filter (ours)
STRIDES = 64  # how many times longer the studied length gets for strides in the file, at most (ours)
DIVISIBLE = (48, 160, 448)  # lengths to study where the file splits its steps into windows
ENDING = (128, 1024)  # lengths to study where filters have as many taps as steps: rounded kernels end (ours)


def studied_length(listing: Listing, stored: int, types: Mapping[str, TensorType], shifts: bool) -> int:
    """Steps to study a dynamic length at: more than any filter, window or shift of the file spans, to see its end.

    `stored` are the steps that the file has weights for, 0 where that is no matter. Without `shifts`, those of a scan
    whose levels were fixed, what shifts does not count.
    """
    spans = taps(listing, shifts) + [size for call in listing.calls for size in _filled_up(listing, call, types)]
    longest, stride = max(spans, default=0), strides(listing)
    least = LENGTH * stride
    if longest >= LENGTH - 2:
        return min(max(-(-(longest + SEEN) // stride) * stride, least), LONGEST)
    # A stored kernel that is sliced to the length: as much of it as tells its modes.
    return min(max(stored, least), max(WIDE, least))


def _filled_up(listing: Listing, call: Call, types: Mapping[str, TensorType]) -> list[int]:
    """Axes of a stored table, a kernel say, that the file fills up with zeros to a length that it computes."""
    if call.kind not in ("Pad", "DFT") or len(call.operands) < 2:
        return []
    table, size = listing.constants.get(call.operands[0]), call.operands[1]  # type: ignore[arg-type]
    if table is None or table.dtype.kind != "f" or size is None or size in listing.constants:
        return []
    if call.kind == "DFT":
        given = call.operands[2] if len(call.operands) > 2 else None
        axis = call.attrs.get("axis", 1 if given is None else listing.constants.get(given))
        return [] if axis is None else [int(table.shape[int(axis)])]
    shapes = concrete_shapes(types, 1, LONGEST)
    point = {v: np.broadcast_to(np.zeros((), types[name].dtype), shapes[name]) for name, v in listing.inputs.items()}
    try:
        pads = np.ravel(evaluate(listing, point, [size])[size]).reshape(2, -1)
    except (UserError, ValueError):
        return []
    axes = range(table.ndim) if len(call.operands) < 4 else np.ravel(listing.constants.get(call.operands[3], ()))  # type: ignore[arg-type]
    return [int(table.shape[int(axis)]) for axis, more in zip(axes, pads.max(axis=0), strict=False) if more > 0]


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
