"""One-step models of neurons: is an output the spikes that an input holds of the step before?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Listing
from ssmc.ir.graph import Value
from ssmc.ir.op import Array


def are_spikes(
    listing: Listing, point: Mapping[Value, Array], outputs: Mapping[str, Array], source: str, target: str
) -> bool:
    """Can an output be the spikes that a step makes of its potentials, and an input those of the step before?

    They are 0 or 1 and made of another output of their shape alone, the potential. Where it was positive, spikes lower
    it, element by element.
    """
    x, base = listing.inputs[source], outputs[target]
    if not np.isin(base, (0.0, 1.0)).all():
        return False
    inputs = set(listing.inputs.values())
    still = {v: np.zeros(np.shape(a)) if np.asarray(a).dtype.kind == "f" else a for v, a in point.items()}
    before = [
        v for v in inputs if v != x and np.asarray(point[v]).dtype.kind == "f" and np.shape(point[v]) == base.shape
    ]
    end = _unnamed(listing, listing.outputs[target])
    behind = {v for call in listing.needed([end], ()) for v in call.operands}
    reached = listing.influenced({x})
    for name, other in outputs.items():
        potential = _unnamed(listing, listing.outputs[name])
        if name == target or other.shape != base.shape or potential not in behind or potential not in reached:
            continue
        calls = listing.needed([end], {potential})
        read = {v for call in calls for v in call.operands}
        if potential not in read or read & inputs:
            continue
        for charged in before:
            point = {**still, charged: np.ones(base.shape)}

            def following(spikes: Array, given: Mapping[Value, Array] = point, wanted: Value = potential) -> Array:
                return np.asarray(evaluate(listing, {**given, x: spikes}, [wanted])[wanted])

            if _lowers(following, base.shape):
                return True
    return False


def _lowers(f: Callable[[Array], Array], shape: tuple[int, ...]) -> bool:
    """Is every element of f less where the same element of x is 1 instead of 0, whatever the others are?"""
    some = np.indices(shape).sum(axis=0) % 2.0
    silent, fired, mixed = (f(spikes) for spikes in (np.zeros(shape), np.ones(shape), some))
    return bool((fired < silent).all()) and np.array_equal(mixed, np.where(some, fired, silent))


def _unnamed(listing: Listing, value: Value) -> Value:
    """What a value is another name of."""
    while (call := listing.producer.get(value)) is not None and call.kind == "Identity" and call.operands[0]:
        value = call.operands[0]
    return value
