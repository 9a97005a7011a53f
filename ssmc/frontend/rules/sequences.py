"""ONNX sequences and optional values whose members are known when the graph is read: they vanish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Members, TimeMixing, Tracked, Unsupported
from ssmc.frontend.rules.context import Context, Rule, Surroundings, known_of
from ssmc.frontend.rules.elementwise import identity
from ssmc.frontend.rules.shape import RULES as LAYOUT
from ssmc.frontend.rules.shape import cut
from ssmc.frontend.source.listing import Call


def _construct(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    return [Members(tuple(items))]


def _members(item: Any) -> tuple[Any, ...]:
    if isinstance(item, Members):
        return item.items
    if isinstance(item, Known) and isinstance(item.stored, list):
        return tuple(Known(array) for array in item.stored)
    raise Unsupported("the members of its sequence are not known")


def _position(items: Sequence[Any], slot: int, default: int) -> int:
    return int(np.asarray(known_of(items[slot], "position"))) if len(items) > slot and items[slot] else default


def _insert(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    found = list(_members(items[0]))
    found.insert(_position(items, 2, len(found)), items[1])
    return [Members(tuple(found))]


def _erase(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    found = list(_members(items[0]))
    del found[_position(items, 1, -1)]
    return [Members(tuple(found))]


def _at(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    return [_members(items[0])[_position(items, 1, 0)]]


def _length(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    return [Known(np.asarray(len(_members(items[0])), np.int64))]


def joined(context: Surroundings, call: Call, item: Members) -> list[Tracked]:
    """ConcatFromSequence, as what it would be with its members as operands."""
    members: list[Any] = list(item.items)
    if call.attrs.get("new_axis", 0):
        axis = int(call.attrs["axis"])
        spread = replace(call, kind="Unsqueeze")
        members = [context.apply(spread, [m, Known(np.asarray([axis], np.int64))])[0] for m in members]
    found: list[Tracked] = context.apply(replace(call, kind="Concat"), members)
    return found


def _split(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Parts of a feature axis, of so many entries each (the last one perhaps fewer), or of the sizes given."""
    flow = items[0]
    if not isinstance(flow, Flow):
        raise Unsupported("how it splits is computed from the input")
    axis = int(call.attrs.get("axis", 0)) % len(flow.shape)
    if flow.axes[axis] != "f":
        raise TimeMixing("it splits the time axis") if flow.axes[axis] == "t" else Unsupported("it splits the batch")
    told = items[1] if len(items) > 1 else None
    given = np.asarray(1 if told is None else known_of(told, "split")).astype(int)
    size = flow.shape[axis]
    bounds = [0, *np.cumsum(given)] if given.ndim else [*range(0, size, int(given)), size]
    parts = [cut(context, flow, axis, int(a), int(b), 1) for a, b in pairwise(bounds)]
    if told is None and not call.attrs.get("keepdims", 1):  # ignored where sizes are given (ONNX, SplitToSequence)
        alone = replace(call, kind="Squeeze")
        parts = [LAYOUT["Squeeze"](context, alone, [p, Known(np.asarray([axis]))])[0] for p in parts]
    return [Members(tuple(parts))]


def _has_element(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    return [Known(np.asarray(bool(items) and items[0] is not None))]


RULES: dict[str, Rule] = {
    "SequenceConstruct": _construct,
    "SequenceInsert": _insert,
    "SequenceErase": _erase,
    "SequenceAt": _at,
    "SequenceLength": _length,
    "SplitToSequence": _split,
    "Optional": identity,
    "OptionalGetElement": identity,
    "OptionalHasElement": _has_element,
}
