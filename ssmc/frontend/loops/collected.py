"""The lists of steps that loops put together, as sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Members, Pieces, Tracked, Unsupported
from ssmc.frontend.graph.stacking import sequence_of
from ssmc.frontend.loops.behind import behind
from ssmc.frontend.rules.sequences import joined
from ssmc.frontend.rules.shape import reshaped
from ssmc.frontend.source.listing import Call
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value


def concat_from_sequence(translator: Translator, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """The pieces of all steps as one tensor."""
    pieces = items[0]
    if isinstance(pieces, Members):
        return joined(translator, call, pieces)
    if not isinstance(pieces, Pieces):
        raise Unsupported("it joins something other than the steps of a loop")
    axis = int(call.attrs["axis"])
    item = pieces.item
    if not call.attrs.get("new_axis", 0):
        return [stacked(translator, item, axis, pieces.like, pieces.length, pieces.front, pieces.missing)]
    axis %= len(item.shape) + 1
    whole = sequence_of(translator.builder, item, pieces.like, axis, pieces.front, pieces.length)
    return [behind(translator.builder, whole, axis, pieces.missing)]


def stacked(
    translator: Translator, item: Tracked, axis: int, like: Value, length: int, front: bool, missing: int
) -> Tracked:
    """The pieces of all steps but the first `missing`, of one entry along an axis each, along that axis; or each in
    `front` of those before."""
    if not isinstance(item, Flow | Known):
        return item
    axis %= len(item.shape)
    if item.shape[axis] != 1:
        raise Unsupported("its steps give pieces of more than one entry")
    shape = (*item.shape[:axis], *item.shape[axis + 1 :])
    found = reshaped(translator, item, shape) if isinstance(item, Flow) else Known(np.reshape(item.array, shape))
    return behind(translator.builder, sequence_of(translator.builder, found, like, axis, front, length), axis, missing)
