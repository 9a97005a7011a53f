"""One-step models of neurons: is an output the spikes that an input holds of the step before?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Listing
from ssmc.ir.graph import Value
from ssmc.ir.op import Array


@dataclass(eq=False)
class Spikes:
    """Which outputs may be spikes, looked up once each. `point` are sample arrays of all inputs, `outputs` what the
    outputs hold there."""

    listing: Listing
    point: Mapping[Value, Array]
    outputs: Mapping[str, Array]
    _potentials: dict[str, list[Value]] = field(default_factory=dict)
    _reached: tuple[Value, set[Value]] | None = None  # by the input that was asked for last

    def are_pair(self, source: str, target: str) -> bool:
        """Can an output be the spikes that a step makes of its potentials, and an input those of the step before?

        They are 0 or 1 and made of another output of their shape alone, the potential. Where it was positive, spikes
        lower it, element by element.
        """
        x, shape = self.listing.inputs[source], self.outputs[target].shape
        potentials = self._potentials_of(target)
        if not potentials:
            return False
        before = [v for v in self._real if v != x and np.shape(self.point[v]) == shape]
        for potential in potentials:
            if potential not in self._influenced(x):
                continue
            for charged in before:
                given = {**self._still, charged: np.ones(shape)}

                def following(spikes: Array, given: Mapping[Value, Array] = given, wanted: Value = potential) -> Array:
                    return np.asarray(evaluate(self.listing, {**given, x: spikes}, [wanted])[wanted])

                if _lowers(following, shape):
                    return True
        return False

    def _potentials_of(self, target: str) -> list[Value]:
        """Other outputs of its shape of which alone an output of zeros and ones is made."""
        if target in self._potentials:
            return self._potentials[target]
        found: list[Value] = []
        base = self.outputs[target]
        if np.isin(base, (0.0, 1.0)).all():
            listing, end = self.listing, self._unnamed(self.listing.outputs[target])
            inputs = set(listing.inputs.values())
            behind = dict.fromkeys(v for call in listing.needed([end], ()) for v in call.operands if v is not None)
            for potential in behind:
                if not any(n != target and self.outputs[n].shape == base.shape for n in self._named.get(potential, ())):
                    continue
                read = {v for call in listing.needed([end], {potential}) for v in call.operands}
                if potential in read and not read & inputs:
                    found.append(potential)
        self._potentials[target] = found
        return found

    @cached_property
    def _named(self) -> dict[Value, list[str]]:
        """The outputs that each value is given as."""
        names: dict[Value, list[str]] = {}
        for name in self.outputs:
            names.setdefault(self._unnamed(self.listing.outputs[name]), []).append(name)
        return names

    @cached_property
    def _real(self) -> list[Value]:
        return [v for v in self.listing.inputs.values() if np.asarray(self.point[v]).dtype.kind == "f"]

    @cached_property
    def _still(self) -> dict[Value, Array]:
        """Nothing comes in, and nothing is charged."""
        real = set(self._real)
        return {v: np.zeros(np.shape(a)) if v in real else a for v, a in self.point.items()}

    def _influenced(self, x: Value) -> set[Value]:
        if self._reached is None or self._reached[0] != x:
            self._reached = x, self.listing.influenced({x})
        return self._reached[1]

    def _unnamed(self, value: Value) -> Value:
        """What a value is another name of."""
        producer = self.listing.producer
        while (call := producer.get(value)) is not None and call.kind == "Identity" and call.operands[0]:
            value = call.operands[0]
        return value


def _lowers(f: Callable[[Array], Array], shape: tuple[int, ...]) -> bool:
    """Is every element of f less where the same element of x is 1 instead of 0, whatever the others are?"""
    some = np.indices(shape).sum(axis=0) % 2.0
    silent, fired, mixed = (f(spikes) for spikes in (np.zeros(shape), np.ones(shape), some))
    return bool((fired < silent).all()) and np.array_equal(mixed, np.where(some, fired, silent))
