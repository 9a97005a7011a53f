"""What a value that mixes time is: by itself, by the products and narrow places inside of it, or op by op."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

import networkx as nx

from ssmc.frontend.findings import Refusal, refusal
from ssmc.frontend.graph.flow import Flow, Known, Raw, Refused, Tracked, Unsupported
from ssmc.frontend.mixing.cuts import Trials, cone_of, explained_by_a_cut, long_filters, solve, trials_of
from ssmc.frontend.mixing.mixed_states import MIXED, mixes_states
from ssmc.frontend.mixing.ordered import ordered_by_data
from ssmc.frontend.mixing.regions import Region, region_of
from ssmc.frontend.mixing.telling import told
from ssmc.frontend.reasons import Kind, Reason
from ssmc.frontend.rules.spans import spelled_out
from ssmc.frontend.source.listing import Call
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value

PRODUCTS = 8  # of streams inside a region that are tried as places to cut it
SPELLED = 8  # calls that are spelled out one by one, before it is several at once (ours)
PLACES = 24  # values inside a region that are tried by themselves where the whole is nothing (ours)
STABILISED = (
    "a maximum over steps, as of the stabiliser of a parallel mLSTM, which no sum over steps gives; export the "
    "recurrent form, whose running maximum can be left out"
)
STARTED = (
    "a maximum over steps of a scan in the log domain that starts from what one value for the whole sequence tells, as "
    "from a state that is an input; start it from a constant, or export the recurrence step by step"
)
PRODUCT_OPS = frozenset(["Mul", "Div", "MatMul", "Einsum"])


def explain(translator: Translator, value: Value) -> Tracked:
    """The flow that a raw value is; Refused, with the reason in the findings, where nothing explains it.

    Where the whole is nothing, or needs long filters (two systems one after the other that were taken for one), values
    inside of it are explained first.
    """
    if 0 in translator.samples.shape(value):  # no step of the stream, as where a tensor that grows in a loop starts
        return Known(translator.samples.at(0, [value])[value])
    whole = cone_of(translator, value)
    before, trials = long_filters(translator, whole), trials_of(whole)
    tried: set[int] = set()
    places: list[Value] = []
    best: tuple[int, Flow | Known, dict[Value, Tracked]] | None = None
    refused: Refusal | None = None
    exact: list[Refusal] = []  # ops whose meaning is known, and which cannot be
    while isinstance(translator.lookup(value), Raw):
        cone, known = cone_of(translator, value), translator.env.copy()
        found = explained_by_a_cut(translator, value, cone, trials)
        if not isinstance(found, Reason):
            needed = _needed(translator, found, long_filters(translator, cone) - before)
            if best is None or needed < best[0]:
                best = needed, found, translator.env
            if not needed:
                break
            translator.env = known
        over = translator.probing.over
        if not over and (
            _product_settled(translator, cone, tried, trials) or _inner_settled(translator, cone, places, trials)
        ):
            continue
        if best is None and isinstance(found, Reason):
            if refused is None:
                more = trials.told.get(value) if Kind.UNLIKE in found.kind else None
                refused = _reason(translator, value, cone, more() if more is not None else found)
            if Kind.UNLIKE in found.kind and (sure := told(translator, cone)) is not None:
                refused = sure
                translator.findings.told.append(sure)
            if over:
                refused = _given_up(translator, refused)
            elif _spelled_out(translator, cone, tried, exact):
                continue
        break
    else:
        return translator.lookup(value) or Refused()
    if best is None:
        assert refused is not None
        translator.findings.refusals.append(next(iter(exact), refused))
        return Refused()
    translator.env = best[2]
    return best[1]


def _given_up(translator: Translator, refusal: Refusal) -> Refusal:
    """The refusal of a region of which not every part was tried, which says so."""
    more = f"nothing was found in it within {translator.probing.allowed} runs of a node, and it is searched no further"
    return replace(refusal, reason=f"{refusal.reason}; {more}")


def _needed(translator: Translator, found: Flow | Known | Reason, filters: Set[str]) -> int:
    """How many of the filters a value is made of."""
    if not filters or not isinstance(found, Flow):
        return 0
    node = found.value.node
    return len(filters & (nx.ancestors(translator.builder.graph.net, node) | {node}))


def _product_settled(translator: Translator, cone: Sequence[Call], tried: set[int], trials: Trials) -> bool:
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
        before = translator.env.copy()
        factors = [explained_by_a_cut(translator, v, cone_of(translator, v), trials) for v in raw]
        if any(isinstance(factor, Reason) for factor in factors):
            translator.env = before  # what one factor was cut into may cut the whole in two
            continue
        known = dict(zip(raw, factors, strict=True))
        try:
            with translator.builder.origin(call.provenance):
                results = translator.apply(call, [known.get(v) or translator.lookup(v) for v in call.operands if v])
        except (Unsupported, ValueError):
            continue
        translator.env.update({v: f for v, f in known.items() if not isinstance(f, Reason)})
        translator.env.update(zip(call.results, results, strict=False))
        _carry_on(translator, cone[cone.index(call) + 1 :])
        return True
    return False


def _inner_settled(translator: Translator, cone: Sequence[Call], tried: list[Value], trials: Trials) -> bool:
    """Explain a value inside the cone that everything behind it passes through, the last that makes sense by itself.

    Two systems one after the other need not be one, as where a bias stands between them or the second runs backwards.
    """
    before = long_filters(translator, cone)
    spare: tuple[Call, Flow | Reason] | None = None  # one that needs long filters
    for call in reversed(_narrows(cone[:-1], cone[-1])):
        value = call.results[0]
        if not isinstance(translator.lookup(value), Raw):
            continue
        if len(tried) == PLACES or translator.probing.over:
            break
        tried.append(value)
        solved: dict[Value, Flow | Reason] = {}
        if solve(translator, [value], solved, set(), trials) is not None:
            continue
        spare = spare or (call, solved[value])
        if not _needed(translator, solved[value], long_filters(translator, cone) - before):
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


def _reason(translator: Translator, value: Value, cone: Sequence[Call], reason: Reason) -> Refusal:
    """Which call of a cone that nothing explains to name, and why."""
    first = next((c for c in cone if any(isinstance(translator.lookup(v), Flow) for v in c.operands if v)), cone[0])
    raw = translator.lookup(first.results[0])
    ordered = ordered_by_data(translator, cone)
    if ordered is not None:
        translator.findings.told.append(ordered)
        return ordered
    region = region_of(translator, value, None, set()) if Kind.NONLINEAR in reason.kind else reason
    if isinstance(region, Region) and mixes_states(region):
        translator.findings.told.append(Refusal(cone[-1].name, cone[-1].kind, MIXED))
        return translator.findings.told[-1]
    largest = [c for c in cone if c.kind == "ReduceMax"] if Kind.NONLINEAR in reason.kind else []
    if largest:
        entered = [translator.lookup(v) for call in cone for v in call.operands if v is not None]
        started = any(isinstance(item, Flow) and "t" not in item.axes for item in entered)
        why = STARTED if started else STABILISED
        translator.findings.told.append(Refusal(largest[0].name, largest[0].kind, why))
        return translator.findings.told[-1]
    for call in cone if Kind.NONLINEAR in reason.kind and _own_reason(translator, first) is None else ():
        streams = [v for v in call.operands if v is not None and isinstance(translator.lookup(v), Raw | Flow)]
        if call.kind in ("MatMul", "Einsum") and len(streams) > 1:
            why = f"a product of two values that mix time (attention), which {reason}"
            return refusal(call.name, call.kind, reason.within(why))
    if not isinstance(raw, Raw):
        return refusal(first.name, first.kind, reason)
    own = _own_reason(translator, first) or raw.reason
    return refusal(first.name, first.kind, Reason(f"{own}, and the whole of it {reason}", own.kind | reason.kind))


def _own_reason(translator: Translator, call: Call) -> Reason | None:
    """Why a call by itself is more than a step, where its operands are known."""
    items = [None if v is None else translator.lookup(v) for v in call.operands]
    if any(isinstance(item, Raw) for item in items):
        return None
    before = translator.findings.copy()
    try:
        translator.apply(call, items)
    except Unsupported as unsupported:
        return unsupported.reason
    except ValueError:
        return None
    finally:
        translator.findings.restore(before)
    return None


def _spelled_out(translator: Translator, cone: Sequence[Call], tried: set[int], exact: list[Refusal]) -> bool:
    """Say calls of the cone by themselves: a strided filter, a sum over all steps.

    Only the first that can be, as the rest may be a system with it; more at once, the more there were: after each round
    the whole cone is looked through again.
    """
    most = 1 + sum(position < 0 for position in tried) // SPELLED
    done: list[int] = []
    for call in sorted(cone, key=lambda call: call.kind != "Concat"):  # frames as a whole before each by itself
        if -call.position in tried or not any(isinstance(translator.lookup(v), Raw) for v in call.results):
            continue
        try:
            with translator.builder.origin(call.provenance):
                results = spelled_out(translator, call)
        except Unsupported as unsupported:
            if Kind.RISING in unsupported.reason.kind:
                exact.append(refusal(call.name, call.kind, unsupported.reason))
            continue
        except ValueError:
            continue
        tried.add(-call.position)
        translator.findings.spans += 1
        translator.env.update(zip(call.results, results, strict=False))
        done.append(call.position)
        if len(done) == most:
            break
    if done:
        _carry_on(translator, [c for c in cone if c.position > min(done) and c.position not in done])
    return bool(done)
