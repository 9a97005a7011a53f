"""States that a step reads and writes row by row, as those of all layers in one tensor: a state for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssmc.frontend.graph.builder import Operand
from ssmc.frontend.graph.flow import Flow, Known, Refused, Tracked, wrap
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.maker import Maker
from ssmc.frontend.states.lifting import State
from ssmc.frontend.states.recurrence import lift_states
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value


@dataclass(frozen=True)
class Rows:
    """What is read of one state along an axis, and what its next value is put together of."""

    axis: int
    current: tuple[Value, ...]
    following: tuple[Value, ...]


def row_by_row(
    body: Listing, states: Sequence[tuple[Value, Value, Any]], points: Sequence[dict[Value, Any]]
) -> tuple[Listing, dict[Value, Rows]]:
    """The body with a value of its own for each row of a state that it reads row by row, and these rows.

    `states` are present, next and first values; the new values are added to `points`.
    """
    found = {now: rows for now, following, start in states if (rows := _rows(body, now, following, start)) is not None}
    if not found:
        return body, {}
    listing = replace(body, calls=[], producer={})
    maker = Maker(listing)
    for call in body.calls:
        rows = found.get(call.operands[0]) if call.operands and call.operands[0] is not None else None
        if rows is None:
            maker.add(call)
        else:
            maker.node(call, "Identity", [rows.current[_number(body, call)]], call.results[0])
    for point in points:
        for now, rows in found.items():
            for k, value in enumerate(rows.current):
                point[value] = np.take(point[now], k, axis=rows.axis)
    return listing, found


def _rows(body: Listing, current: Value, following: Value, initial: Flow | Known) -> Rows | None:
    call, readers = _made(body, following), body.users.get(current, [])
    if call is None or call.kind != "Concat" or current in body.outputs.values():
        return None
    axis, parts = int(call.attrs["axis"]), call.operands
    rows = [_row(body, v, axis) for v in parts if v is not None]
    size = initial.shape[axis] if 0 <= axis < len(initial.shape) else 0
    if isinstance(initial, Flow) and size and initial.axes[axis] != "f":
        return None
    alone = [part for part in rows if part is not None]
    if len(alone) != len(parts) or len(alone) != size or size < 2:
        return None
    for reader in readers:
        picks = reader.kind == "Gather" and reader.operands[0] == current and int(reader.attrs.get("axis", 0)) == axis
        if not picks or not -size <= _number(body, reader) < size:
            return None
    return Rows(axis, tuple(Value(f"{current.node}.row{k}", current.index) for k in range(size)), tuple(alone))


def _made(body: Listing, value: Value) -> Call | None:
    call = body.producer.get(value)
    while call is not None and call.kind == "Identity" and call.operands[0] is not None:
        call = body.producer.get(call.operands[0])
    return call


def _row(body: Listing, value: Value, axis: int) -> Value | None:
    """What is laid along the axis, with one entry."""
    call = _made(body, value)
    if call is None or call.kind != "Unsqueeze" or len(call.operands) < 2:
        return None
    axes = np.ravel(body.constants.get(call.operands[1], []))  # type: ignore[arg-type]
    return call.operands[0] if axes.tolist() == [axis] else None


def _number(body: Listing, call: Call) -> int:
    place = body.constants.get(call.operands[1])  # type: ignore[arg-type]
    return int(place) if place is not None and np.ndim(place) == 0 else -(1 << 31)


def lift_rows(
    translator: Translator, states: Sequence[State], rows: dict[Value, Rows], disguise: str, like: Value
) -> dict[str, Tracked]:
    """`lift_states` with the states in `rows` lifted row by row."""
    apart: list[State] = []
    for state in states:
        some = rows.get(state.current)
        if some is None:
            apart.append(state)
            continue
        for k, (now, following) in enumerate(zip(some.current, some.following, strict=True)):
            apart.append(State(f"{state.name}.{k}", now, following, _part(translator, state.initial, some.axis, k)))
    found = lift_states(translator, apart, disguise, like)
    for state in states:
        if (some := rows.get(state.current)) is not None:
            parts_of = [found.pop(f"{state.name}.{k}") for k in range(len(some.current))]
            found[state.name] = _together(translator, parts_of, some.axis)
    return found


def _part(translator: Translator, item: Flow | Known, axis: int, k: int) -> Flow | Known:
    if isinstance(item, Known):
        return Known(np.take(item.array, k, axis=axis))
    builder = translator.builder
    axes, shape = item.axes[:axis] + item.axes[axis + 1 :], item.shape[:axis] + item.shape[axis + 1 :]
    one = builder.slice(item.value, item.from_right(axis), k, k + 1)
    return wrap(builder.reshape(one, tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")), axes, shape)


def _together(translator: Translator, parts: Sequence[Tracked], axis: int) -> Tracked:
    flows = [part for part in parts if isinstance(part, Flow)]
    if len(flows) < len(parts):
        return Refused()
    builder, first = translator.builder, flows[0]
    axes, shape = first.axes[:axis] + "f" + first.axes[axis:], (*first.shape[:axis], 1, *first.shape[axis:])
    features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
    at = axes[:axis].count("f") - len(features)
    wide: list[Operand] = [builder.reshape(flow.value, features) for flow in flows]
    return wrap(builder.concat(wide, at), axes, (*shape[:axis], len(flows), *shape[axis + 1 :]))
