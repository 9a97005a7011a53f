"""States that are potentials of neurons, as the op `spike`: reset in the step after they fired, or in the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Refused, Tracked, Unsupported
from ssmc.frontend.graph.joint import apart
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.states.lifting import Lifting, State
from ssmc.frontend.states.spiking import Neurons, find_neurons, find_resetting, neurons_error, refusal
from ssmc.frontend.states.transition import Map
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

SMOOTH = frozenset(["Tanh", "Sigmoid", "Softplus", "Erf", "Gelu", "Exp", "Log", "Sqrt", "Softmax", "Pow", "Sin", "Cos"])

COMPARED = frozenset(["Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Sign", "Where", "Equal"])


def lift_neurons(lifting: Lifting, driven: Translator, drives: Sequence[Tracked], outside: Sequence[Value]) -> None:
    """Lift a state that is not linear: the potential of neurons, with the spikes that are carried beside it.

    Spikes that are given at first, and need not be those of the first potential, count in the first step alone.
    Raises Unsupported with the reason where it is no such thing.
    """
    try:
        _lift_neurons(lifting, driven, drives, outside)
    except Unsupported as unsupported:
        raise Unsupported(bent(lifting) or unsupported.reason) from unsupported


def bent(lifting: Lifting) -> str | None:
    """Where a state goes through what is smooth and not linear, as those of recurrent networks do."""
    calls = lifting.translator.listing.needed(
        [s.following for s in lifting.states], {s.current for s in lifting.states}
    )
    bends = [c for c in calls if c.kind in SMOOTH and not lifting.influenced.isdisjoint(c.operands)]
    if not bends:
        return None
    shown = ", ".join(f"{call.kind} '{call.name}'" for call in bends[:4]) + ", ..." * (len(bends) > 4)
    return f"the next state is not a linear function of the state, as in RNN, GRU and LSTM: it goes through {shown}"


def _lift_neurons(lifting: Lifting, driven: Translator, drives: Sequence[Tracked], outside: Sequence[Value]) -> None:
    which = _potential(lifting)
    alone = Lifting(lifting.translator, [lifting.states[which]], lifting.disguise, lifting.like)
    alone.influenced, alone.where = lifting.influenced, lifting.where
    alone.layouts, alone.features = [lifting.layouts[which]], [lifting.features[which]]
    carried = [state for state in lifting.states if state is not lifting.states[which]]
    points = range(len(lifting.translator.samples.points))
    size = alone.batch, prod(alone.features[0])
    maps = [_map(alone, point, outside, carried) for point in points]
    found = find_neurons(maps, *size)
    if found is not None:
        alone.error = neurons_error(found, maps, *size)
        if all(_starts_with(lifting, other, alone.states[0]) for other in carried):
            alone.publish(*_neurons(alone, found, drives[which]))
        else:
            _from_given_spikes(alone, found, drives[which], carried)
    elif carried or not _immediate(alone, driven, maps, outside):
        raise Unsupported(refusal(maps, *size))
    lifting.last = {**alone.last, **_lasts(lifting, carried)}


def _potential(lifting: Lifting) -> int:
    """Which of the states is a potential: the one whose next value alone makes the next values of all others."""
    if len(lifting.states) == 1:
        return 0
    for which, state in enumerate(lifting.states):
        others = [other for other in lifting.states if other is not state]
        if all(_follows(lifting, other, state) for other in others):
            return which
    calls = lifting.translator.listing.needed(
        [s.following for s in lifting.states], {s.current for s in lifting.states}
    )
    compared = any(c.kind in COMPARED and not lifting.influenced.isdisjoint(c.operands) for c in calls)
    how = "through a threshold, as with a refractory time, one that adapts, or recurrent spikes" if compared else ""
    raise Unsupported(
        f"these {len(lifting.states)} states depend on each other {how or 'and not linearly'}; of neurons only the "
        "potential may be carried from step to step, and the spikes of the step before"
    )


def _follows(lifting: Lifting, other: State, state: State) -> bool:
    """Is the next value of `other` a function of that of `state` alone, and zero with it?"""
    if not all(isinstance(lifting.translator.lookup(v), Known) for v in _beside(lifting, other, state)):
        return False
    return not np.any(_after(lifting, other, state, np.zeros(lifting.layouts[lifting.states.index(state)].shape)))


def _starts_with(lifting: Lifting, other: State, state: State) -> bool:
    """Is `other` zero at first, as it would be after a step that left `state` where it starts?"""
    start, first = state.initial, other.initial
    if not isinstance(start, Known) or not isinstance(first, Known) or np.any(first.array):
        return False
    shape = lifting.layouts[lifting.states.index(state)].shape
    return not np.any(_after(lifting, other, state, np.broadcast_to(start.array, shape)))


def _after(lifting: Lifting, other: State, state: State, x: Array) -> Array:
    """What `other` is when the potential is x, in ONNX layout."""
    given = lifting.translator.samples.at(0, _beside(lifting, other, state))
    found = evaluate(lifting.translator.listing, {**given, state.following: x}, [other.following])
    return np.asarray(found[other.following])


def _beside(lifting: Lifting, other: State, state: State) -> set[Value]:
    """What the next value of `other` is made of, besides that of `state`."""
    calls = lifting.translator.listing.needed([other.following], {state.following})
    made = {state.following, *(v for call in calls for v in call.results)}
    return {v for v in (other.following, *(v for call in calls for v in call.operands)) if v is not None} - made


def _map(
    lifting: Lifting,
    point: int,
    outside: Sequence[Value],
    carried: Sequence[State] = (),
    source: Value | None = None,
    target: Value | None = None,
) -> Map:
    """From the potential (or the value `source`) to its next value (or the value `target`), in rows."""
    state, samples = lifting.states[0], lifting.translator.samples
    layout = lifting.layouts[0]
    given = samples.at(point, outside)
    goal = target or state.following

    def f(x: Array) -> Array:
        array = layout.tensor(x)
        feed: dict[Value, Any] = {**given, source or state.current: array}
        feed.update({other.current: _after(lifting, other, state, array) for other in carried})
        found = evaluate(samples.listing, feed, [goal])[goal]
        return np.asarray(layout.rows(found), np.float64)

    return f


def _immediate(lifting: Lifting, driven: Translator, maps: Sequence[Map], outside: Sequence[Value]) -> bool:
    """Potentials that are reset in the step in which they fire; the value before the reset is what is published."""
    translator, state = lifting.translator, lifting.states[0]
    size = lifting.batch, prod(lifting.features[0])
    points = range(len(maps))
    for reached in _cuts(lifting):
        leaks = [_map(lifting, point, outside, target=reached) for point in points]
        resets = [_map(lifting, point, outside, source=reached) for point in points]
        found = find_resetting(leaks, resets, *size)
        if found is None:
            continue
        (drive,) = driven.demand([reached])
        if isinstance(drive, Refused) or (isinstance(drive, Flow) and apart(drive).axes != lifting.layouts[0].axes):
            continue
        lifting.error = neurons_error(found, maps, *size, leaks)
        x, last = _neurons(lifting, found, drive)
        (translator.env[reached],) = lifting.pieces(x)
        lifting.last = {state.name: lifting.pieces(last)[0]}
        return True
    return False


def _neurons(lifting: Lifting, found: Neurons, drive: Tracked) -> tuple[Value, Value]:
    """The op `spike`, and one that reads before the step where something needs that."""
    v = lifting.translator.builder.stream(lifting.vector([drive]), lifting.like)
    operands, attrs = [v, lifting.initial()], found.attributes((prod(lifting.features[0]),))
    lifting.later(lambda: lifting.recurrent("spike", operands, read_before=True, **attrs)[0])
    return lifting.recurrent("spike", operands, **attrs)


def _from_given_spikes(lifting: Lifting, found: Neurons, drive: Tracked, carried: Sequence[State]) -> None:
    """The op `spike` from zeros, driven in the first step by what all that is given makes of it together."""
    translator, builder, state = lifting.translator, lifting.translator.builder, lifting.states[0]
    given = translator.substituted({s.current: s.initial for s in (state, *carried)})
    (first,) = given.demand([state.following])
    if isinstance(first, Refused):
        raise Unsupported("what the first step makes of the potential and the spikes could not be translated")
    later = builder.add("delay", [builder.stream(np.ones(1), lifting.like)], steps=1)
    v = builder.emit("select", [later, lifting.vector([drive]), lifting.vector([first])])
    attrs = found.attributes((prod(lifting.features[0]),))
    lifting.publish(*lifting.recurrent("spike", [builder.stream(v, lifting.like), None], **attrs))
    for other, item in zip((state, *carried), translator.demand([s.following for s in (state, *carried)]), strict=True):
        assert isinstance(item, Flow)
        translator.later[other.current] = lambda item=item, start=other.initial: lifting.delayed(item, start)  # type: ignore[misc]


def _cuts(lifting: Lifting) -> list[Value]:
    """Values through which all goes from the state to its next value, of the state's shape, the last first."""
    state, listing = lifting.states[0], lifting.translator.listing
    calls = listing.needed([state.following], {state.current})
    found = []
    for call in reversed(calls):
        for value in call.results:
            if value == state.following or value not in lifting.influenced:
                continue
            behind = listing.needed([state.following], {value, state.current})
            if any(state.current in c.operands for c in behind):
                continue
            sample = lifting.translator.samples.at(0, [value])[value]
            if np.shape(sample) == lifting.layouts[0].shape and np.asarray(sample).dtype.kind == "f":
                found.append(value)
    return found


def _lasts(lifting: Lifting, carried: Sequence[State]) -> dict[str, Tracked]:
    """The last values of the states that follow from the potential."""
    translator = lifting.translator
    builder, found = translator.builder, dict[str, Tracked]()
    for state, item in zip(carried, translator.demand([state.following for state in carried]), strict=True):
        if not isinstance(item, Flow):
            raise Unsupported("the spikes could not be translated")
        found[state.name] = replace(item, value=builder.add("pool", [item.value], kind="last"))
        if state.current not in translator.later:
            translator.later[state.current] = lambda item=item: lifting.delayed(item, Known(np.zeros(())))  # type: ignore[misc]
    return found
