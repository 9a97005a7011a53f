"""The roundings of a step one by one: what is rounded, what becomes of it, and by which grid."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Known, Unsupported
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import along, quantized_range
from ssmc.frontend.source.refused import FLOATING
from ssmc.frontend.states.grids import KINDS, Grid, find_grid
from ssmc.frontend.states.state_step import Step
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

LONGEST = 8  # nodes of a rounding, behind what rounds (ours)


@dataclass(frozen=True, eq=False)
class Rounding:
    """`source` becomes `result`, number by number: gain G(x) + offset, G on `grid` (5, n) of all their numbers.

    Gain and offset are 1 and 0 but where the result are codes.
    """

    call: Call
    source: Value
    result: Value
    shape: tuple[int, ...]
    grid: Array
    rounding: str
    gain: Array
    offset: Array


def find_rounding(step: Step, call: Call) -> Rounding:
    """All that belongs to a rounding. Raises Unsupported where it is to no grid."""
    if call.kind == "QuantizeLinear" and quantized_range(call.attrs) is None:
        raise Unsupported(FLOATING)
    best: Rounding | None = None
    for source in _before(step, call):
        own = None
        for result in islice(_behind(step, call), LONGEST):
            found = _between(step, call, source, result)
            own = own if found is None else found
        if own is None and best is not None:
            break
        best = own or best
    best = best or (_codes(step, call) if call.kind == "QuantizeLinear" else None)
    if best is None:
        raise Unsupported(
            "what lies around the rounding is not linear in the state, is scaled otherwise than before, or is not the "
            "same for all data"
        )
    return best


def _before(step: Step, call: Call) -> Iterator[Value]:
    listing, influenced, currents = step.lifting.translator.listing, step.lifting.influenced, set(step.currents)
    value = call.operands[0]
    while value is not None:
        yield value
        producer = listing.producer.get(value)
        if value in currents or producer is None or producer.kind in KINDS:
            return
        own = [v for v in producer.operands if v in influenced]
        value = own[0] if len(own) == 1 else None


def _behind(step: Step, call: Call) -> Iterator[Value]:
    calls, value = step.calls(step.currents, step.followings), call.results[0]
    while True:
        yield value
        users = [c for c in calls if value in c.operands]
        if value in step.followings or len(users) != 1 or users[0].kind in KINDS:
            return
        value = users[0].results[0]


def _between(step: Step, call: Call, source: Value, result: Value) -> Rounding | None:
    found = step.lifting.translator.samples.at(0, [source, result])
    if np.asarray(found[result]).dtype.kind != "f":
        return None
    grid = grid_between(step, call, source, result, set(step.currents) - {source})
    if grid is None:
        return None
    shape, size = np.shape(found[source]), np.size(found[source])
    return Rounding(call, source, result, shape, grid.rows, grid.rounding, np.ones(size), np.zeros(size))


def grid_between(step: Step, call: Call, source: Value, result: Value, others: Collection[Value]) -> Grid | None:
    """The grid between two values of one shape, a column for each number; None where any of `others` goes in, too.

    Raises Unsupported where the data give its scale.
    """
    samples, seen = step.lifting.translator.samples, call.operands[0]
    assert seen is not None
    if any(v in c.operands for c in step.calls([source], [result, seen]) for v in others):
        return None
    shapes = {samples.shape(value) for value in (source, result, seen)}
    if len(shapes) != 1:
        return None
    (shape,) = shapes
    values, places = [], []
    for point in step.points:
        given = samples.at(point, step.outside)

        def f(x: Array, target: Value, by: Any = 1.0, given: Mapping[Value, Any] = given) -> Array:
            found = evaluate(samples.listing, {**given, source: x.reshape(shape)}, [target])[target]
            return np.asarray(np.asarray(found, np.float64) / by).reshape(1, -1)

        scale = _scale(step, call, point, shape) if call.kind == "QuantizeLinear" else 1.0
        values.append(lambda x, f=f: f(x, result))
        places.append(lambda x, f=f, scale=scale: f(x, seen, scale))
    return find_grid(values, places, KINDS[call.kind], 1, int(np.prod(shape)))


def _scale(step: Step, call: Call, point: int, shape: tuple[int, ...]) -> Array:
    value = call.operands[1]
    if value is None or not isinstance(step.lifting.translator.lookup(value), Known):
        raise Unsupported("its scale is computed from the data")
    return np.asarray(along(step.lifting.translator.samples.at(point, [value])[value], shape, call.attrs))


def _codes(step: Step, call: Call) -> Rounding | None:
    """A quantisation whose codes go further than to one dequantisation."""
    samples, (source, result) = step.lifting.translator.samples, (call.operands[0], call.results[0])
    assert source is not None
    codes = np.asarray(samples.at(0, [result])[result])
    shape = codes.shape
    if codes.dtype.kind not in "iu":
        return None
    ends = quantized_range(call.attrs)
    assert ends is not None, "codes are integers"
    low, high = ends
    scale = np.broadcast_to(np.asarray(_scale(step, call, 0, shape), np.float64), shape).reshape(-1)
    zero: Any = 0.0
    if len(call.operands) > 2 and (value := call.operands[2]) is not None:
        if not isinstance(step.lifting.translator.lookup(value), Known):
            raise Unsupported("its zero point is computed from the data")
        zero = along(samples.at(0, [value])[value], shape, call.attrs)
    zero = np.broadcast_to(np.asarray(zero, np.float64), shape).reshape(-1)
    none = np.zeros(scale.shape)  # the zero point is added to what is rounded, so that halves go to even before
    grid = np.stack([scale, none, none, low - zero, high - zero])
    return Rounding(call, source, result, shape, grid, "nearest", 1.0 / scale, np.array(zero))
