"""Steps that are rounded by a scale each: what tools that calibrate every node by itself make of an unrolled loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ssmc.frontend.findings import Refusal
from ssmc.frontend.reasons import Kind
from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value

FEWEST = 5  # that are steps rather than queries, keys and values (ours)
PIECES = frozenset(["Gather", "Slice", "Split"])


def with_scales(listing: Listing, refusals: Sequence[Refusal]) -> list[Refusal]:
    """The refusals, those of rounded steps with their scales, where these differ.

    Steps are pieces of one value, or what nodes of one kind make with one weight, and some of them are refused: norms
    of several layers may share a weight of ones, and are none.
    """
    refused = {r.node for r in refusals if r.op == "QuantizeLinear" and Kind.ROUNDING in r.kind}
    if not refused:
        return list(refusals)
    steps: dict[Any, list[float]] = defaultdict(list)
    concerned = set()
    for call in listing.calls:
        value, scale = (call.operands[0], _scale(listing, call)) if call.kind == "QuantizeLinear" else (None, None)
        source = None if value is None else listing.producer.get(value)
        if source is not None and scale is not None:
            for operand in _shared(listing, source):
                steps[source.kind, operand].append(scale)
                if call.name in refused:
                    concerned.add((source.kind, operand))
    uneven = [steps[key] for key in concerned if len(steps[key]) >= FEWEST and len(set(steps[key])) > 1]
    if not uneven:
        return list(refusals)
    reason = _reason(max(uneven, key=len))
    return [replace(r, reason=reason) if r.node in refused and r.op == "QuantizeLinear" else r for r in refusals]


def _shared(listing: Listing, call: Call) -> list[Value]:
    """What steps would have in common."""
    if call.kind in PIECES:
        return [v for v in call.operands[:1] if v is not None]
    arrays = {v: np.asarray(listing.constants[v]) for v in call.operands if v in listing.constants}
    return [v for v, array in arrays.items() if v is not None and array.dtype.kind == "f" and array.size > 1]


def _reason(scales: Sequence[float]) -> str:
    return (
        f"{len(scales)} steps are rounded by {len(set(scales))} different scales, from {min(scales):.3g} to "
        f"{max(scales):.3g}, so that no recurrence does what all of them do; calibrate the steps together "
        "(one scale for all), quantise the one-step model, or have the rounding left out and what that changes told "
        "(--drop-rounding)"
    )


def _scale(listing: Listing, call: Call) -> float | None:
    """The one scale by which a node rounds; None where it has several, or computes it."""
    value = call.operands[1]
    array = None if value is None else listing.constants.get(value)
    return float(np.reshape(array, -1)[0]) if array is not None and np.size(array) == 1 else None
