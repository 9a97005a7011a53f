"""Steps that are read back from a tensor which is written step by step: what was written there.

Of `y[:, k] = a * y[:, k - 1] + b` an exporter makes a chain of scattered writes, and reads the tensor after each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.source.evaluate import run_call
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import axes_of
from ssmc.frontend.unrolled.survey import MIN_STEPS, Access, Survey, Written
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

SCATTERS = ("ScatterElements", "ScatterND")


def written_by(survey: Survey, call: Call, operands: Sequence[Value | None]) -> Written | None:
    """What a node writes if it writes its updates, in order, to one index of one axis; found by running it."""
    if call.position not in survey.writes:
        survey.writes[call.position] = _written(survey, call, operands)
    return survey.writes[call.position]


def _written(survey: Survey, call: Call, operands: Sequence[Value | None]) -> Written | None:
    indices: Any = survey.array(operands[1])
    update, shape = operands[2], survey.shape(call.results[0])
    if indices is None or update is None or call.attrs.get("reduction", b"none") not in (b"none", "none"):
        return None
    target = survey.shape(update)
    marks = np.arange(np.prod(target, dtype=np.int64), dtype=np.float64).reshape(target)
    result: Array = np.asarray(run_call(call, [np.full(shape, -1.0), indices, marks])[0])
    places = np.argwhere(result >= 0)
    if len(places) != marks.size or not len(places):
        return None
    for axis in range(len(shape)):
        index = int(places[0, axis])
        whole = marks.size * shape[axis] == result.size
        if not whole or shape[axis] < MIN_STEPS or not (places[:, axis] == index).all():
            continue
        part = np.take(result, index, axis=axis)
        kept = (*shape[:axis], 1, *shape[axis + 1 :])
        if target in (part.shape, kept) and np.array_equal(part, marks.reshape(part.shape)):
            return Written(axis, index, update, target == kept)
    return None


def forwarded(survey: Survey, access: Access) -> Value | None:
    """The value that was written where a step is read; None where it was not written as it is read."""
    here = survey.listing.producer.get(access.stream)
    while here is not None and here.kind in SCATTERS:
        operands = survey.operands(here)
        found = written_by(survey, here, operands)
        if found is None or found.axis != access.axis:
            return None
        if found.index == access.index:
            if found.keep == access.keep:
                return found.update
            return unsqueezed(survey, found.update, found.axis) if found.keep else None
        here = None if operands[0] is None else survey.listing.producer.get(operands[0])
    return None


def unsqueezed(survey: Survey, value: Value, axis: int) -> Value | None:
    """What `value` was before it got the axis, if an Unsqueeze or a Reshape gave it."""
    call = survey.listing.producer.get(value)
    if call is None or call.kind not in ("Unsqueeze", "Reshape") or call.operands[0] is None:
        return None
    if call.kind == "Reshape":
        source = survey.canon[call.operands[0]]
        added = all(shapes[value] == (*(s := shapes[source])[:axis], 1, *s[axis:]) for shapes in survey.shapes)
        return source if added else None
    axes = axes_of([None, *(survey.array(v) for v in call.operands[1:])], call.attrs, 1)
    rank = len(survey.shape(value))
    return survey.canon[call.operands[0]] if axes is not None and [a % rank for a in axes] == [axis] else None
