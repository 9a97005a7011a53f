"""Where the region behind a value that mixes time is cut: as late as can be.

What follows the last mixing of time is translated step by step, and each value at the cut is explained by probing the
region in front of it (`lti`, `varying`). Where a value at the cut makes no sense by itself the cut moves towards the
end.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from ssmc.frontend.graph.flow import Flow, Known, Raw, Unsupported
from ssmc.frontend.mixing.by_number import ByNumber
from ssmc.frontend.mixing.mixing import explain_region
from ssmc.frontend.mixing.regions import Region, region_of, repeated_entries, twin_entries
from ssmc.frontend.reasons import Reason
from ssmc.frontend.source.listing import Call
from ssmc.frontend.translator import RAW_OPS, Translator
from ssmc.ir.graph import Value

SHORT = 16  # taps of a filter that nothing better is looked for
MOST_CUTS, MOST_WALKED = 1 << 8, 1 << 18  # cuts to try, or calls that all these walk through, whichever is more (ours)
CONTRACTIONS = frozenset(["MatMul", "Gemm", "Einsum", "Conv", "ReduceSum", "ReduceMean", "FusedMatMul"])

# Ops that can stand after the last mixing of time; whether they do is seen when they are translated.
STEPWISE = RAW_OPS - {
    *("Pad", "DFT", "CumSum", "CumProd", "Tile", "Trilu"),
    *("GatherElements", "GatherND", "ScatterElements", "ScatterND"),
}


@dataclass(eq=False)
class Trials:
    """What was tried to explain a value: `left` counts the cuts that may yet be, one less each time, as each costs a
    walk through the cone; `failed` are regions that are nothing, and why: many cuts meet the same. `told` runs the
    last region in front of a value some more, to say how it treats its steps."""

    left: Iterator[int]
    failed: dict[Hashable, Reason] = field(default_factory=dict)
    told: dict[Value, Callable[[], Reason]] = field(default_factory=dict)


def trials_of(cone: Sequence[Call]) -> Trials:
    """Nothing tried yet."""
    return Trials(count(max(MOST_CUTS, MOST_WALKED // len(cone)), -1))


def explained_by_a_cut(
    translator: Translator, value: Value, cone: Sequence[Call], trials: Trials
) -> Flow | Known | Reason:
    """The value by the cut of its cone that needs no long filters, or why there is none.

    Weights that change with time belong to the region at first: a cumulative sum in the log domain is a system only
    with the weights before and behind it.
    """
    weighted: set[Value] = set()
    known = translator.env.copy()
    found = _best_cut(translator, value, cone, weighted, trials)
    if isinstance(found, Reason) and weighted:
        translator.env = known
        found = _best_cut(translator, value, cone, None, trials)
    return found


def _best_cut(
    translator: Translator, value: Value, cone: Sequence[Call], weighted: set[Value] | None, trials: Trials
) -> Flow | Known | Reason:
    solved: dict[Value, Flow | Reason] = {}
    sums = _sums(translator, _late(cone, set()))
    filters, known = long_filters(translator, cone), translator.env.copy()
    found = _cut_before(translator, value, cone, set(), solved, weighted, trials)
    if sums and (isinstance(found, Reason) or long_filters(translator, cone) != filters):
        # The terms of a sum may be no systems while the sum is one, as in the last stage of a parallel scan.
        filters, first = long_filters(translator, cone), translator.env
        translator.env = known
        whole = _cut_before(translator, value, cone, sums, solved, weighted, trials)
        if isinstance(whole, Flow) and long_filters(translator, cone) == filters:
            return whole
        translator.env = first
    return found


def long_filters(translator: Translator, cone: Sequence[Call]) -> frozenset[str]:
    """Filters of many taps, or with no end within the steps that are studied; systems of many inputs that were found in
    their place; and delays in front of systems, as a part of a sum may need that is nothing of the kind with the rest
    of it."""
    items = (translator.lookup(v) for call in cone for v in call.operands if v is not None)
    steps = min((f.shape[f.axes.index("t")] for f in items if isinstance(f, Flow) and "t" in f.axes), default=SHORT)
    short, graph = min(SHORT, steps - 2), translator.builder.graph
    found = [graph.node(name) for name in graph.net]  # in no order, which takes longer
    filters = (n.name for n in found if n.op.name == "fir" and n.op["kernel"].array.shape[-1] > short)
    delays = (
        n.name for n in found if n.op.name == "delay" and any(graph.op(to).name == "ssm" for to in graph.net[n.name])
    )
    joint = (lift.node for lift in translator.findings.lifts if lift.joint and lift.node in graph.net)
    return frozenset([*filters, *delays, *joint])


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
    solved: dict[Value, Flow | Reason],
    weighted: set[Value] | None,
    trials: Trials,
) -> Flow | Known | Reason:
    """The value by a cut of its cone that is as late as can be, before the calls in `barred`; or why there is none."""
    made, users = _made(cone), _users(cone)
    late = {call.position: call for call in _late(cone, barred)}
    while True:
        if next(trials.left) <= 0 or translator.probing.over:  # what is left to try is the value itself
            late.clear()
        exits = _exits(made, late, value)
        wrong = solve(translator, exits, solved, weighted, trials)
        if wrong is not None:
            if wrong == value:
                return solved[wrong]
            _bar(late, users.get(wrong, ()), made)
            continue
        stuck = _translate(translator, list(late.values()), {v: f for v in exits if isinstance(f := solved[v], Flow)})
        if stuck is None:
            return translator.env[value] if late else solved[value]  # type: ignore[return-value]
        _bar(late, [stuck], made)


def cone_of(translator: Translator, value: Value) -> list[Call]:
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


def _users(cone: Sequence[Call]) -> dict[Value, list[Call]]:
    users: dict[Value, list[Call]] = {}
    for call in cone:
        for operand in call.operands:
            if operand is not None:
                users.setdefault(operand, []).append(call)
    return users


def _made(cone: Sequence[Call]) -> dict[Value, Call]:
    return {result: call for call in cone for result in call.results}


def _late(cone: Sequence[Call], barred: set[int]) -> list[Call]:
    """The calls after which nothing in the cone mixes time any more, nor is barred."""
    late = {call.position: call for call in cone}
    _bar(late, (call for call in cone if call.kind not in STEPWISE or call.position in barred), _made(cone))
    return list(late.values())


def _bar(late: dict[int, Call], barred: Iterable[Call], made: Mapping[Value, Call]) -> None:
    """Take some calls from the late ones, and all that lead to them. Every call is looked at once at most."""
    waiting = [call for call in barred if call.position in late]
    while waiting:
        call = waiting.pop()
        if late.pop(call.position, None) is not None:
            waiting += [made[v] for v in call.operands if v is not None and v in made]


def _exits(made: Mapping[Value, Call], late: Mapping[int, Call], value: Value) -> list[Value]:
    """Values that the late calls take from the others."""
    read = [v for call in late.values() for v in call.operands if v is not None] + [value]
    return [v for v in dict.fromkeys(read) if v in made and made[v].position not in late]


def solve(
    translator: Translator,
    exits: Sequence[Value],
    solved: dict[Value, Flow | Reason],
    weighted: set[Value] | None,
    trials: Trials,
) -> Value | None:
    """Explain the exits; the first that cannot be."""

    def tried(value: Value, opened: set[Value]) -> Flow | Reason:
        region = region_of(translator, value, weighted, opened)
        if isinstance(region, Reason):
            return region
        with translator.builder.origin(region.provenance):
            try:
                return _explained(translator, region, trials)
            except Unsupported as unsupported:
                found: Flow | Reason = unsupported.reason
                for more in () if opened else (repeated_entries, twin_entries):
                    inside = more(translator, region.entries)
                    found = tried(value, inside) if inside else found
                    if not isinstance(found, Reason):
                        break
                return found

    for value in exits:
        if value not in solved:
            solved[value] = tried(value, set())
        if isinstance(solved[value], Reason):
            return value
    return None


def _explained(translator: Translator, region: Region, trials: Trials) -> Flow:
    """`explain_region`, which is not run again on what it has failed on. Raises Unsupported."""
    flows = tuple((flow.value, flow.axes, flow.shape) for flow in region.flows)
    same = region.target, region.entries, flows, tuple(call.position for call in region.calls)
    if same in trials.failed:
        raise Unsupported(trials.failed[same])
    probing, within = translator.probing, translator.probing.inside
    probing.inside = True
    try:
        return explain_region(translator, region)
    except Unsupported as unsupported:
        trials.failed[same] = unsupported.reason
        if isinstance(unsupported, ByNumber):
            trials.told[region.target] = unsupported.told
        raise
    finally:
        probing.inside = within


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
