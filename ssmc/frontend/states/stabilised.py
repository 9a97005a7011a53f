"""Sums of exponentials that are carried divided by their largest term, beside its logarithm, as the sums themselves.

RWKV-4 (arXiv 2305.13048, appendix D) and xLSTM (arXiv 2405.04517, equations 15 to 17) keep exponentials in range by a
running maximum::

    m' = max(m + a, k)        z' = exp(m + a - m') z + exp(k - m') v

Only z exp(m) means anything: what reads the states gives the same for z exp(s) and m - s. So m may be 0 at every step,
and z exp(m') carried instead, which is linear: its decay is exp(a) and its drive exp(k) v.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Findings, Lift, Refusal
from ssmc.frontend.graph.flow import Flow, Known, Refused, Tracked, is_stream, known_operand, wrap
from ssmc.frontend.rules.elementwise import binary, unary
from ssmc.frontend.rules.shape import reshaped
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.samples import Samples
from ssmc.frontend.states.dependence import Dependence, dependence, surroundings
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array, Op
from ssmc.statespace import StateSpace

if TYPE_CHECKING:
    from ssmc.frontend.states.lifting import State

FAR = 1e4  # a logarithm beyond any that a step adds or compares with
TOLERANCE = 1e-9
MAXIMA = ("Max", "Where", "ReduceMax")


@dataclass(frozen=True, eq=False)
class Stabiliser:
    """The state that is a running maximum, the sums that it divides and the shape in which it meets each; the largest
    a = log of what multiplies them in a step."""

    state: State
    sums: Mapping[str, tuple[int, ...]]
    growth: float


def told(findings: Findings) -> tuple[str, ...]:
    """A note for the user, of what was left out."""
    names = findings.stabilisers
    if not names:
        return ()
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    what = "they keep exponentials in range, which must stay below e^88 without them"
    return (f"running maxima are left out ('{names[0]}'{more}): {what}",)


def blamed(findings: Findings, error: UserError) -> UserError:
    """The error of a proof, told of the running maxima that were left out."""
    if not findings.stabilisers:
        return error
    return UserError(
        f"'{findings.stabilisers[0]}' is a running maximum beside sums, and more than that",
        where=error.where,
        why=f"what reads the sums must be the same for any maximum, and is not ({error.what}); a number that is added "
        "to a sum after the division, against a division by zero, would make it so",
        hint="export the layer without its stabiliser, or multiply such a number by exp(-m)",
    )


def is_running_maximum(f: Callable[[Array], Array], shape: tuple[int, ...]) -> bool:
    """Is f(m) = max(m + a, k), element by element?"""
    low, high = f(np.full(shape, -FAR)), f(np.full(shape, FAR)) - FAR
    if low.shape != shape or not np.isfinite(low).all() or not np.isfinite(high).all():
        return False
    rng = np.random.default_rng(4)
    for scale in (1.0, 30.0):
        m = scale * rng.standard_normal(shape)
        if np.abs(f(m) - np.maximum(m + high, low)).max(initial=0.0) > TOLERANCE * FAR:
            return False
    return bool(np.abs(low).max(initial=0.0) < FAR / 2 and np.abs(high).max(initial=0.0) < FAR / 2)


def find_stabilisers(translator: Translator, states: Sequence[State]) -> list[Stabiliser]:
    """Running maxima among the states, and what they are for."""
    found: list[Stabiliser] = []
    if not any(call.kind in MAXIMA for call in translator.listing.calls):
        return found
    known = dependence(translator.listing, (state.current for state in states))
    for state in states:
        if not _may_be(translator.listing, state) or _fed_back(known, states, state):
            continue
        maps = [_map(translator, point, known, state) for point in range(len(translator.samples.points))]
        shape = translator.samples.shape(state.current)
        if not all(is_running_maximum(f, shape) for f in maps):
            continue
        growth = max(float((f(np.full(shape, FAR)) - FAR).max(initial=0.0)) for f in maps)
        for others in _beside(known, states, state):
            sums = {other.name: _meets(translator, known, state, other) for other in others}
            kept = {name: shape for name, shape in sums.items() if shape is not None}
            if kept:
                found.append(Stabiliser(state, kept, growth))
                break
    return found


def _beside(known: Dependence, states: Sequence[State], top: State) -> tuple[list[State], list[State]]:
    """Other states that depend on a state: those of its own layer, and those that do so through other ones."""
    bit, reads = known.bits[top.current], [known.reads.get(state.following, 0) for state in states]
    moved = [(s, r) for s, r in zip(states, reads, strict=True) if s is not top and r & bit]
    through = sum(known.bits[state.current] for state, _ in moved)
    far = [bool(r & through & ~known.bits[state.current]) for state, r in moved]
    return [s for (s, _), f in zip(moved, far, strict=True) if not f], [
        s for (s, _), f in zip(moved, far, strict=True) if f
    ]


def _fed_back(known: Dependence, states: Sequence[State], top: State) -> bool:
    """Does a state depend on another one that depends on it, as where gates see what they made (sLSTM)?"""
    bit, own = known.bits[top.current], known.reads.get(top.following, 0)
    others = [s for s in states if s is not top and own & known.bits[s.current]]
    return any(known.reads.get(s.following, 0) & bit for s in others)


def growing(translator: Translator, found: Sequence[Stabiliser]) -> list[Refusal]:
    """Those whose sums need them, for they grow without bound."""
    makers = [(s.growth, translator.listing.producer[s.state.following]) for s in found if s.growth > TOLERANCE]
    reason = "the sums beside this running maximum grow, by exp({:.3g}) a step; nothing else keeps them in range"
    return [Refusal(call.name, call.kind, reason.format(growth)) for growth, call in makers]


def _may_be(listing: Listing, state: State) -> bool:
    """Is there a maximum on the way to the next value?"""
    calls = listing.needed([state.following], {state.current})
    return any(c.kind in MAXIMA for c in calls) and any(state.current in c.operands for c in calls)


def _map(translator: Translator, point: int, known: Dependence, state: State) -> Callable[[Array], Array]:
    given = _given(translator, point, known, state)

    def f(m: Array) -> Array:
        feed = {**given, state.current: m}
        return np.asarray(evaluate(translator.samples.listing, feed, [state.following])[state.following])

    return f


def _given(translator: Translator, point: int, known: Dependence, *states: State) -> dict[Value, Any]:
    """Sample arrays of what the next states are made of besides the states, and of these."""
    moving = sum(known.bits[state.current] for state in states)
    outside = surroundings(translator.listing, known, [state.following for state in states], moving)
    return translator.samples.at(point, [*sorted(outside), *(state.current for state in states)])


def _meets(translator: Translator, known: Dependence, top: State, other: State) -> tuple[int, ...] | None:
    """The shape in which the running maximum divides another state; None where it does not."""
    given, rng = _given(translator, 0, known, top, other), np.random.default_rng(6)
    m, z = (np.asarray(given[state.current], np.float64) for state in (top, other))

    def following(m: Array, z: Array) -> tuple[Array, Array]:
        feed = {**given, top.current: m, other.current: z}
        found = evaluate(translator.samples.listing, feed, [top.following, other.following])
        return np.asarray(found[top.following]), np.asarray(found[other.following])

    shift = rng.uniform(-1.0, 1.0, m.shape)
    (m0, z0), (m1, z1) = following(m, z), following(m - shift, z)
    if np.abs(z1 - z0).max(initial=0.0) == 0.0 or z0.shape != z.shape:
        return None
    for shape in _placed(m.shape, z.shape):
        m1, z1 = following(m - shift, z * np.exp(shift.reshape(shape)))
        here, there = z0 * np.exp(m0.reshape(shape)), z1 * np.exp(m1.reshape(shape))
        if np.abs(here - there).max(initial=0.0) <= TOLERANCE * np.abs(here).max(initial=0.0):
            return shape
    return None


def _placed(shape: tuple[int, ...], whole: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Ways for a tensor to meet a larger one, with axes of size one put between its own."""
    for places in combinations(range(len(whole)), len(shape)):
        full = [1] * len(whole)
        for place, size in zip(places, shape, strict=True):
            full[place] = size
        if all(d in (1, e) for d, e in zip(full, whole, strict=True)):
            yield tuple(full)


def without(translator: Translator, states: Sequence[State], found: Sequence[Stabiliser]) -> list[State]:
    """The other states, the sums carried as they are, in a listing in which the running maxima are 0."""
    listing = translator.listing
    top = {s.state.name for s in found}
    renamed: dict[Value, Value] = {}
    calls = list(listing.calls)
    constants = dict(listing.constants)
    followings = {state.name: state.following for state in states}
    inner = {c.position for c in listing.needed(followings.values(), {s.current for s in states})}
    kept = []
    for stabiliser in found:
        state = stabiliser.state
        translator.findings.stabilisers.append(listing.producer[state.following].name)
        zero = Value(f"{state.following}.zero")
        constants[zero] = np.zeros(translator.samples.shape(state.current))
        renamed[state.following] = zero
        (factor,) = _made(calls, "Exp", [state.following])
        for other in (s for s in states if s.name in stabiliser.sums):
            target = Value(f"{factor}.{other.name}")
            constants[target] = np.asarray(stabiliser.sums[other.name])
            (shaped,) = _made(calls, "Reshape", [factor, target])
            (whole,) = _made(calls, "Mul", [other.following, shaped])
            renamed[other.following] = whole
    added = range(len(listing.calls), len(calls))
    calls = [
        replace(c, operands=tuple(renamed.get(v, v) for v in c.operands))  # type: ignore[arg-type]
        if c.position not in inner and c.position not in added
        else c
        for c in calls
    ]
    translator.listing = _in_order(replace(listing, calls=calls, constants=constants))
    zeros = {s.state.current: np.zeros(translator.samples.shape(s.state.current)) for s in found}
    given = set(listing.inputs.values()) | {state.current for state in states}
    points = [{v: a for v, a in point.items() if v in given} | zeros for point in translator.samples.points]
    translator.samples = Samples(translator.listing, points)
    for stabiliser in found:
        translator.env[stabiliser.state.current] = Known(zeros[stabiliser.state.current])
    shapes = {name: (s, shape) for s in found for name, shape in s.sums.items()}
    for state in states:
        if state.name in top:
            continue
        if state.name in shapes:
            stabiliser, shape = shapes[state.name]
            initial = _scaled(translator, state.initial, stabiliser.state.initial, shape, 1.0)
            kept.append(replace(state, following=renamed[state.following], initial=initial))
        else:
            kept.append(state)
    return kept


def _made(calls: list[Call], kind: str, operands: Sequence[Value]) -> tuple[Value, ...]:
    """A call added to the others; its results."""
    name = f"{operands[0]}.{kind}.{len(calls)}"
    node = helper.make_node(kind, [f"x{k}" for k in range(len(operands))], ["y"])
    op = Op(f"onnx.{kind}", {"node": node, "version": 13, "opset": 20, "regions": {}, "captured": 0})
    calls.append(Call(kind, op, tuple(operands), (Value(name),), (), len(calls), ("float64",)))
    return calls[-1].results


def _in_order(listing: Listing) -> Listing:
    """The listing with its calls after what they read."""
    maker = {value: k for k, call in enumerate(listing.calls) for value in call.results}
    links = {k: [maker[v] for v in c.operands if v in maker] for k, c in enumerate(listing.calls)}
    order = TopologicalSorter(links).static_order()
    calls = [replace(listing.calls[k], position=position) for position, k in enumerate(order)]
    return replace(listing, calls=calls, producer={v: call for call in calls for v in call.results})


def _scaled(
    translator: Translator, z: Flow | Known, m: Flow | Known, shape: tuple[int, ...], sign: float
) -> Flow | Known:
    """z exp(sign m), m in the shape in which it meets z."""
    if isinstance(z, Known) and isinstance(m, Known):
        whole = np.broadcast_to(np.asarray(m.array, np.float64), m.shape)
        with np.errstate(over="ignore", under="ignore"):
            return Known(np.asarray(z.array, np.float64) * np.exp(sign * whole).reshape(_fitting(whole.shape, shape)))
    if isinstance(m, Known):
        factor: Any = Known(np.exp(sign * np.asarray(m.array, np.float64)).reshape(_fitting(m.shape, shape)))
    else:
        signed = binary(translator.builder, "mul", m, Known(np.asarray(sign)))
        assert isinstance(signed, Flow)
        grown = unary(translator.builder, "exp", signed)
        factor = reshaped(translator, grown, shape) if isinstance(grown, Flow) else grown
    return binary(translator.builder, "mul", z, factor)


def _fitting(own: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape, for a constant that may be one number."""
    return shape if int(np.prod(own)) == int(np.prod(shape)) else (1,) * len(shape)


def last_states(
    translator: Translator,
    states: Sequence[State],
    found: Sequence[Stabiliser],
    last: dict[str, Tracked],
    disguise: str,
    like: Value,
) -> dict[str, Tracked]:
    """The last states as the file carries them: the running maximum, and the sums divided by it."""
    initial = {state.name: state.initial for state in states}
    given = dict(last)
    for stabiliser in found:
        name = stabiliser.state.name
        top = given[name] = _last_maximum(translator, stabiliser.state, disguise, like)
        for other, shape in stabiliser.sums.items():
            item = last[other]
            known = isinstance(item, Flow | Known) and isinstance(top, Flow | Known)
            given[other] = _scaled(translator, item, top, shape, -1.0) if known else Refused()  # type: ignore[arg-type]
    return {name: given[name] for name in initial}


def _last_maximum(translator: Translator, state: State, disguise: str, like: Value) -> Tracked:
    """max(m_0, max_k(k_k - c_k)) + c with c_k the sum of all a up to k, and c that of all."""
    builder, reached = translator.builder, translator.listing.influenced({state.current})
    call = translator.listing.producer.get(state.following)
    if call is None or call.kind != "Max" or len(call.operands) != 2:
        return Refused()
    grown, other = sorted(call.operands, key=lambda v: v not in reached)
    if other is None or grown is None or other in reached:
        return Refused()
    added, compared = translator.demand([grown, other])
    if not isinstance(compared, Flow) or not isinstance(added, Flow | Known):
        return Refused()
    shape, axes = compared.shape, compared.axes
    features = compared.features
    count = int(np.prod(features, dtype=np.int64))
    drive = (
        added.value
        if isinstance(added, Flow)
        else known_operand(builder, np.asarray(added.array), axes[-len(added.shape) :] if added.shape else "")
    )
    drive = builder.stream(builder.reshape(builder.broadcast(drive, features), (count,)), like)
    one = np.ones((count, 1, 1))
    total, end = builder.recurrent("ssm", [drive, None, None], system=StateSpace(A=one[:, 0], B=one, C=one, D=0 * one))
    translator.findings.lifts.append(Lift(end.node, disguise, call.provenance, 0.0))
    apart = builder.binary("sub", compared.value, builder.reshape(total, features))
    assert isinstance(apart, Value) and is_stream(builder, Flow(apart, axes, shape))
    highest = wrap(builder.add("pool", [apart], kind="max"), axes, shape)
    start = binary(builder, "max", highest, state.initial)
    return binary(builder, "add", start, wrap(builder.reshape(end, features), axes, shape))
