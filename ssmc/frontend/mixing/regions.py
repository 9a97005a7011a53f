"""Regions that mix time: from the streams that enter to the streams that leave, explained as a whole.

A value that mixes time stays raw until something asks what it is (`explain`). Then the region behind it is cut as late
as possible (`cuts`), and each value at the cut is explained by probing the region in front of it (`lti`, `varying`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import Any, overload

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.graph.flow import Flow, Known, Members, Merged, Raw, Unsupported, known_along
from ssmc.frontend.graph.joint import REASON, apart
from ssmc.frontend.reasons import Reason
from ssmc.frontend.rules.merged import POINTWISE, as_steps, is_plain
from ssmc.frontend.source.evaluate import evaluator
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.precision import cosines_off, stored_rounding
from ssmc.frontend.source.samples import Samples
from ssmc.frontend.translator import RAW_OPS, Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

LAYOUT = frozenset(["Expand", "Tile", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Identity", "Where", "Cast"])


@dataclass(frozen=True, eq=False)
class Region:
    """A value as a function of the streams that it is made of. `run` takes arrays in ONNX layout."""

    target: Value
    calls: tuple[Call, ...]
    entries: tuple[Value, ...]
    flows: tuple[Flow, ...]
    known: dict[Value, Array]
    shape: tuple[int, ...]
    run: Callable[[Sequence[Array]], Array]
    samples: Sequence[tuple[Array, ...]]  # what the entries are at the sample inputs
    rounding: float = 0.0  # of weights inside that change with time, which the file may store in float32
    stored: float = 0.0  # and of the coarsest constants inside, where those have fewer digits than float32
    fourier: float = 0.0  # and of tables of cosines, of which exact ones are taken; 0 where there are none
    merged: Merged | None = None  # what an axis of the entries was made of, which is apart here

    @property
    def provenance(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for call in self.calls for name in call.provenance))


class _Entered(Sequence[tuple[Array, ...]]):
    """What enters a region at the sample inputs: worked out when it is asked for, which most regions never are."""

    def __init__(self, samples: Samples, entries: Sequence[Value], shapes: Sequence[tuple[int, ...]]) -> None:
        self._samples, self._entries, self._shapes = samples, entries, shapes

    def __len__(self) -> int:
        return len(self._samples.points)

    @overload
    def __getitem__(self, point: int) -> tuple[Array, ...]: ...

    @overload
    def __getitem__(self, point: slice) -> Sequence[tuple[Array, ...]]: ...

    def __getitem__(self, point: int | slice) -> tuple[Array, ...] | Sequence[tuple[Array, ...]]:
        if isinstance(point, slice):
            return [self[k] for k in range(*point.indices(len(self)))]
        arrays = self._samples.at(range(len(self))[point], self._entries)
        pairs = zip(self._entries, self._shapes, strict=True)
        return tuple(np.asarray(arrays[v], np.float64).reshape(shape) for v, shape in pairs)


def repeated_entries(translator: Translator, entries: Sequence[Value]) -> set[Value]:
    """Entries that repeat their steps along a new axis, to meet each other, and what they are laid out from."""
    found: set[Value] = set()
    for value in entries:
        flow = translator.lookup(value)
        length = _length(translator, value)
        assert isinstance(flow, Flow)
        if not any(a == "f" and d == length for a, d in zip(flow.axes, flow.shape, strict=True)):
            continue
        waiting: list[Value] = [value]
        while len(waiting) == 1 and (call := translator.listing.producer.get(waiting[0])) and call.kind in LAYOUT:
            found.add(waiting[0])
            waiting = [v for v in call.operands if v is not None and isinstance(translator.lookup(v), Flow)]
    return found


def _laid_out(translator: Translator, entries: Sequence[Value]) -> set[Value]:
    """Entries that are other entries in another layout, and what lies between these and them."""
    found: set[Value] = set()
    for value in entries:
        chain: list[Value] = []
        here: Value | None = value
        while here is not None:
            chain.append(here)
            here = _laid_from(translator, here)
            if here in entries:
                found.update(chain)
    return found


def twin_entries(translator: Translator, entries: Sequence[Value]) -> set[Value]:
    """Entries that are one stream in several layouts, and what lies between that and them."""
    chains: list[list[Value]] = []
    for value in entries:
        chains.append([value])
        while (before := _laid_from(translator, chains[-1][-1])) is not None:
            chains[-1].append(before)
    found: set[Value] = set()
    for k, chain in enumerate(chains):
        others = {v for j, other in enumerate(chains) if j != k for v in other}
        at = next((i for i, v in enumerate(chain) if v in others), 0)
        found.update(chain[:at])
    return found


def _laid_from(translator: Translator, value: Value) -> Value | None:
    """The one stream that a node only gives another layout to make `value`."""
    call = translator.listing.producer.get(value)
    if call is None or call.kind not in LAYOUT:
        return None
    streams = [v for v in call.operands if v is not None and isinstance(translator.lookup(v), Flow)]
    return streams[0] if len(streams) == 1 else None


def region_of(
    translator: Translator, value: Value, weighted: set[Value] | None = None, opened: Set[Value] = frozenset()
) -> Region | Reason:
    """The region in front of a value, or why there is none; values in `opened` are made inside it.

    With `weighted`, streams times weights that change with time are no entries but made inside; they are added to it.
    """
    opened = opened | _laid_out(translator, _inside(translator, value, opened)[1] or ())
    calls, entries, known = _inside(translator, value, opened)
    rounding = 0.0
    if entries and weighted is not None:
        found = {v for v in entries if _is_weighted(translator, v)}
        weighted |= found
        if found:
            calls, entries, known = _inside(translator, value, found | opened)
            rounding = float(np.finfo(np.float32).eps)
    shape = translator.samples.shape(value)
    lengths = {_length(translator, v) or 0 for v in entries or ()}
    cut: set[Value] = set()
    if entries and not lengths & set(shape):  # every n-th step alone enters what is said of every step
        cut = _cut_streams(translator, entries, max(lengths) + 1)
        cut = cut if all(translator.listing.producer[v].kind in RAW_OPS for v in cut) else set()
    if entries and not cut and (len(lengths) > 1 or lengths == {1}):
        cut = _cut_streams(translator, entries, max(2, max(lengths)))
    if cut:
        calls, entries, known = _inside(translator, value, opened | cut)
    if not entries:
        return Reason("an operand could not be translated")
    entered = [flow for v in entries if isinstance(flow := translator.lookup(v), Flow)]
    merged = {m for flow in entered for m in flow.merged}
    if len(merged) > 1:
        return Reason(REASON)
    flows = tuple(apart(as_steps(flow) or flow) for flow in entered)

    planned = cache(lambda: evaluator(translator.listing, {*known, *entries}, [value]))

    def run(arrays: Sequence[Array]) -> Array:
        translator.probing.run(len(calls))
        if translator.probing.exhausted:
            raise Unsupported("is not known after all the runs that may be made of it")
        given = dict(known)
        for entry, flow, array in zip(entries, entered, arrays, strict=True):
            given[entry] = array.reshape(flow.shape)
        try:
            return np.asarray(planned()(given)[value])
        except UserError as error:  # what is tried here the file may not be made for, as places out of range
            raise Unsupported(f"cannot be run on other values: {error.why or error.what}") from error

    samples = _Entered(translator.samples, entries, tuple(f.shape for f in flows))
    stored, fourier = stored_rounding(translator.listing, known), cosines_off(translator.listing, known)
    taken = (value, tuple(calls), tuple(entries), flows, known, shape, run, samples)
    return Region(*taken, rounding, stored, fourier, *merged)


def _inside(
    translator: Translator, value: Value, opened: Set[Value]
) -> tuple[list[Call], list[Value] | None, dict[Value, Any]]:
    """Calls of a region, its entries, its constants; values in `opened` are made inside rather than entries."""
    found: dict[int, Call] = {}
    entries: dict[Value, None] = {}
    known: dict[Value, Any] = {}
    waiting = [value]
    while waiting:
        here = waiting.pop()
        item = translator.lookup(here)
        if isinstance(item, Known):
            known[here] = item.stored
        elif isinstance(item, Flow) and here not in opened and _enters(translator, here, item):
            entries[here] = None
        elif isinstance(item, Flow | Raw | Members):
            call = translator.listing.producer[here]
            if call.position not in found:
                found[call.position] = call
                waiting += [v for v in call.operands if v is not None]
        else:
            return [], None, {}
    translator.probing.look(len(found))
    return [found[position] for position in sorted(found)], sorted(entries), known


def _enters(translator: Translator, value: Value, flow: Flow) -> bool:
    """Can a flow enter a region? Its batch may be one axis with features, its time in windows."""
    if "w" in flow.axes and as_steps(flow) is not None:
        return translator.listing.producer[value].kind in POINTWISE  # a mere reshape is made inside
    return is_plain(flow) or (len(flow.merged) == 1 and "t" not in flow.merged[0][0] and "t" in flow.axes)


def _is_weighted(translator: Translator, value: Value) -> bool:
    """Is this a stream times constants that change with time?"""
    call, flow = translator.listing.producer.get(value), translator.lookup(value)
    if call is None or call.kind not in ("Mul", "Div") or not isinstance(flow, Flow) or "t" not in flow.axes:
        return False
    behind = len(flow.axes) - flow.axes.index("t")  # the time axis, counted from the right
    arrays = [np.asarray(i.array) for v in call.operands if v and isinstance(i := translator.lookup(v), Known)]
    return any(a.ndim >= behind and known_along(a, a.ndim - behind) is None for a in arrays)


def _length(translator: Translator, value: Value) -> int | None:
    flow = translator.lookup(value)
    assert isinstance(flow, Flow)
    flow = as_steps(flow) or flow
    return flow.shape[flow.axes.index("t")] if "t" in flow.axes else None


def _cut_streams(translator: Translator, entries: Sequence[Value], longest: int) -> set[Value]:
    """Entries that are single steps, or every n-th step, of one of `longest` steps or more, and what lies between."""
    opened: set[Value] = set()
    waiting = list(entries)
    while waiting:
        value = waiting.pop()
        call = translator.listing.producer.get(value)
        if call is None or value in opened or (_length(translator, value) or 0) >= longest:
            continue
        opened.add(value)
        waiting += [v for v in call.operands if v is not None and isinstance(translator.lookup(v), Flow)]
    return opened
