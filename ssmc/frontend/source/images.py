"""Images whose rows and columns become the steps: patches of vision models (Vision Mamba, VMamba)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
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
LINED = (
    "it lines up the rows and columns of an image as the steps of one sequence: the input itself has no axis of time. "
    "Export the model behind that node, with the pixels (batch, steps, features) as its input"
)
CROSSED = (
    "it goes over the rows and columns of an image, which become the steps of sequences in more than one order at '{}' "
    "and '{}' (a cross scan): the input has no axis of time, and the targets go through a sequence forwards or "
    "backwards alone. Compile the scan of each order by itself, with the pixels (batch, steps, features) in that order "
    "as its input, and run the rest elsewhere"
)
MOST = 8  # convolutions that are looked behind


def patched(listing: Listing, point: Mapping[Value, Any], refused: Collection[str]) -> Refusal | None:
    """What lines up the places of an image, or the convolution before it; None where there is none.

    `refused` are nodes: of those alone may one line up the places of the input itself, as others may join features.
    """
    images = {v for v in listing.inputs.values() if np.ndim(point[v]) == 4}
    for image in images:
        lined = _lined_up(listing, point, image)
        if lined and lined[0].name in refused:
            return Refusal(lined[0].name, lined[0].kind, LINED)
    behind = images | listing.influenced(images) if images else images
    convolutions = [c for c in listing.calls if c.kind == "Conv" and c.operands[0] in behind and _is_flat(listing, c)]
    for call in convolutions[:MOST]:
        lined = _lined_up(listing, point, call.results[0])
        if lined:
            names = [c.name for c in lined]
            reason = CROSSED.format(*names) if len(names) > 1 else PATCHED.format(names[0])
            return Refusal(call.name, call.kind, reason)
    return None


def _is_flat(listing: Listing, conv: Call) -> bool:
    """Has its kernel rows and columns?"""
    weight = None if conv.operands[1] is None else listing.constants.get(conv.operands[1])
    return weight is not None and np.ndim(weight) == 4


def _lined_up(listing: Listing, point: Mapping[Value, Any], image: Value) -> list[Call]:
    """The first call behind an image that makes one axis of its rows and columns, and the first that makes one of the
    same numbers in another order."""
    behind = {image} | listing.influenced({image})
    merging = [c for c in listing.calls if c.kind in ("Reshape", "Flatten") and c.operands[0] in behind]
    if not merging:
        return []
    found: list[tuple[Call, Any]] = []
    try:
        rows, columns = np.shape(evaluate(listing, point, [image])[image])[2:]
        for call in merging:
            pair = [v for v in (call.operands[0], call.results[0]) if v is not None]
            held = evaluate(listing, point, pair)
            before, after = (np.shape(held[v]) for v in pair)
            places = rows * columns in after and rows * columns not in before
            if not places or not any({a, b} == {rows, columns} for a, b in pairwise(before)):
                continue
            numbers = np.ravel(held[call.results[0]])
            if not found:
                found.append((call, numbers))
            elif np.array_equal(np.sort(numbers), np.sort(found[0][1])) and not np.array_equal(numbers, found[0][1]):
                return [found[0][0], call]
    except UserError:
        return []
    return [call for call, _ in found]
