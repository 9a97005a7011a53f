"""Loops over chunks of steps, trip by trip: a listing in which a Scan or Loop is the calls that it makes.

What a trip does to each step by itself (projections, norms, gates) can change places with the join of the chunks only
where the trips stand beside each other (`alike`). The listing holds at the sizes of the point at which it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.loops.alike import join_alike
from ssmc.frontend.loops.limits import MOST_CALLS, MOST_CHUNKS
from ssmc.frontend.loops.moves import in_place
from ssmc.frontend.source.evaluate import body_of, evaluate, scan_form
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.maker import Maker
from ssmc.frontend.source.statics import fold_statics
from ssmc.ir.graph import Value


def in_wholes(listing: Listing, point: Mapping[Value, Any], axes: Mapping[str, str]) -> Listing | None:
    """The listing with what loops over chunks do to each step moved out of them; None where there are none.

    `point` are arrays of all inputs, `axes` their letters by their names.
    """
    sizes = {
        name: dict(zip(letters, np.shape(point[listing.inputs[name]]), strict=True)) for name, letters in axes.items()
    }
    steps = max(named.get("t", 0) for named in sizes.values())
    try:
        trips = in_place(_in_trips(listing, point, steps), point, steps)
        found = join_alike(trips, point, thorough=True)
    except UserError:
        return None
    return None if found is trips else found


def _in_trips(listing: Listing, point: Mapping[Value, Any], steps: int) -> Listing:
    """The listing without the loops that make fewer trips than half the steps; itself where there are none."""
    numbers = {c.position: trips_of(listing, point, c) for c in listing.calls if c.kind in ("Scan", "Loop")}
    chosen = {at: n for at, n in numbers.items() if 1 < n <= min(MOST_CHUNKS, steps // 2)}
    return expanded(listing, point, chosen)


def expanded(listing: Listing, point: Mapping[Value, Any], chosen: Mapping[int, int]) -> Listing:
    """The listing with the loops at the `chosen` positions as so many trips; itself where there are none, or where that
    makes too many calls. Raises UserError or ValueError where a loop cannot be written so."""
    made = sum(n * len(body_of(listing.calls[at]).calls) for at, n in chosen.items())
    if not chosen or made > MOST_CALLS:
        return listing
    found = replace(listing, calls=[], constants=dict(listing.constants), producer={})
    maker = Maker(found)
    for call in listing.calls:
        if call.position in chosen:
            Expansion(listing, point, maker, call, chosen[call.position]).write()
        else:
            maker.add(call)
    fold_statics(found)
    return found


def expanded_throughout(
    listing: Listing, point: Mapping[Value, Any], choose: Callable[[Listing], Mapping[int, int]]
) -> Listing:
    """The listing with the loops that `choose` chooses as their trips, and those that these trips make, and so on, as
    far as they can be written so."""
    while True:
        chosen = choose(listing)
        try:
            found = expanded(listing, point, chosen)
        except (UserError, ValueError):
            return listing
        if found is listing:
            return listing
        listing = found


def trips_of(listing: Listing, point: Mapping[Value, Any], call: Call) -> int:
    """How often a loop is gone through; 0 where that cannot be told."""
    wanted = [v for v in call.operands if v is not None]
    try:
        if call.kind == "Loop":
            return 0 if call.operands[0] is None else int(np.ravel(_at(listing, point, wanted[:1])[0])[0])
        own = _at(listing, point, wanted[: len(wanted) - int(call.op["captured"])])
        form = scan_form(call, len(own), [np.ndim(a) for a in own])
    except (UserError, ValueError):
        return 0
    return int(np.shape(own[form.states])[form.input_axes[0]]) if len(own) > form.states else 0


def _at(listing: Listing, point: Mapping[Value, Any], values: Sequence[Value]) -> list[Any]:
    found = evaluate(listing, dict(point), values)
    return [found[v] for v in values]


@dataclass(eq=False)
class Expansion:
    """The trips of one loop as calls of a listing under construction."""

    listing: Listing
    point: Mapping[Value, Any]
    maker: Maker
    call: Call
    trips: int

    def write(self) -> None:
        """Add the calls of all trips, and those that put their results together."""
        self.body = body_of(self.call)
        self.maker.listing.constants.update({self._named(v): a for v, a in self.body.constants.items()})
        self.maker.listing.formats.update({self._named(v): a for v, a in self.body.formats.items()})
        cut = len(self.call.operands) - int(self.call.op["captured"])
        self.own, self.captured = self.call.operands[:cut], self.call.operands[cut:]
        if self.call.kind == "Scan":
            self._scan()
        else:
            self._loop()

    def _scan(self) -> None:
        own = [v for v in self.own if v is not None]
        form = scan_form(self.call, len(own), [np.ndim(a) for a in _at(self.listing, self.point, own)])
        carried: list[Value | None] = list(own[: form.states])
        rows = []
        for k in range(self.trips):
            seen = [
                self._picked(v, self.trips - 1 - k if backward else k, axis)
                for v, axis, backward in zip(own[form.states :], form.input_axes, form.input_reversed, strict=True)
            ]
            found = self._trip(k, [*carried, *seen])
            carried = list(found[: form.states])
            rows.append(found[form.states :])
        self._finish(carried, rows, form.output_axes, form.output_reversed)

    def _loop(self) -> None:
        carried, rows = list(self.own[2:]), []
        for k in range(self.trips):
            trip, going = (
                self.maker.constant(self.call, np.asarray(k, np.int64)),
                self.maker.constant(self.call, np.asarray(True)),
            )
            found = self._trip(k, [trip, going, *carried])
            rows.append(found[1 + len(carried) :])
            carried = list(found[1 : 1 + len(carried)])
        self._finish(carried, rows, [0] * len(rows[0]), [False] * len(rows[0]))

    def _trip(self, k: int, given: Sequence[Value | None]) -> list[Value]:
        """The calls of a trip; the values of the body's outputs in it."""
        names: dict[Value, Value | None] = dict(zip(self.body.inputs.values(), (*given, *self.captured), strict=True))

        def named(value: Value | None) -> Value | None:
            if value is None or value in names:
                return None if value is None else names[value]
            return self._named(value) if value in self.body.constants else self._named(value, k)

        for call in self.body.calls:
            results = tuple(self._named(v, k) for v in call.results)
            self.maker.add(replace(call, operands=tuple(named(v) for v in call.operands), results=results))
        found = [named(v) for v in self.body.outputs.values()]
        return [v for v in found if v is not None]

    def _finish(
        self,
        carried: Sequence[Value | None],
        rows: Sequence[Sequence[Value]],
        axes: Sequence[int],
        backward: Sequence[bool],
    ) -> None:
        results = list(self.call.results)
        for result, value in zip(results, carried, strict=False):
            if value is not None:
                self.maker.node(self.call, "Identity", [value], result)
        for j, result in enumerate(results[len(carried) :]):
            parts = [row[j] for row in rows][:: -1 if backward[j] else 1]
            wide = [self.maker.node(self.call, "Unsqueeze", [v, self.maker.numbers(self.call, axes[j])]) for v in parts]
            self.maker.node(self.call, "Concat", wide, result, axis=axes[j])

    def _picked(self, value: Value, index: int, axis: int) -> Value:
        number = self.maker.constant(self.call, np.asarray(index, np.int64))
        return self.maker.node(self.call, "Gather", [value, number], axis=axis)

    def _named(self, value: Value, trip: int | None = None) -> Value:
        """A value of the body: of all trips, or of one."""
        place = "body" if trip is None else f"trip{trip}"
        return Value(f"{self.call.results[0].node}.{place}.{value.node}", value.index)
