"""From a state and its next value to a linear system: the one primitive behind Scan, Loop and one-step models.

The nodes between a state s and its next value s' are tested to be affine in s, s' = A s + v. The drive v is
those nodes at s = 0; A is found by evaluating them (`transition`). An A that is always the same makes an `ssm`,
one that changes with the data a `recurrence` (`linear_states`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import networkx as nx
import numpy as np

from ssmc.frontend.findings import refusal
from ssmc.frontend.graph.flow import Flow, Known, Refused, Tracked, Unsupported
from ssmc.frontend.graph.rows import layout_of
from ssmc.frontend.reasons import Kind
from ssmc.frontend.source.listing import Call
from ssmc.frontend.states.dependence import Dependence, between, dependence
from ssmc.frontend.states.firing import bent, lift_neurons
from ssmc.frontend.states.firing_nets import lift_net
from ssmc.frontend.states.lifting import UNTRANSLATED, Lifting, State
from ssmc.frontend.states.linear_states import lift_recurrence, lift_system, transitions_of
from ssmc.frontend.states.rounded_states import lift_rounded, rounds_states
from ssmc.frontend.states.stabilised import find_stabilisers, growing, last_states, without
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value


def lift_states(translator: Translator, states: Sequence[State], disguise: str, like: Value) -> dict[str, Tracked]:
    """Turn the states into systems; afterwards the translator knows `current` and `following` of each.

    `like` is any stream of the model. Returns the last state of each, as sequence values. States that are not
    linear become Refused, with a line in the findings.
    """
    states = [replace(state, following=_renamed_from(translator, state)) for state in states]
    if stabilisers := find_stabilisers(translator, states):
        if grown := growing(translator, stabilisers):
            translator.findings.refusals += grown
            return Lifting(translator, states, disguise, like).give_up()
        found = lift_states(translator, without(translator, states, stabilisers), disguise, like)
        return last_states(translator, states, stabilisers, found, disguise, like)
    known = dependence(translator.listing, [state.current for state in states])
    links: nx.DiGraph[int] = nx.DiGraph()
    links.add_nodes_from(range(len(states)))
    for j, state in enumerate(states):
        read = known.reads.get(state.following, 0)
        links.add_edges_from((i, j) for i, other in enumerate(states) if read & known.bits[other.current])
    groups = nx.condensation(links)
    last: dict[str, Tracked] = {}
    for group in nx.topological_sort(groups):
        members = sorted(groups.nodes[group]["members"])
        lifting = Lifting(translator, [states[i] for i in members], disguise, like)
        last.update(_run(lifting, known))
    return last


def _renamed_from(translator: Translator, state: State) -> Value:
    """The next value of a state before it was only given another name: what reads it may read it there."""
    value = state.following
    while (call := translator.listing.producer.get(value)) is not None and call.kind in ("Identity", "Cast"):
        source = call.operands[0]
        if source is None or source == state.current or translator.lookup(source) is not None:
            break
        if call.kind == "Cast" and not (_is_number(translator, source) and _is_number(translator, value)):
            break
        value = source
    return value


def _is_number(translator: Translator, value: Value) -> bool:
    """Is it in floating point, of whatever format? A cast from one to another is no more than a name here."""
    return np.asarray(translator.samples.at(0, [value])[value]).dtype.kind == "f"


def _run(lifting: Lifting, known: Dependence) -> dict[str, Tracked]:
    translator, states = lifting.translator, lifting.states
    followings = [state.following for state in states]
    calls, influenced = between(translator.listing, known, [state.current for state in states], followings)
    lifting.influenced = influenced
    outside = {v for call in calls for v in call.operands if v is not None and v not in influenced}
    frontier = sorted(outside) + [v for v in followings if v not in influenced]
    found = translator.demand(frontier)
    if any(isinstance(item, Refused) for item in found):
        return lifting.give_up()
    where = tuple(dict.fromkeys(name for call in calls for name in call.provenance))
    if not calls:
        if len(states) > 1:
            told = refusal(
                states[0].name, "state", "it changes places with another state, and nothing else happens to it"
            )
            translator.findings.refusals.append(told)
            return lifting.give_up()
        return _delay(lifting, states[0], found[-1] if found else states[0].initial)  # it may be its own next value
    try:
        with translator.builder.origin(where):
            return _lift(lifting, calls, sorted(outside), where)
    except Unsupported as unsupported:
        name = calls[0].name if calls else states[0].name
        kind = calls[0].kind if calls else "state"
        if Kind.UNTRANSLATED in unsupported.reason.kind and translator.findings.refusals:  # its reason is among them
            return lifting.give_up()
        translator.findings.refusals.append(refusal(name, kind, unsupported.reason))
        return lifting.give_up()


def _delay(lifting: Lifting, state: State, following: Tracked) -> dict[str, Tracked]:
    """A state that only hands the next value on: what reads it reads the step before."""
    builder, translator = lifting.translator.builder, lifting.translator
    translator.env[state.following] = following
    if not isinstance(following, Flow) or following == state.initial:
        translator.env[state.current] = following if isinstance(following, Known) else state.initial
        return {state.name: following}
    stream = replace(following, value=builder.stream(following.value, lifting.like))
    translator.later[state.current] = lambda: lifting.delayed(stream, state.initial)
    return {state.name: replace(stream, value=builder.add("pool", [stream.value], kind="last"))}


def _lift(
    lifting: Lifting, calls: Sequence[Call], outside: Sequence[Value], where: tuple[str, ...]
) -> dict[str, Tracked]:
    """The parts of s' = A s + v. Raises Unsupported where it is none, and no state that rounds or fires."""
    followings = [state.following for state in lifting.states]
    sample = lifting.translator.samples.at(0, followings)
    shapes = [np.shape(sample[value]) for value in followings]
    zeros = {s.current: Known(np.zeros(shape)) for s, shape in zip(lifting.states, shapes, strict=True)}
    driven = lifting.translator.substituted(zeros)
    drives = driven.demand(followings)
    if any(isinstance(item, Refused) for item in drives):
        raise Unsupported(UNTRANSLATED)
    told = [  # where nothing drives a state, what it starts from tells which axis the batch is
        s.initial if isinstance(item, Known) and isinstance(s.initial, Flow) and s.initial.shape == shape else item
        for item, s, shape in zip(drives, lifting.states, shapes, strict=True)
    ]
    lifting.layouts = [layout_of(item, shape) for item, shape in zip(told, shapes, strict=True)]
    lifting.features = [layout.features for layout in lifting.layouts]
    lifting.where = where
    transitions = transitions_of(lifting, outside)
    if not transitions:
        _not_linear(lifting, driven, drives, outside)
    elif all(t.index.shape == transitions[0].index.shape and t.invariant(transitions[0]) for t in transitions):
        lift_system(lifting, transitions[0], drives)
    else:
        lift_recurrence(lifting, transitions, driven, calls, drives)
    return lifting.last


def _not_linear(lifting: Lifting, driven: Translator, drives: Sequence[Tracked], outside: Sequence[Value]) -> None:
    """States that are rounded at every step, or potentials of neurons: each by itself, or in a net."""
    reason: Unsupported | None = None
    if rounds_states(lifting, outside):
        try:
            return lift_rounded(lifting, outside)
        except Unsupported as told:
            reason = told
    try:
        lift_neurons(lifting, driven, drives, outside)
    except Unsupported as told:
        if bent(lifting):
            raise reason or told from None
        try:
            lift_net(lifting, outside)
        except Unsupported as other:
            raise reason or (told if Kind.NOT_COMPARED in other.reason.kind else other) from None
