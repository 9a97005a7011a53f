"""Neurons that no two lines describe, as a net of sums and thresholds: recurrent weights, adaptive thresholds, holds.

Between its comparisons such a step is linear, and what a comparison holds back or resets is a product with 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Tracked, Unsupported
from ssmc.frontend.reasons import Kind, Reason
from ssmc.frontend.source.samples import Samples
from ssmc.frontend.states.lifting import Lifting
from ssmc.frontend.states.rounded_sums import lift_sums
from ssmc.frontend.states.state_step import Step
from ssmc.frontend.states.sum_nets import Gated
from ssmc.frontend.states.sum_nodes import Rounding
from ssmc.frontend.states.thresholds import Written, as_roundings
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

NO_NET = Reason("nothing in it is compared", Kind.NOT_COMPARED)


def lift_net(lifting: Lifting, outside: Sequence[Value]) -> None:
    """Lift states of which a step compares sums. Raises Unsupported, with the reason, where it does more."""
    outer = lifting.translator
    written = as_roundings(
        outer.listing,
        outer.samples,
        lifting.influenced,
        partial(_known, outer),
        {state.current: state.following for state in lifting.states if _is_binary(state.initial)},
    )
    if written is None:
        raise Unsupported(NO_NET)
    points = [dict(point) for point in outer.samples.points]
    inner = Translator(
        written.listing,
        outer.builder,
        Samples(written.listing, points),
        outer.findings,
        outer.meanings,
        outer.in_step,
        dynamic=outer.dynamic,
        stream=outer.stream,
        probing=outer.probing,
        outer=outer,
    )
    own = replace(lifting, translator=inner, influenced=written.influenced)
    step = Step(own, tuple(outside))
    between = {value for call in step.calls(step.currents, step.followings) for value in call.results}
    _check(written, between)
    products = [_gated(step, p.factor, p.gate, p.result) for p in written.products if p.result in between]
    thresholds = [_threshold(step, x, y) for x, y in written.thresholds.items() if y in between]
    lift_sums(step, thresholds, products, written.binary)
    lifting.error, lifting.last = own.error, own.last
    old = outer.listing
    known = {*old.producer, *step.currents}
    outer.env.update({value: item for value, item in inner.env.items() if value in known})
    outer.later.update({value: item for value, item in inner.later.items() if value in known})
    for value in written.spikes:
        if value in between and value not in outer.env:
            outer.later[value] = partial(_settled, inner, value)


def _known(translator: Translator, value: Value) -> Array | None:
    item = translator.lookup(value)
    return np.asarray(item.array) if isinstance(item, Known) else None


def _is_binary(initial: Flow | Known) -> bool:
    return isinstance(initial, Known) and bool(np.isin(initial.array, (0.0, 1.0)).all())


def _check(written: Written, between: set[Value]) -> None:
    """Raises Unsupported where what multiplies a state is a state, or what the data give."""
    for value, call in written.curved.items():
        if value not in between:
            continue
        both = all(v in written.influenced for v in call.operands)
        raise Unsupported(
            f"its neurons go through {call.kind} '{call.name}', "
            + ("a product of two of their states" if both else "which multiplies a state by what the data give")
            + "; between thresholds a step must be linear, and what a threshold switches may be any state"
        )


def _settled(translator: Translator, value: Value) -> Tracked:
    return translator.demand([value])[0]


def _threshold(step: Step, source: Value, result: Value) -> Rounding:
    shape = step.lifting.translator.samples.shape(result)
    size = int(np.prod(shape))
    grid = np.repeat(np.array([[1.0], [0.0], [0.0], [0.0], [1.0]]), size, axis=1)
    call = step.lifting.translator.listing.producer[result]
    return Rounding(call, source, result, shape, grid, "ceil", np.ones(size), np.zeros(size))


def _gated(step: Step, factor: Value, gate: Value, result: Value) -> Gated:
    call = step.lifting.translator.listing.producer[result]
    return Gated(factor, gate, result, step.lifting.translator.samples.shape(result), call.position)
