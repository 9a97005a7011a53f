"""From a state and its next value to a linear system: the one primitive behind Scan, Loop and one-step models.

The nodes between a state s and its next value s' are tested to be affine in s, s' = A s + v. The drive v is
those nodes at s = 0; A is found by evaluating them (`transition`). An A that is always the same makes an `ssm`;
one that changes with the data a `recurrence`, whose decay is the derivative of the nodes (`tangent`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import networkx as nx
import numpy as np

from ssmc.frontend.block_systems import block_system, every_other, reads_before, widest
from ssmc.frontend.builder import Operand
from ssmc.frontend.evaluate import evaluate
from ssmc.frontend.findings import Lift, Refusal
from ssmc.frontend.flow import Flow, Known, Refused, Tick, Tracked, Unsupported, known_operand, wrap
from ssmc.frontend.listing import Call
from ssmc.frontend.rows import layout_of
from ssmc.frontend.stabilised import find_stabilisers, growing, last_states, without
from ssmc.frontend.tangent import tangents
from ssmc.frontend.transition import Transition, find_transition
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor
from ssmc.statespace import StateSpace

UNTRANSLATED = "the drive of the state could not be translated"
FAR, FAR_TOLERANCE = (1e3, 1e6), 1e-6  # states so large show what a threshold hides from small ones


@dataclass(frozen=True)
class State:
    """A carried value: `current` is read in a step, `following` is its next value, `initial` what it starts from."""

    name: str
    current: Value
    following: Value
    initial: Flow | Known


def lift_states(translator: Translator, states: Sequence[State], disguise: str, like: Value) -> dict[str, Tracked]:
    """Turn the states into systems; afterwards the translator knows `current` and `following` of each.

    `like` is any stream of the model. Returns the last state of each, as sequence values. States that are not
    linear become Refused, with a line in the findings.
    """
    states = [replace(state, following=_renamed_from(translator, state)) for state in states]
    if stabilisers := find_stabilisers(translator, states):
        if grown := growing(translator, stabilisers):
            translator.findings.refusals += grown
            return Lifting(translator, states, disguise, like)._give_up()
        found = lift_states(translator, without(translator, states, stabilisers), disguise, like)
        return last_states(translator, states, stabilisers, found, disguise, like)
    influenced = [translator.listing.influenced({state.current}) for state in states]
    links: nx.DiGraph[int] = nx.DiGraph()
    links.add_nodes_from(range(len(states)))
    for i, reach in enumerate(influenced):
        links.add_edges_from((i, j) for j, state in enumerate(states) if state.following in reach)
    groups = nx.condensation(links)
    last: dict[str, Tracked] = {}
    for group in nx.topological_sort(groups):
        members = sorted(groups.nodes[group]["members"])
        lifting = Lifting(translator, [states[i] for i in members], disguise, like)
        last.update(lifting.run(set().union(*(influenced[i] for i in members))))
    return last


def _renamed_from(translator: Translator, state: State) -> Value:
    """The next value of a state before it was only given another name: what reads it may read it there."""
    value = state.following
    while (call := translator.listing.producer.get(value)) is not None and call.kind == "Identity":
        source = call.operands[0]
        if source is None or source == state.current or translator.lookup(source) is not None:
            break
        value = source
    return value


@dataclass(eq=False)
class Lifting:
    """States that depend on each other, lifted together."""

    translator: Translator
    states: Sequence[State]
    disguise: str
    like: Value

    def run(self, influenced: set[Value]) -> dict[str, Tracked]:
        self.influenced = influenced
        translator, states = self.translator, self.states
        followings = [state.following for state in states]
        calls = [
            call
            for call in translator.listing.needed(followings, {state.current for state in states})
            if any(v in influenced for v in call.operands)
        ]
        outside = {v for call in calls for v in call.operands if v is not None and v not in influenced}
        frontier = sorted(outside) + [v for v in followings if v not in influenced]
        found = translator.demand(frontier)
        if any(isinstance(item, Refused) for item in found):
            return self._give_up()
        where = tuple(dict.fromkeys(name for call in calls for name in call.provenance))
        if not calls:
            return self._delay(states[0], found[-1])
        try:
            with translator.builder.origin(where):
                return self._lift(calls, sorted(outside), where)
        except Unsupported as reason:
            name = calls[0].name if calls else states[0].name
            kind = calls[0].kind if calls else "state"
            if str(reason) == UNTRANSLATED and translator.findings.refusals:  # its reason is among them
                return self._give_up()
            translator.findings.refusals.append(Refusal(name, kind, str(reason)))
            return self._give_up()

    def _give_up(self) -> dict[str, Tracked]:
        for state in self.states:
            self.translator.env[state.current] = self.translator.env[state.following] = Refused()
        return {state.name: Refused() for state in self.states}

    def _delay(self, state: State, following: Tracked) -> dict[str, Tracked]:
        """A state that only hands the next value on: what reads it reads the step before."""
        builder, translator = self.translator.builder, self.translator
        translator.env[state.following] = following
        if not isinstance(following, Flow) or following == state.initial:
            translator.env[state.current] = following if isinstance(following, Known) else state.initial
            return {state.name: following}
        stream = replace(following, value=builder.stream(following.value, self.like))
        translator.later[state.current] = lambda: self.delayed(stream, state.initial)
        return {state.name: replace(stream, value=builder.add("pool", [stream.value], kind="last"))}

    def delayed(self, following: Flow, start: Flow | Known) -> Tracked:
        """What was there a step before, at first `start`."""
        builder, layout = self.translator.builder, layout_of(following, following.shape)
        shape = layout.features
        if isinstance(start, Known) and not np.any(start.array):
            return replace(following, value=builder.add("delay", [following.value], steps=1))
        one = np.ones((prod(shape), 1, 1))
        whole = Lifting(self.translator, [], self.disguise, self.like)
        whole.layouts, whole.features = [layout], [shape]
        x0 = whole.vector([start])
        x0 = x0 if isinstance(x0, Value) else builder.constant(x0)
        system = StateSpace(A=np.zeros(one.shape[:2]), B=one, C=one, D=0 * one, read_before=True)
        y, _ = builder.recurrent("ssm", [builder.reshape(following.value, one.shape[:1]), None, x0], system=system)
        return layout.tracked(builder.reshape(y, shape))

    # -- the parts of s' = A s + v -------------------------------------------------------------------------

    def _lift(self, calls: Sequence[Call], outside: Sequence[Value], where: tuple[str, ...]) -> dict[str, Tracked]:
        shapes = [self._shape(state) for state in self.states]
        zeros = {s.current: Known(np.zeros(shape)) for s, shape in zip(self.states, shapes, strict=True)}
        driven = self.translator.substituted(zeros)
        drives = driven.demand([state.following for state in self.states])
        if any(isinstance(item, Refused) for item in drives):
            raise Unsupported(UNTRANSLATED)
        self.layouts = [layout_of(item, shape) for item, shape in zip(drives, shapes, strict=True)]
        self.features = [layout.features for layout in self.layouts]
        self.where = where
        transitions = self._transitions(outside)
        if not transitions:
            self._not_linear(driven, drives, outside)
        elif all(t.index.shape == transitions[0].index.shape and t.invariant(transitions[0]) for t in transitions):
            self._system(transitions[0], drives)
        else:
            self._recurrence(widest(transitions), driven, calls, drives)
        return self.last

    def _not_linear(self, driven: Translator, drives: Sequence[Tracked], outside: Sequence[Value]) -> None:
        """States that are rounded at every step, or potentials of neurons."""
        from ssmc.frontend.firing import lift_neurons
        from ssmc.frontend.rounded_states import lift_rounded, rounds_states

        if not rounds_states(self, outside):
            lift_neurons(self, driven, drives, outside)
            return
        try:
            lift_rounded(self, outside)
        except Unsupported as reason:
            try:
                lift_neurons(self, driven, drives, outside)
            except Unsupported:
                raise reason from None

    def recurrent(self, name: str, operands: Sequence[Operand | None], **attrs: Any) -> tuple[Value, Value]:
        """A system, noted as found."""
        y, last = self.translator.builder.recurrent(name, operands, **attrs)
        self.translator.findings.lifts.append(Lift(last.node, self.disguise, self.where, self.error))
        return y, last

    def _shape(self, state: State) -> tuple[int, ...]:
        found = self.translator.samples.at(0, [state.following])[state.following]
        return tuple(np.shape(found))

    def _map(self, point: int, outside: Sequence[Value]) -> Any:
        samples, states = self.translator.samples, self.states
        apart = [s.following for s in states if s.following not in self.influenced]
        given = samples.at(point, [*outside, *apart])

        def f(x: Array) -> Array:
            feed = dict(given)
            start = 0
            for state, layout, features in zip(states, self.layouts, self.features, strict=True):
                size = prod(features)
                feed[state.current] = layout.tensor(x[:, start : start + size])
                start += size
            found = evaluate(samples.listing, feed, [state.following for state in states])
            rows = [layout.rows(found[s.following]) for s, layout in zip(states, self.layouts, strict=True)]
            return np.concatenate(rows, axis=1).astype(np.float64)

        return f

    @property
    def batch(self) -> int:
        return self.layouts[0].batch

    def _transitions(self, outside: Sequence[Value]) -> list[Transition]:
        """A of every sample; none where the next state is not linear."""
        found = []
        for point in range(len(self.translator.samples.points)):
            rng = np.random.default_rng(point)
            transition = find_transition(self._map(point, outside), self.batch, self.features, rng)
            if transition is None:
                return []
            found.append(transition)
        self.error = self._check(found, outside)
        return found if all(self._check(found, outside, far) <= FAR_TOLERANCE for far in FAR) else []

    def _check(self, transitions: Sequence[Transition], outside: Sequence[Value], scale: float = 1.0) -> float:
        """Largest error of A s + v at fresh states of some size, relative to the largest next state."""
        worst = 0.0
        for point, transition in enumerate(transitions):
            x = scale * np.random.default_rng(99 + point).standard_normal(transition.offset.shape)
            expected = self._map(point, outside)(x)
            error = float(np.abs(transition.apply(x) - expected).max(initial=0.0))
            worst = max(worst, error / max(float(np.abs(expected).max(initial=0.0)), 1e-300))
        return worst

    # -- building ------------------------------------------------------------------------------------------

    def vector(self, items: Sequence[Tracked]) -> Operand:
        """Tensors of the states' shapes as one vector of all n states."""
        builder = self.translator.builder
        parts: list[Operand] = []
        for item, features, layout in zip(items, self.features, self.layouts, strict=True):
            if isinstance(item, Known):
                value = known_operand(builder, layout.spread(np.asarray(item.array, np.float64)), layout.axes)
            elif isinstance(item, Tick):
                rows = np.asarray(item.values, np.float64)
                rows = rows.reshape(len(rows), *(1,) * (len(layout.shape) + 1 - rows.ndim), *rows.shape[1:])
                steps = np.stack([layout.spread(row) for row in rows])
                value = known_operand(builder, steps, "t" + layout.axes, self.like)
            else:
                assert isinstance(item, Flow)
                value = builder.broadcast(item.value, features)
            parts.append(builder.reshape(value, (prod(features),)))
        return builder.concat(parts, -1)

    def take(self, x: Operand, index: Any) -> Operand:
        """Features of `x` in another order."""
        size = self.translator.builder.features(x)[-1]
        if np.array_equal(index, np.arange(size)):
            return x
        return self.translator.builder.emit("take", [x], axis=-1, index=Tensor(np.asarray(index, np.int64)))

    def initial(self) -> Operand | None:
        initial = self.vector([state.initial for state in self.states])
        return None if not isinstance(initial, Value) and not np.any(initial) else initial

    def _system(self, transition: Transition, drives: Sequence[Tracked]) -> None:
        """An `ssm` with one group per block; B and C are identities, which later fusion fills."""
        builder, pairs = self.translator.builder, transition.complex_pairs
        order = transition.index.reshape(-1)
        u = builder.stream(self.take(self.vector(drives), order), self.like)
        system = block_system(transition, pairs)
        initial = self.initial()
        x0: Operand | None = None
        if initial is not None:
            x0 = self.take(initial, order)
            if pairs is not None:
                x0 = builder.emit("complex", [every_other(builder, x0, 0), every_other(builder, x0, 1)])
            x0 = x0 if isinstance(x0, Value) else builder.constant(x0)
        y, final = self.recurrent("ssm", [u, None, x0], system=system)
        last: Operand = final
        back = np.argsort(order)
        if pairs is not None:
            last = builder.concat([builder.emit("real", [last]), builder.emit("imag", [last])], -1)
            last = self.take(last, np.argsort(transition.index.T.reshape(-1)))
        else:
            last = self.take(last, back)
        self.publish(self.take(y, back), last)

        def before() -> Operand:
            early, _ = self.recurrent("ssm", [u, None, x0], system=reads_before(system))
            return self.take(early, back)

        self.later(before)

    def _recurrence(
        self, transition: Transition, driven: Translator, calls: Sequence[Call], drives: Sequence[Tracked]
    ) -> None:
        """x_k = a_k x_{k-1} + v_k with a_k computed from the data, elementwise or as complex numbers."""
        builder, pairs = self.translator.builder, transition.complex_pairs
        if transition.width > 1 and pairs is None:
            raise Unsupported("the states are mixed by a matrix that depends on the data")
        v, initial = self.vector(drives), self.initial()
        order = transition.index.T.reshape(-1)  # all first parts, then all second parts
        back = np.argsort(order)
        half = len(order) // 2
        seeds = np.ones(len(order)) if pairs is None else np.isin(np.arange(len(order)), transition.index[:, 0])
        slopes = tangents(driven, calls, self._seeds(seeds.astype(np.float64)), [s.following for s in self.states])
        a = self.vector([self._for_one_sample(x, layout.axes) for x, layout in zip(slopes, self.layouts, strict=True)])
        operands: list[Operand | None] = [a, v, initial]
        if pairs is not None:
            operands = [
                None if x is None else builder.emit("complex", [self.take(x, order[:half]), self.take(x, order[half:])])
                for x in operands
            ]
        assert operands[1] is not None
        full = [operands[0], builder.stream(operands[1], self.like), operands[2]]
        y, final = self.recurrent("recurrence", full)

        def parts(x: Operand) -> Operand:
            if pairs is None:
                return x
            return self.take(builder.concat([builder.emit("real", [x]), builder.emit("imag", [x])], -1), back)

        self.publish(parts(y), parts(final))
        self.later(lambda: parts(self.recurrent("recurrence", full, read_before=True)[0]))

    def _for_one_sample(self, slope: Tracked, axes: str) -> Tracked:
        """A slope that the samples share: nothing that it was multiplied by told which axis the batch is."""
        at = axes.find("b")
        if not isinstance(slope, Flow) or len(slope.axes) != len(axes) or at < 0 or slope.axes[at] == "b":
            return slope
        builder = self.translator.builder
        first = builder.slice(slope.value, slope.from_right(at), 0, 1)
        shape = (*slope.shape[:at], 1, *slope.shape[at + 1 :])
        features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
        return wrap(builder.reshape(first, features), axes, shape)

    def _seeds(self, direction: Array) -> dict[Value, Tracked]:
        seeds: dict[Value, Tracked] = {}
        start = 0
        for state, layout, features in zip(self.states, self.layouts, self.features, strict=True):
            rows = np.broadcast_to(direction[start : start + prod(features)], (self.batch, prod(features)))
            seeds[state.current] = Known(layout.tensor(rows))
            start += prod(features)
        return seeds

    def pieces(self, vector: Operand) -> list[Tracked]:
        """The vector of all n states as tensors of the states' shapes."""
        found: list[Tracked] = []
        start = 0
        for layout, features in zip(self.layouts, self.features, strict=True):
            piece = self.translator.builder.slice(vector, -1, start, start + prod(features))
            found.append(layout.tracked(self.translator.builder.reshape(piece, features)))
            start += prod(features)
        return found

    def publish(self, x: Operand, last: Operand) -> None:
        for state, item in zip(self.states, self.pieces(x), strict=True):
            self.translator.env[state.following] = item
        self.last = {state.name: item for state, item in zip(self.states, self.pieces(last), strict=True)}

    def later(self, before: Any) -> None:
        """The states before each step, made when something other than the recurrence reads them."""
        made: list[Tracked] = []

        def piece(i: int) -> Tracked:
            if not made:
                made.extend(self.pieces(before()))
            return made[i]

        for i, state in enumerate(self.states):
            self.translator.later[state.current] = lambda i=i: piece(i)  # type: ignore[misc]
