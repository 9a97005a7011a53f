"""States whose next value is A s + v: an A that is always the same makes an `ssm`, one that changes with the data a
`recurrence`, whose decay is the derivative of the nodes (`tangent`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ssmc.frontend.graph.builder import Operand
from ssmc.frontend.graph.flow import Flow, Known, Tracked, Unsupported, wrap
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call
from ssmc.frontend.states.block_systems import block_system, every_other, reads_before, widest
from ssmc.frontend.states.held import by_length, direction_of, going, moving
from ssmc.frontend.states.lifting import Lifting
from ssmc.frontend.states.shared_basis import shared_basis
from ssmc.frontend.states.tangent import tangents
from ssmc.frontend.states.transition import Transition, find_transition
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

MIXED = (
    "the states are mixed by a matrix that depends on the data (as by the delta rule of DeltaNet and RWKV-7); the "
    "targets multiply states by decays of the data, or by matrices that are the same at every step"
)
HELD = (
    "its states are mixed by a matrix without a basis of well-conditioned eigenvectors, and held at steps that are not "
    "those behind a length: such a matrix is run at every step, or up to the end of a sequence (k < length), which is "
    "lifted"
)
LARGEST, HALVINGS = 1e30, 24  # states beyond any use, and steps from there down to where they are limited (ours)
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
    if not all(_check(lifting, found, outside, far) <= FAR_TOLERANCE for far in FAR):
        return []
    if (limit := _limit(lifting, found, outside)) is not None:
        lifting.translator.findings.limits.append((lifting.where[-1] if lifting.where else "", limit))
    return found


def _limit(lifting: Lifting, transitions: Sequence[Transition], outside: Sequence[Value]) -> float | None:
    """How large states and their next values may be, where the one is linear in the other no further, as behind a Clip;
    None where always."""

    reached = 0.0

    def linear(size: float) -> bool:
        nonlocal reached
        largest = 0.0
        for point, transition in enumerate(transitions):
            signs = np.random.default_rng(98 + point).choice([-1.0, 1.0], transition.offset.shape)
            expected = _map(lifting, point, outside)(size * signs)
            error = float(np.abs(transition.apply(size * signs) - expected).max(initial=0.0))
            if not error <= FAR_TOLERANCE * size * max(1.0, float(np.abs(transition.matrices).max(initial=0.0))):
                return False
            largest = max(largest, float(np.abs(expected).max(initial=0.0)))
        reached = largest
        return True

    if linear(LARGEST):
        return None
    low, high = np.log10(FAR[-1]), np.log10(LARGEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if linear(10.0**middle) else (low, middle)
    return min(float(10.0**low), reached or np.inf)


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
    stream, last = _system(lifting, transition, drives)
    lifting.publish(stream(False), last())
    lifting.later(lambda: stream(True))


def _system(
    lifting: Lifting, transition: Transition, drives: Sequence[Tracked]
) -> tuple[Callable[[bool], Operand], Callable[[], Operand]]:
    """What makes the states of a system, as they are (or before each step), and what makes the last ones."""
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
    back = np.argsort(order)

    def stream(before: bool) -> Operand:
        found = lifting.recurrent("ssm", [u, None, x0], system=reads_before(system))[0] if before else y
        return lifting.take(found, back)

    def last() -> Operand:
        if pairs is None:
            return lifting.take(final, back)
        parts = builder.concat([builder.emit("real", [final]), builder.emit("imag", [final])], -1)
        return lifting.take(parts, np.argsort(transition.index.T.reshape(-1)))

    return stream, last


def lift_recurrence(
    lifting: Lifting,
    transitions: Sequence[Transition],
    driven: Translator,
    calls: Sequence[Call],
    drives: Sequence[Tracked],
) -> None:
    """x_k = a_k x_{k-1} + v_k with a_k computed from the data, elementwise, as complex numbers, or in a basis."""
    builder, transition = lifting.translator.builder, widest(transitions)
    pairs = transition.complex_pairs
    if transition.width > 1 and pairs is None:
        _lift_mixed(lifting, transitions, driven, calls, drives)
        return
    v, initial = lifting.vector(drives), lifting.initial()
    order = transition.index.T.reshape(-1)  # all first parts, then all second parts
    back = np.argsort(order)
    half = len(order) // 2
    seeds = np.ones(len(order)) if pairs is None else np.isin(np.arange(len(order)), transition.index[:, 0])
    operands: list[Operand | None] = [_moved(lifting, driven, calls, seeds.astype(np.float64)), v, initial]
    if pairs is not None:
        operands = [
            None
            if x is None
            else builder.emit("complex", [lifting.take(x, order[:half]), lifting.take(x, order[half:])])
            for x in operands
        ]

    def parts(x: Operand) -> Operand:
        if pairs is None:
            return x
        return lifting.take(builder.concat([builder.emit("real", [x]), builder.emit("imag", [x])], -1), back)

    _recur(lifting, operands, parts)


def _lift_mixed(
    lifting: Lifting,
    transitions: Sequence[Transition],
    driven: Translator,
    calls: Sequence[Call],
    drives: Sequence[Tracked],
) -> None:
    """x = V z, z_k = a_k z_{k-1} + V^-1 v_k, where all A_k = V diag(a_k) V^-1; else states that are held at the end."""
    builder, index = lifting.translator.builder, widest(transitions).index
    basis = shared_basis(transitions, index)
    if basis is None:
        _hold(lifting, moving(transitions, index), driven, calls, drives)
        return
    a = basis.decays(builder, _moved(lifting, driven, calls, basis.direction))
    v, initial = (
        None if x is None else basis.entering(builder, x) for x in (lifting.vector(drives), lifting.initial())
    )
    _recur(lifting, [a, v, initial], lambda z: basis.leaving(builder, z))


def _hold(
    lifting: Lifting,
    transition: Transition | None,
    driven: Translator,
    calls: Sequence[Call],
    drives: Sequence[Tracked],
) -> None:
    """The system as if no step were held, and its states held from the last step on that is none."""
    if transition is None:
        raise Unsupported(MIXED)
    builder = lifting.translator.builder
    m = going(builder, transition, _moved(lifting, driven, calls, direction_of(transition)))
    if not by_length(builder.graph, m):
        raise Unsupported(HELD)
    x = _system(lifting, transition, drives)[0](False)
    kept = builder.binary("sub", np.ones(builder.features(m)), m)
    _recur(lifting, [kept, builder.binary("mul", m, x), lifting.initial()], lambda h: h)


def _moved(lifting: Lifting, driven: Translator, calls: Sequence[Call], direction: Array) -> Operand:
    """A_k times a direction of all states."""
    slopes = tangents(driven, calls, _seeds(lifting, direction), [s.following for s in lifting.states])
    return lifting.vector(
        [_for_one_sample(lifting, x, layout.axes) for x, layout in zip(slopes, lifting.layouts, strict=True)]
    )


def _recur(lifting: Lifting, operands: Sequence[Operand | None], states: Callable[[Operand], Operand]) -> None:
    """The recurrence of a decay, a drive and what it starts from; `states` makes the states of what it carries."""
    a, v, initial = operands
    assert v is not None
    full = [a, lifting.translator.builder.stream(v, lifting.like), initial]
    z, final = lifting.recurrent("recurrence", full)
    lifting.publish(states(z), states(final))
    lifting.later(lambda: states(lifting.recurrent("recurrence", full, read_before=True)[0]))


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
    """The direction as what the states are, the same in each sample; one that is not all ones and zeros is a value of
    the graph, as products of equal rows may differ in their last digit."""
    seeds: dict[Value, Tracked] = {}
    start = 0
    for state, layout, features in zip(lifting.states, lifting.layouts, lifting.features, strict=True):
        part = direction[start : start + prod(features)]
        seeds[state.current] = Known(layout.tensor(np.broadcast_to(part, (lifting.batch, len(part)))))
        if "b" in layout.axes and not np.isin(part, (0.0, 1.0)).all():
            seeds[state.current] = layout.tracked(lifting.translator.builder.constant(part.reshape(features)))
        start += len(part)
    return seeds
