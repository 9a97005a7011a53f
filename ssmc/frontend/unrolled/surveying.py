"""A survey of a graph: run once or twice, its values named, the single steps found that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssmc.frontend.source.effort import Effort
from ssmc.frontend.source.evaluate import run_quietly
from ssmc.frontend.source.interface import concrete_shapes, input_types, is_dynamic, sample_inputs
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.operands import slices_of, split_sizes
from ssmc.frontend.unrolled.forwarding import SCATTERS, forwarded
from ssmc.frontend.unrolled.survey import MIN_STEPS, Access, Survey
from ssmc.ir.graph import Graph, Value

BATCH, LENGTH = 3, 11
SMALL = 4096  # static arrays up to this size are compared by content, larger ones by how they are computed
SEEN = 512  # other arrays up to this size are kept, so that steps need not be run again


def survey(graph: Graph, listing: Listing) -> Survey | None:
    """Run the graph and look at it; None where nothing in it looks like steps. Raises UserError where it cannot run."""
    if not _may_be_unrolled(listing):
        return None
    types = input_types(graph)
    batches = [BATCH, BATCH + 1] if is_dynamic(types)[0] else [BATCH]
    points = [sample_inputs(listing, concrete_shapes(types, batch, LENGTH), types, seed=5 + batch) for batch in batches]
    found = Survey(graph, listing, points)
    with np.errstate(all="ignore"):
        for point in points:
            _run(found, point)
    _name_values(found)
    _find_accesses(found)
    return found


def _may_be_unrolled(listing: Listing) -> bool:
    """Is any value read piece by piece? A look that costs nothing, to spare graphs of other kinds the run."""
    pieces: dict[tuple[str, Value], int] = {}
    for call in listing.calls:
        if call.kind in ("Split", "SplitToSequence") and (len(call.results) >= MIN_STEPS or call.kind != "Split"):
            return True
        if call.kind in ("Gather", "Slice") and call.operands[0] is not None:
            key = (call.kind, call.operands[0])
            pieces[key] = pieces.get(key, 0) + 1
    return max(pieces.values(), default=0) >= MIN_STEPS


def _run(found: Survey, point: Mapping[Value, Any]) -> None:
    """Shapes of all values at a point, and the arrays of static ones."""
    listing = found.listing
    last = {v: call.position for call in listing.calls for v in call.operands if v is not None}
    values: dict[Value, Any] = {**listing.constants, **point}
    static: dict[Value, Any] = dict(listing.constants)
    seen: dict[Value, Any] = {}
    shapes = {v: np.shape(a) for v, a in values.items()}
    for call in listing.calls:
        arrays = [None if v is None else values[v] for v in call.operands]
        results = run_quietly(call, arrays, Effort())
        fixed = call.kind in ("Shape", "Size") or all(v is None or v in static for v in call.operands)
        fixed = fixed or (call.kind == "Mul" and any(v in static and not np.any(static[v]) for v in call.operands))
        for value, array in zip(call.results, results, strict=False):
            values[value] = array
            shapes[value] = () if isinstance(array, list) else np.shape(array)
            if fixed:
                static[value] = array
            elif isinstance(array, np.ndarray) and array.size <= SEEN:
                seen[value] = array
            if not isinstance(array, list) and np.asarray(array).dtype == np.bool_:
                found.boolean.add(value)
        for v in call.operands:
            if v is not None and last[v] == call.position and v not in static:
                values.pop(v, None)
    found.shapes.append(shapes)
    found.static.append(static)
    found.seen.append(seen)


def _name_values(found: Survey) -> None:
    """Fill `canon`: equal small constants, equal nodes on equal operands, and Identity."""
    table: dict[Any, Value] = {}
    listing = found.listing

    def content(value: Value) -> Any:
        arrays = [static[value] for static in found.static if value in static]
        if len(arrays) < len(found.static) or any(isinstance(a, list) or np.size(a) > SMALL for a in arrays):
            return None
        return tuple((np.asarray(a).dtype.str, np.shape(a), np.asarray(a).tobytes()) for a in arrays)

    for value in (*listing.inputs.values(), *listing.constants):
        found.canon[value] = table.setdefault(content(value) or value, value)
    for call in listing.calls:
        operands = tuple(found.operands(call))
        if operands and operands[0] is not None and _gives_back(found, call, operands[0]):
            found.canon[call.results[0]] = operands[0]
            found.canon.update((value, value) for value in call.results[1:])
            continue
        for value in call.results:
            key = content(value) or (found.signature(call), operands, value.index)
            found.canon[value] = table.setdefault(key, value)
        written = _read_back(found, call, operands[0]) if operands else None
        if written is not None:
            found.canon[call.results[0]] = written
            found.read_back.add(call.results[0])


def _gives_back(found: Survey, call: Call, source: Value) -> bool:
    """Does a node give what it is given?"""
    if call.kind in ("Expand", "Reshape"):
        return all(shapes[call.results[0]] == shapes[source] for shapes in found.shapes)
    return call.kind in ("Identity", "Dropout")


def _read_back(found: Survey, call: Call, source: Value | None) -> Value | None:
    """What was written to the step that a call reads of `source`."""
    maker = None if source is None else found.listing.producer.get(source)
    if source is None or maker is None or maker.kind not in SCATTERS:
        return None
    access = _access(found, call, source, call.results[0])
    return None if access is None else forwarded(found, access)


def _find_accesses(found: Survey) -> None:
    for call in found.listing.calls:
        source = call.operands[0] if call.operands else None
        if source is None or found.is_static(source):
            continue
        stream = found.canon[source]
        for value in call.results:
            access = _access(found, call, stream, value)
            if access is not None and value not in found.read_back:
                found.accesses[found.canon[value]] = access


def _access(found: Survey, call: Call, stream: Value, value: Value) -> Access | None:
    shape, result = found.shape(stream), found.shape(value)
    if call.kind == "SequenceAt":
        split = found.listing.producer.get(stream)
        index = found.array(call.operands[1])
        if split is None or split.kind != "SplitToSequence" or split.operands[0] is None or index is None:
            return None
        source = found.canon[split.operands[0]]
        shape, axis = found.shape(source), int(split.attrs.get("axis", 0)) % len(found.shape(source))
        keep = len(result) == len(shape)
        if shape[axis] < MIN_STEPS or (keep and result[axis] != 1) or np.size(index) != 1:
            return None
        return Access(source, axis, int(np.reshape(index, -1)[0]) % shape[axis], keep)
    if call.kind == "Gather":
        index, axis = found.array(call.operands[1]), int(call.attrs.get("axis", 0)) % len(shape)
        if index is None or np.size(index) != 1 or np.ndim(index) > 1 or shape[axis] < MIN_STEPS:
            return None
        return Access(stream, axis, int(np.reshape(index, -1)[0]) % shape[axis], np.ndim(index) == 1)
    if call.kind not in ("Slice", "Split") or len(shape) != len(result):
        return None
    changed = [i for i, (a, b) in enumerate(zip(shape, result, strict=True)) if a != b]
    if len(changed) != 1 or result[changed[0]] != 1 or shape[changed[0]] < MIN_STEPS:
        return None
    axis = changed[0]
    arrays = [found.array(v) for v in call.operands]
    if call.kind == "Split":
        padded = [np.empty(shape), *arrays[1:]]
        start = sum(split_sizes(padded, call.attrs, len(call.results))[: value.index])
        return Access(stream, axis, start, True)
    if any(v is not None and a is None for v, a in zip(call.operands[1:], arrays[1:], strict=True)):
        return None
    parts = dict(slices_of(arrays, call.attrs, len(shape)))
    return Access(stream, axis, range(shape[axis])[parts[axis]][0], True) if axis in parts else None
