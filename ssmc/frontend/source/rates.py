"""Files of fixed sizes whose inputs are streams of different lengths: no axis is time for all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.source.evaluate import evaluate, scan_form
from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value

SHORTEST = 3  # axes of a stream: batch, time, features


def other_length(listing: Listing, point: Mapping[Value, Any], refused: Collection[str]) -> tuple[str, int, str] | None:
    """(input, steps, another input) where all refused nodes are scans over the steps of an input, and another, a stream
    by its axes, has no axis of so many; None where that is not so."""
    scans = [call for call in listing.calls if call.name in refused]
    if not scans or any(call.kind != "Scan" for call in scans):
        return None
    shapes = {name: np.shape(point[value]) for name, value in listing.inputs.items()}
    streams = {name: shape for name, shape in shapes.items() if len(shape) >= SHORTEST}
    for call in scans:
        steps = _steps(listing, point, call)
        over = [name for name, shape in streams.items() if steps in shape[:-1]]
        others = [name for name, shape in streams.items() if steps not in shape]
        if over and others:
            return over[0], steps, others[0]
    return None


def _steps(listing: Listing, point: Mapping[Value, Any], call: Call) -> int:
    own = [v for v in call.operands if v is not None][: len(call.operands) - int(call.op["captured"])]
    try:
        found = evaluate(listing, dict(point), own)
        form = scan_form(call, len(own), [np.ndim(found[v]) for v in own])
    except (UserError, ValueError):
        return 0
    return int(np.shape(found[own[form.states]])[form.input_axes[0]]) if len(own) > form.states else 0
