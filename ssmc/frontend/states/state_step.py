"""One step of some states, which rounds: its nodes, what it does to numbers, and where all goes through one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Known, Unsupported
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import along
from ssmc.frontend.states.grids import KINDS, Grid, find_grid
from ssmc.frontend.states.lifting import Lifting
from ssmc.frontend.states.transition import Map
from ssmc.ir.graph import Value
from ssmc.ir.op import Array


@dataclass(frozen=True, eq=False)
class Step:
    """The nodes between some states and their next values."""

    lifting: Lifting
    outside: tuple[Value, ...]

    @property
    def currents(self) -> list[Value]:
        return [state.current for state in self.lifting.states]

    @property
    def followings(self) -> list[Value]:
        return [state.following for state in self.lifting.states]

    @property
    def points(self) -> range:
        return range(len(self.lifting.translator.samples.points))

    @property
    def size(self) -> int:
        return sum(int(np.prod(features)) for features in self.lifting.features)

    def shape(self, value: Value) -> tuple[int, ...]:
        """Of a value of a step, in ONNX layout."""
        for state, layout in zip(self.lifting.states, self.lifting.layouts, strict=True):
            if value == state.current:
                return layout.shape
        return tuple(self.lifting.translator.samples.shape(value))

    def calls(self, sources: Sequence[Value], targets: Sequence[Value]) -> list[Call]:
        """What lies between, of what depends on the states."""
        listing, influenced = self.lifting.translator.listing, self.lifting.influenced
        calls = listing.needed(targets, {*sources, *self.outside})
        return [call for call in calls if not influenced.isdisjoint(v for v in call.operands if v is not None)]

    def roundings(self, sources: Sequence[Value], targets: Sequence[Value]) -> list[Call]:
        return [call for call in self.calls(sources, targets) if call.kind in KINDS]

    def map(self, point: int, sources: Sequence[Value], targets: Sequence[Value], which: Sequence[int]) -> Map:
        """From rows of some of the states' places to rows of others; `which` states they stand for."""
        samples, layouts = self.lifting.translator.samples, [self.lifting.layouts[i] for i in which]
        given = samples.at(point, self.outside)
        ends = np.cumsum([0, *(int(np.prod(self.lifting.features[i])) for i in which)])

        def f(x: Array) -> Array:
            feed: dict[Value, Any] = dict(given)
            for source, layout, start, end in zip(sources, layouts, ends, ends[1:], strict=False):
                feed[source] = layout.tensor(np.ascontiguousarray(x[:, start:end]))
            found = evaluate(samples.listing, feed, targets)
            rows = [layout.rows(np.asarray(found[v])) for v, layout in zip(targets, layouts, strict=True)]
            return np.concatenate(rows, axis=1).astype(np.float64)

        return f

    def cuts(self, which: int, source: Value, goals: Sequence[Value]) -> list[Value]:
        """Values of a state's shape through which all goes from `source` to the goals, in order."""
        lifting, found = self.lifting, []
        for call in self.calls([*self.currents, source], goals):
            for value in call.results:
                if value not in goals and value in lifting.influenced and self.fits(value, which):
                    behind = self.calls([value, *self.currents, source], goals)
                    if not any(source in c.operands for c in behind):
                        found.append(value)
        return found

    def fits(self, value: Value, which: int) -> bool:
        sample = np.asarray(self.lifting.translator.samples.at(0, [value])[value])
        return sample.shape == self.lifting.layouts[which].shape and sample.dtype.kind == "f"

    def grid(self, which: int, source: Value, target: Value) -> Grid | None:
        """The grid to which what lies between rounds, if it does nothing else. Raises Unsupported."""
        roundings, others = self.roundings([source], [target]), set(self.currents) - {source}
        if len(roundings) != 1 or any(others & set(call.operands) for call in self.calls([source], [target])):
            return None
        call, lifting = roundings[0], self.lifting
        samples, (seen, *scales) = lifting.translator.samples, call.operands
        assert seen is not None
        if samples.shape(seen) != lifting.layouts[which].shape:
            return None
        values = [self.map(p, [source], [target], [which]) for p in self.points]
        places: list[Map] = []
        for point in self.points:
            place = self.map(point, [source], [seen], [which])
            if call.kind != "QuantizeLinear":
                places.append(place)
                continue
            scale = scales[0]
            if scale is None or not isinstance(lifting.translator.lookup(scale), Known):
                raise Unsupported("its scale is computed from the data")
            array, shape = samples.at(point, [scale])[scale], np.shape(samples.at(point, [seen])[seen])
            rows = lifting.layouts[which].rows(along(array, shape, call.attrs))
            places.append(lambda x, place=place, rows=rows: place(x) / rows)  # type: ignore[misc]
        size = lifting.batch, int(np.prod(lifting.features[which]))
        return find_grid(values, places, KINDS[call.kind], *size)
