"""States whose next value is A s + v: an A that is always the same makes an `ssm`, one that changes with the data a
`recurrence`, whose decay is the derivative of the nodes (`tangent`)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ssmc.frontend.graph.builder import Operand
from ssmc.frontend.graph.flow import Flow, Known, Tracked, Unsupported, wrap
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call
from ssmc.frontend.states.block_systems import block_system, every_other, reads_before
from ssmc.frontend.states.lifting import Lifting
from ssmc.frontend.states.tangent import tangents
from ssmc.frontend.states.transition import Transition, find_transition
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

MIXED = (
    "the states are mixed by a matrix that depends on the data (as by the delta rule of DeltaNet and RWKV-7); the "
    "targets multiply states by decays of the data, or by matrices that are the same at every step"
)
FAR, FAR_TOLERANCE = (1e3, 1e6), 1e-6  # states so large show what a threshold hides from small ones


def _map(lifting: Lifting, point: int, outside: Sequence[Value]) -> Any:
    samples, states = lifting.translator.samples, lifting.states
    apart = [s.following for s in states if s.following not in lifting.influenced]
    given = samples.at(point, [*outside, *apart])

    def f(x: Array) -> Array:
        feed = dict(given)
        start = 0
        for state, layout, features in zip(states, lifting.layouts, lifting.features, strict=True):
            size = prod(features)
            feed[state.current] = layout.tensor(x[:, start : start + size])
            start += size
        found = evaluate(samples.listing, feed, [state.following for state in states])
        rows = [layout.rows(found[s.following]) for s, layout in zip(states, lifting.layouts, strict=True)]
        return np.concatenate(rows, axis=1).astype(np.float64)

    return f


def transitions_of(lifting: Lifting, outside: Sequence[Value]) -> list[Transition]:
    """A of every sample; none where the next state is not linear."""
    found = []
    for point in range(len(lifting.translator.samples.points)):
        rng = np.random.default_rng(point)
        transition = find_transition(_map(lifting, point, outside), lifting.batch, lifting.features, rng)
        if transition is None:
            return []
        found.append(transition)
    lifting.error = _check(lifting, found, outside)
    return found if all(_check(lifting, found, outside, far) <= FAR_TOLERANCE for far in FAR) else []


def _check(lifting: Lifting, transitions: Sequence[Transition], outside: Sequence[Value], scale: float = 1.0) -> float:
    """Largest error of A s + v at fresh states of some size, relative to the largest next state."""
    worst = 0.0
    for point, transition in enumerate(transitions):
        x = scale * np.random.default_rng(99 + point).standard_normal(transition.offset.shape)
        expected = _map(lifting, point, outside)(x)
        error = float(np.abs(transition.apply(x) - expected).max(initial=0.0))
        worst = max(worst, error / max(float(np.abs(expected).max(initial=0.0)), 1e-300))
    return worst


def lift_system(lifting: Lifting, transition: Transition, drives: Sequence[Tracked]) -> None:
    """An `ssm` with one group per block; B and C are identities, which later fusion fills."""
    builder, pairs = lifting.translator.builder, transition.complex_pairs
    order = transition.index.reshape(-1)
    u = builder.stream(lifting.take(lifting.vector(drives), order), lifting.like)
    system = block_system(transition, pairs)
    initial = lifting.initial()
    x0: Operand | None = None
    if initial is not None:
        x0 = lifting.take(initial, order)
        if pairs is not None:
            x0 = builder.emit("complex", [every_other(builder, x0, 0), every_other(builder, x0, 1)])
        x0 = x0 if isinstance(x0, Value) else builder.constant(x0)
    y, final = lifting.recurrent("ssm", [u, None, x0], system=system)
    last: Operand = final
    back = np.argsort(order)
    if pairs is not None:
        last = builder.concat([builder.emit("real", [last]), builder.emit("imag", [last])], -1)
        last = lifting.take(last, np.argsort(transition.index.T.reshape(-1)))
    else:
        last = lifting.take(last, back)
    lifting.publish(lifting.take(y, back), last)

    def before() -> Operand:
        early, _ = lifting.recurrent("ssm", [u, None, x0], system=reads_before(system))
        return lifting.take(early, back)

    lifting.later(before)


def lift_recurrence(
    lifting: Lifting, transition: Transition, driven: Translator, calls: Sequence[Call], drives: Sequence[Tracked]
) -> None:
    """x_k = a_k x_{k-1} + v_k with a_k computed from the data, elementwise or as complex numbers."""
    builder, pairs = lifting.translator.builder, transition.complex_pairs
    if transition.width > 1 and pairs is None:
        raise Unsupported(MIXED)
    v, initial = lifting.vector(drives), lifting.initial()
    order = transition.index.T.reshape(-1)  # all first parts, then all second parts
    back = np.argsort(order)
    half = len(order) // 2
    seeds = np.ones(len(order)) if pairs is None else np.isin(np.arange(len(order)), transition.index[:, 0])
    slopes = tangents(driven, calls, _seeds(lifting, seeds.astype(np.float64)), [s.following for s in lifting.states])
    a = lifting.vector(
        [_for_one_sample(lifting, x, layout.axes) for x, layout in zip(slopes, lifting.layouts, strict=True)]
    )
    operands: list[Operand | None] = [a, v, initial]
    if pairs is not None:
        operands = [
            None
            if x is None
            else builder.emit("complex", [lifting.take(x, order[:half]), lifting.take(x, order[half:])])
            for x in operands
        ]
    assert operands[1] is not None
    full = [operands[0], builder.stream(operands[1], lifting.like), operands[2]]
    y, final = lifting.recurrent("recurrence", full)

    def parts(x: Operand) -> Operand:
        if pairs is None:
            return x
        return lifting.take(builder.concat([builder.emit("real", [x]), builder.emit("imag", [x])], -1), back)

    lifting.publish(parts(y), parts(final))
    lifting.later(lambda: parts(lifting.recurrent("recurrence", full, read_before=True)[0]))


def _for_one_sample(lifting: Lifting, slope: Tracked, axes: str) -> Tracked:
    """A slope that the samples share: nothing that it was multiplied by told which axis the batch is."""
    at = axes.find("b")
    if not isinstance(slope, Flow) or len(slope.axes) != len(axes) or at < 0 or slope.axes[at] == "b":
        return slope
    builder = lifting.translator.builder
    first = builder.slice(slope.value, slope.from_right(at), 0, 1)
    shape = (*slope.shape[:at], 1, *slope.shape[at + 1 :])
    features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
    return wrap(builder.reshape(first, features), axes, shape)


def _seeds(lifting: Lifting, direction: Array) -> dict[Value, Tracked]:
    seeds: dict[Value, Tracked] = {}
    start = 0
    for state, layout, features in zip(lifting.states, lifting.layouts, lifting.features, strict=True):
        rows = np.broadcast_to(direction[start : start + prod(features)], (lifting.batch, prod(features)))
        seeds[state.current] = Known(layout.tensor(rows))
        start += prod(features)
    return seeds
