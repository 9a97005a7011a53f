"""Stacks of layers that a file goes through in a loop, their weights stacked: one layer after the other again.

`jax.lax.scan` over the layers of a model, and scripted loops over filter sections, become a Loop or a Scan that carries
whole sequences and takes its weights by the number of the trip. So does a loop within a one-step model that gives no
more than what it carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssmc.frontend.loops.limits import MOST_CHUNKS
from ssmc.frontend.loops.trips import expanded_throughout, trips_of
from ssmc.frontend.source.evaluate import body_of
from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value

TEMPORAL = frozenset(["Scan", "Loop", "DFT", "CumSum", "Conv", "LinearAttention", "CausalConvWithState"])
PICKS = frozenset(
    ["Gather", "GatherND", "GatherElements", "Slice", "ScatterND", "ScatterElements", "SequenceAt", "SequenceInsert"]
)


def in_layers(listing: Listing, point: Mapping[Value, Any]) -> Listing:
    """The listing with each loop over layers as the layers themselves; itself where there is none.

    `point` are arrays of all inputs, at which ranks are looked at.
    """
    return expanded_throughout(listing, point, lambda now: _stacks(now, point))


def _stacks(listing: Listing, point: Mapping[Value, Any]) -> dict[int, int]:
    """The loops over layers by their positions, and over how many."""
    stacks = {call.position for call in listing.calls if call.kind in ("Scan", "Loop") and _is_stack(listing, call)}
    numbers = {at: trips_of(listing, point, listing.calls[at]) for at in stacks}
    return {at: n for at, n in numbers.items() if 1 <= n <= MOST_CHUNKS}


def _is_stack(listing: Listing, call: Call) -> bool:
    """Does a loop go through something that mixes time, or give no more than what it carries, a number of times that
    the file fixes, and take nothing of the data by the number of the trip?"""
    body = body_of(call)
    own = call.operands[: len(call.operands) - int(call.op["captured"])]
    carries = len(own) - (int(call.attrs["num_scan_inputs"]) if call.kind == "Scan" else 1)
    if len(body.outputs) > carries and not any(inner.kind in TEMPORAL for inner in body.calls):
        return False
    known = [v is None or v in listing.constants for v in call.operands]
    names, outputs = list(body.inputs.values()), list(body.outputs.values())
    data = {name for name, is_known in zip(names, known, strict=True) if not is_known}
    if call.kind == "Scan":
        states = len(own) - int(call.attrs["num_scan_inputs"])
        return bool(data.intersection(names[:states])) and data.isdisjoint(names[states : len(own)])
    if own[0] is None or not known[0] or not goes_on(listing, body, own):
        return False
    carried = list(zip(names[2 : len(own)], outputs[1:], strict=False))
    moving = body.influenced(data)
    while more := {now for now, following in carried if following in moving} - data:
        data |= more
        moving = body.influenced(data)
    counted = body.influenced([names[0], *(now for now, _ in carried if now not in data)]) - moving
    picks = (inner for inner in body.calls if inner.kind in PICKS)
    return bool(data) and not any(
        not counted.isdisjoint(inner.operands) and not moving.isdisjoint(inner.operands) for inner in picks
    )


def goes_on(listing: Listing, body: Listing, own: tuple[Value | None, ...]) -> bool:
    """Does the loop make all its trips?"""
    given = own[1] is None or bool(np.all(listing.constants.get(own[1], False)))
    end = next(iter(body.outputs.values()))
    while (call := body.producer.get(end)) is not None and call.kind == "Identity" and call.operands[0] is not None:
        end = call.operands[0]
    return given and (end == list(body.inputs.values())[1] or bool(np.all(body.constants.get(end, False))))
