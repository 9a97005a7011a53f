"""Regions that mix time: from the streams that enter to the streams that leave, explained as a whole.

A value that mixes time stays raw until something asks what it is. Then the region behind it is cut as late as
possible: what follows the last mixing of time is translated step by step, and each value at the cut is explained
by probing the region in front of it (`lti`, `varying`). Where a value at the cut makes no sense by itself the cut
moves towards the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from ssmc.frontend.evaluate import evaluate
from ssmc.frontend.findings import Refusal
from ssmc.frontend.flow import Flow, Known, Raw, Refused, Tracked, Unsupported, known_along
from ssmc.frontend.listing import Call
from ssmc.frontend.merged import is_plain
from ssmc.frontend.spans import spelled_out
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

PRODUCTS = 8  # of streams inside a region that are tried as places to cut it
PLACES = 24  # values inside a region that are tried by themselves where the whole is nothing (ours)
SHORT = 16  # taps of a filter that nothing better is looked for
PRODUCT_OPS = frozenset(["Mul", "Div", "MatMul", "Einsum"])
LAYOUT = frozenset(["Expand", "Tile", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Identity", "Where", "Cast"])
CONTRACTIONS = frozenset(["MatMul", "Gemm", "Einsum", "Conv", "ReduceSum", "ReduceMean", "FusedMatMul"])

# Ops that can stand after the last mixing of time; whether they do is seen when they are translated.
STEPWISE = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Neg",
        "Sum",
        "MatMul",
        "Gemm",
        "Einsum",
        "Conv",
        "Slice",
        "Split",
        "Gather",
        "Concat",
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Cast",
        "Identity",
        "Dropout",
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "Exp",
        "Log",
        "Reciprocal",
        "Where",
        "FusedMatMul",
    ]
)


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
    samples: tuple[tuple[Array, ...], ...]  # what the entries are at the sample inputs
    rounding: float = 0.0  # of weights inside that change with time, which the file may store in float32

    @property
    def provenance(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for call in self.calls for name in call.provenance))


def explain(translator: Translator, value: Value) -> Tracked:
    """The flow that a raw value is; Refused, with the reason in the findings, where nothing explains it.

    Where the whole is nothing, or needs long filters (two systems one after the other that were taken for one), values
    inside of it are explained first.
    """
    before = _long_filters(translator, _cone(translator, value))
    tried: set[int] = set()
    places: list[Value] = []
    best: tuple[int, Flow | Known, dict[Value, Tracked]] | None = None
    refusal: Refusal | None = None
    while isinstance(translator.lookup(value), Raw):
        cone, known = _cone(translator, value), translator.env.copy()
        found = _explained(translator, value, cone)
        if not isinstance(found, str):
            needed = _needed(translator, found, _long_filters(translator, cone) - before)
            if best is None or needed < best[0]:
                best = needed, found, translator.env
            if not needed:
                break
            translator.env = known
        if _product_settled(translator, cone, tried) or _inner_settled(translator, cone, places):
            continue
        if best is None and isinstance(found, str):
            refusal = refusal or _reason(translator, cone, found)
            if _spelled_out(translator, cone, tried):
                continue
        break
    else:
        return translator.lookup(value) or Refused()
    if best is None:
        assert refusal is not None
        translator.findings.refusals.append(refusal)
        return Refused()
    translator.env = best[2]
    return best[1]


def _needed(translator: Translator, found: Flow | Known | str, filters: Set[str]) -> int:
    """How many of the filters a value is made of."""
    if not filters or not isinstance(found, Flow):
        return 0
    return len(filters & nx.ancestors(translator.builder.graph.net, found.value.node))


def _product_settled(translator: Translator, cone: Sequence[Call], tried: set[int]) -> bool:
    """Explain the factors of a product of streams inside the cone, as of the gate between two convolutions (H3)."""
    for call in cone[:-1]:
        items = [None if v is None else translator.lookup(v) for v in call.operands]
        raw = [v for v, item in zip(call.operands, items, strict=True) if v is not None and isinstance(item, Raw)]
        streams = all(isinstance(item, Raw | Flow) for item in items)
        if call.kind not in PRODUCT_OPS or not raw or not streams or call.position in tried:
            continue
        tried.add(call.position)
        if len(tried) > PRODUCTS:
            return False
        factors = [_explained(translator, v, _cone(translator, v)) for v in raw]
        if any(isinstance(factor, str) for factor in factors):
            continue
        known = dict(zip(raw, factors, strict=True))
        try:
            with translator.builder.origin(call.provenance):
                results = translator.apply(call, [known.get(v) or translator.lookup(v) for v in call.operands if v])
        except (Unsupported, ValueError):
            continue
        translator.env.update({v: f for v, f in known.items() if not isinstance(f, str)})
        translator.env.update(zip(call.results, results, strict=False))
        _carry_on(translator, cone[cone.index(call) + 1 :])
        return True
    return False


def _inner_settled(translator: Translator, cone: Sequence[Call], tried: list[Value]) -> bool:
    """Explain a value inside the cone that everything behind it passes through, the last that makes sense by itself.

    Two systems one after the other need not be one, as where a bias stands between them or the second runs backwards.
    """
    before = _long_filters(translator, cone)
    spare: tuple[Call, Flow | str] | None = None  # one that needs long filters
    for call in reversed(_narrows(cone[:-1], cone[-1])):
        value = call.results[0]
        if not isinstance(translator.lookup(value), Raw):
            continue
        if len(tried) == PLACES:
            break
        tried.append(value)
        solved: dict[Value, Flow | str] = {}
        if _solve(translator, [value], solved, set()) is not None:
            continue
        spare = spare or (call, solved[value])
        if not _needed(translator, solved[value], _long_filters(translator, cone) - before):
            spare = call, solved[value]
            break
    if spare is None:
        return False
    call, found = spare
    translator.env[call.results[0]] = found  # type: ignore[assignment]
    _carry_on(translator, cone[cone.index(call) + 1 :])
    return True


def _narrows(calls: Sequence[Call], last: Call) -> list[Call]:
    """Calls whose first result is all that the calls behind them take from those up to them."""
    reach = {v: call.position for call in (*calls, last) for v in call.operands if v is not None}
    found, open_until = [], -1  # how far a value of an earlier call is needed
    for call in calls:
        if open_until <= call.position and not any(v in reach for v in call.results[1:]):
            found.append(call)
        open_until = max([open_until, *(reach.get(v, -1) for v in call.results)])
    return found


def _carry_on(translator: Translator, calls: Sequence[Call]) -> None:
    """Translate the calls that have nothing raw among their operands any more, as the bias after a settled product."""
    for call in calls:
        items = [None if v is None else translator.lookup(v) for v in call.operands]
        if any(isinstance(item, Raw) for item in items) or all(item is None for item in items):
            continue
        try:
            with translator.builder.origin(call.provenance):
                results = translator.apply(call, items)
        except (Unsupported, ValueError):
            continue
        translator.env.update(zip(call.results, results, strict=False))


def _explained(translator: Translator, value: Value, cone: Sequence[Call]) -> Flow | Known | str:
    """The value by the cut of its cone that needs no long filters, or why there is none.

    Weights that change with time belong to the region at first: a cumulative sum in the log domain is a system only
    with the weights before and behind it.
    """
    weighted: set[Value] = set()
    known = translator.env.copy()
    found = _best_cut(translator, value, cone, weighted)
    if isinstance(found, str) and weighted:
        translator.env = known
        found = _best_cut(translator, value, cone, None)
    return found


def _best_cut(
    translator: Translator, value: Value, cone: Sequence[Call], weighted: set[Value] | None
) -> Flow | Known | str:
    solved: dict[Value, Flow | str] = {}
    sums = _sums(translator, _late(cone, value, set()))
    filters, known = _long_filters(translator, cone), translator.env.copy()
    found = _cut_before(translator, value, cone, set(), solved, weighted)
    if sums and (isinstance(found, str) or _long_filters(translator, cone) != filters):
        # The terms of a sum may be no systems while the sum is one, as in the last stage of a parallel scan.
        filters, first = _long_filters(translator, cone), translator.env
        translator.env = known
        whole = _cut_before(translator, value, cone, sums, solved, weighted)
        if isinstance(whole, Flow) and _long_filters(translator, cone) == filters:
            return whole
        translator.env = first
    return found


def _long_filters(translator: Translator, cone: Sequence[Call]) -> frozenset[str]:
    """Filters of many taps, or with no end within the steps that are studied."""
    items = (translator.lookup(v) for call in cone for v in call.operands if v is not None)
    steps = min((f.shape[f.axes.index("t")] for f in items if isinstance(f, Flow) and "t" in f.axes), default=SHORT)
    short, graph = min(SHORT, steps - 2), translator.builder.graph
    return frozenset(n.name for n in graph.nodes("fir") if n.op["kernel"].array.shape[-1] > short)


def _sums(translator: Translator, late: Sequence[Call]) -> set[int]:
    """Late calls that add values which mix time, before any of them is contracted over its features."""
    found: set[int] = set()
    contracted: set[Value] = set()
    for call in late:
        raw = [v for v in call.operands if v is not None and isinstance(translator.lookup(v), Raw)]
        if call.kind in CONTRACTIONS or any(v in contracted for v in raw):
            contracted.update(call.results)
        elif call.kind in ("Add", "Sub", "Sum") and len(raw) > 1:
            found.add(call.position)
    return found


def _cut_before(
    translator: Translator,
    value: Value,
    cone: Sequence[Call],
    barred: set[int],
    solved: dict[Value, Flow | str],
    weighted: set[Value] | None,
) -> Flow | Known | str:
    """The value by a cut of its cone that is as late as can be, before the calls in `barred`; or why there is none."""
    barred = set(barred)
    while True:
        late = _late(cone, value, barred)
        exits = _exits(cone, late, value)
        wrong = _solve(translator, exits, solved, weighted)
        if wrong is not None:
            if wrong == value:
                return str(solved[wrong])
            barred.update(call.position for call in cone if wrong in call.operands)
            continue
        stuck = _translate(translator, late, {v: f for v in exits if isinstance(f := solved[v], Flow)})
        if stuck is None:
            return translator.env[value] if late else solved[value]  # type: ignore[return-value]
        barred.add(stuck.position)


def _cone(translator: Translator, value: Value) -> list[Call]:
    """The calls behind a raw value, as far as what they give is raw."""
    found: dict[int, Call] = {}
    waiting = [value]
    while waiting:
        call = translator.listing.producer.get(waiting.pop())
        if call is None or call.position in found:
            continue
        found[call.position] = call
        waiting += [v for v in call.operands if v is not None and isinstance(translator.lookup(v), Raw)]
    return [found[position] for position in sorted(found)]


def _late(cone: Sequence[Call], value: Value, barred: set[int]) -> list[Call]:
    """The calls after which nothing in the cone mixes time any more."""
    users: dict[Value, list[Call]] = {}
    for call in cone:
        for operand in call.operands:
            if operand is not None:
                users.setdefault(operand, []).append(call)
    late: set[int] = set()
    for call in reversed(cone):
        behind = [user for result in call.results for user in users.get(result, ())]
        if call.kind in STEPWISE and call.position not in barred and all(user.position in late for user in behind):
            late.add(call.position)
    return [call for call in cone if call.position in late]


def _exits(cone: Sequence[Call], late: Sequence[Call], value: Value) -> list[Value]:
    """Values that the late calls take from the others."""
    early = {result for call in cone if call not in late for result in call.results}
    read = [v for call in late for v in call.operands if v is not None] + [value]
    return [v for v in dict.fromkeys(read) if v in early]


def _solve(
    translator: Translator, exits: Sequence[Value], solved: dict[Value, Flow | str], weighted: set[Value] | None
) -> Value | None:
    """Explain the exits; the first that cannot be."""
    from ssmc.frontend.mixing import explain_region

    def tried(value: Value, opened: set[Value]) -> Flow | str:
        region = region_of(translator, value, weighted, opened)
        if isinstance(region, str):
            return region
        with translator.builder.origin(region.provenance):
            try:
                return explain_region(translator, region)
            except Unsupported as reason:
                repeated = set() if opened else _repeated(translator, region.entries)
                return tried(value, repeated) if repeated else str(reason)

    for value in exits:
        if value not in solved:
            solved[value] = tried(value, set())
        if isinstance(solved[value], str):
            return value
    return None


def _repeated(translator: Translator, entries: Sequence[Value]) -> set[Value]:
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


def region_of(
    translator: Translator, value: Value, weighted: set[Value] | None = None, opened: Set[Value] = frozenset()
) -> Region | str:
    """The region in front of a value, or why there is none; values in `opened` are made inside it.

    With `weighted`, streams times weights that change with time are no entries but made inside; they are added to it.
    """
    calls, entries, known = _inside(translator, value, opened)
    rounding = 0.0
    if entries and weighted is not None:
        found = {v for v in entries if _is_weighted(translator, v)}
        weighted |= found
        if found:
            calls, entries, known = _inside(translator, value, found | opened)
            rounding = float(np.finfo(np.float32).eps)
    lengths = {_length(translator, v) for v in entries or ()}
    if entries is not None and (len(lengths) > 1 or lengths == {1}):
        calls, entries, known = _inside(translator, value, _cut_streams(translator, entries))
    if not entries:
        return "an operand could not be translated"
    flows = tuple(translator.lookup(v) for v in entries)

    def run(arrays: Sequence[Array]) -> Array:
        given = {**known, **dict(zip(entries, arrays, strict=True))}
        return np.asarray(evaluate(translator.listing, given, [value])[value])

    samples = []
    for point in range(len(translator.samples.points)):
        arrays = translator.samples.at(point, entries)
        samples.append(tuple(np.asarray(arrays[v], np.float64) for v in entries))
    shape = run(samples[0]).shape
    return Region(value, tuple(calls), tuple(entries), flows, known, shape, run, tuple(samples), rounding)  # type: ignore[arg-type]


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
        elif isinstance(item, Flow) and here not in opened and is_plain(item):
            entries[here] = None
        elif isinstance(item, Flow | Raw):
            call = translator.listing.producer[here]
            if call.position not in found:
                found[call.position] = call
                waiting += [v for v in call.operands if v is not None]
        else:
            return [], None, {}
    return [found[position] for position in sorted(found)], sorted(entries), known


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
    return flow.shape[flow.axes.index("t")] if "t" in flow.axes else None


def _cut_streams(translator: Translator, entries: Sequence[Value]) -> set[Value]:
    """Entries that are single steps, or every n-th step, of a longer stream, and what lies between them and it."""
    longest = max(2, *(_length(translator, v) or 0 for v in entries))
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


def _translate(translator: Translator, late: Sequence[Call], exits: dict[Value, Flow]) -> Call | None:
    """Translate the late calls; the first that cannot be, or None with all results known."""
    trial = translator.substituted(exits)
    for call in late:
        items = [None if v is None else trial.lookup(v) for v in call.operands]
        try:
            with translator.builder.origin(call.provenance):
                results = trial.apply(call, items)
        except (Unsupported, ValueError):
            return call
        trial.env.update(zip(call.results, results, strict=False))
    translator.env.update(trial.env)
    return None


def _reason(translator: Translator, cone: Sequence[Call], reason: str) -> Refusal:
    """Which call of a cone that nothing explains to name, and why."""
    first = next((c for c in cone if any(isinstance(translator.lookup(v), Flow) for v in c.operands if v)), cone[0])
    raw = translator.lookup(first.results[0])
    for call in cone if "not linear" in reason and _own_reason(translator, first) is None else ():
        streams = [v for v in call.operands if v is not None and isinstance(translator.lookup(v), Raw | Flow)]
        if call.kind in ("MatMul", "Einsum") and len(streams) > 1:
            return Refusal(call.name, call.kind, f"a product of two values that mix time (attention), which {reason}")
    why = f"{_own_reason(translator, first) or raw.reason}, and the whole of it" if isinstance(raw, Raw) else ""
    return Refusal(first.name, first.kind, f"{why} {reason}".strip())


def _own_reason(translator: Translator, call: Call) -> str | None:
    """Why a call by itself is more than a step, where its operands are known."""
    items = [None if v is None else translator.lookup(v) for v in call.operands]
    if any(isinstance(item, Raw) for item in items):
        return None
    try:
        translator.apply(call, items)
    except Unsupported as reason:
        return str(reason)
    except ValueError:
        return None
    return None


def _spelled_out(translator: Translator, cone: Sequence[Call], tried: set[int]) -> bool:
    """Say one call of the cone by itself, the first that can be: a strided filter, a sum over all steps."""
    for call in cone:
        if -call.position in tried or not any(isinstance(translator.lookup(v), Raw) for v in call.results):
            continue
        try:
            with translator.builder.origin(call.provenance):
                results = spelled_out(translator, call)
        except (Unsupported, ValueError):
            continue
        tried.add(-call.position)
        translator.findings.spans += 1
        translator.env.update(zip(call.results, results, strict=False))
        _carry_on(translator, cone[cone.index(call) + 1 :])
        return True
    return False
