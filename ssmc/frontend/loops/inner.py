"""Loops within a step of another loop, as over layers, substeps or the steps of a chunk: written out trip by trip."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ssmc.frontend.graph.flow import Flow, Unsupported
from ssmc.frontend.loops.layers import goes_on
from ssmc.frontend.loops.limits import MOST_CHUNKS
from ssmc.frontend.loops.trips import expanded_throughout, trips_of
from ssmc.frontend.source.evaluate import body_of
from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value

LOOPS = ("Scan", "Loop")
SIZES = ("Shape", "Size")
WITHIN = "it is a loop within each step, not over the steps; export the model with its trips written out"
BY_DATA = "it is a loop within each step, and the data tell how many trips it makes"
OVER_ALL = (
    "it goes over the whole sequence within each step of another loop; only what a step itself holds is read in one"
)


def written_out(
    body: Listing, point: Mapping[Value, Any], whole: Collection[Value], given: Collection[Value]
) -> Listing:
    """A body of a loop in which each loop of a fixed number of trips is what it does; itself where there is none.

    `point` are arrays of its inputs, `whole` those of them that are whole sequences, `given` those that are known.
    """
    return expanded_throughout(body, point, lambda now: _fixed(now, point, whole, given))


def _fixed(
    body: Listing, point: Mapping[Value, Any], whole: Collection[Value], given: Collection[Value]
) -> dict[int, int]:
    """The loops of the body that are gone through as often whatever the data are, by their positions, and how often."""
    loops = [call for call in body.calls if call.kind in LOOPS]
    if not loops:
        return {}
    long = body.influenced(whole) if whole else set[Value]()
    moving = _moving(body, [v for v in body.inputs.values() if v not in given])
    found = {}
    for call in loops:
        own = call.operands[: len(call.operands) - int(call.op["captured"])]
        if call.kind == "Scan":
            told = own[len(own) - int(call.attrs["num_scan_inputs"]) :]
            fixed = long.isdisjoint(told)
        else:
            fixed = own[0] is not None and own[0] not in long | moving and goes_on(body, body_of(call), own)
        trips = trips_of(body, point, call) if fixed else 0
        if 1 <= trips <= MOST_CHUNKS:
            found[call.position] = trips
    return found


def _moving(body: Listing, data: Collection[Value]) -> set[Value]:
    """What the numbers of the data change; their sizes do not."""
    found = set(data)
    for call in body.calls:
        if call.kind not in SIZES and not found.isdisjoint(call.operands):
            found.update(call.results)
    return found


def refuse_within(call: Call, items: Sequence[Any]) -> None:
    """A loop within a step that was not written out. Raises Unsupported with the reason."""
    own = items[: len(items) - int(call.op["captured"])]
    if call.kind == "Loop" and isinstance(own[0], Flow):
        raise Unsupported(BY_DATA)
    if any(isinstance(item, Flow) and "t" in item.axes for item in items):
        raise Unsupported(OVER_ALL)
    raise Unsupported(WITHIN)
