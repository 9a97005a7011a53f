"""Images whose rows and columns become the steps: patches of vision models (Vision Mamba, VMamba)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Refusal
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value

PATCHED = (
    "it takes patches of an image, whose rows and columns become the steps of one sequence at '{}': the input "
    "itself has no axis of time. Compile the part behind that node, with the patches (batch, steps, features) as its "
    "input, and run the part before it elsewhere"
)
BETWEEN = frozenset(["Identity", "Cast", "Add", "Sub", "Mul", "Div"])  # what normalises the pixels


def patched(listing: Listing, point: Mapping[Value, Any]) -> Refusal | None:
    """The convolution of a model that cuts an image into patches and lines them up; None where there is none."""
    images = {v for v in listing.inputs.values() if np.ndim(point[v]) == 4}
    for call in listing.calls:
        data = call.operands[0] if call.operands else None
        if data in images and call.kind in BETWEEN:
            images.update(call.results)
        kernel = call.operands[1] if data in images and call.kind == "Conv" else None
        weight = None if kernel is None else listing.constants.get(kernel)
        lined = _lined_up(listing, point, call) if weight is not None and np.ndim(weight) == 4 else None
        if lined is not None:
            return Refusal(call.name, call.kind, PATCHED.format(lined.name))
    return None


def _lined_up(listing: Listing, point: Mapping[Value, Any], conv: Call) -> Call | None:
    """The first call behind a convolution that makes one axis of the rows and columns that it gives."""
    behind = listing.influenced(set(conv.results))
    merging = [c for c in listing.calls if c.kind in ("Reshape", "Flatten") and c.operands[0] in behind]
    if not merging:
        return None
    try:
        rows, columns = np.shape(evaluate(listing, point, conv.results)[conv.results[0]])[2:]
        for call in merging:
            pair = [v for v in (call.operands[0], call.results[0]) if v is not None]
            before, after = (np.shape(array) for array in evaluate(listing, point, pair).values())
            if rows * columns in after and rows * columns not in before and {rows, columns} <= set(before):
                return call
    except UserError:
        return None
    return None
