"""Whole numbers that the file holds its lengths and counts of steps against: behind them it may be another model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ssmc.frontend.source.evaluate import body_of
from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

COMPARED = frozenset(["Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Min", "Max", "Clip", "Mod"])
SIZES = frozenset(["Shape", "Size"])
MOST = 1 << 13  # a bound beyond this is not tried (ours)
LEAST_ENDLESS = 1 << 30  # whole numbers from here on stand for no bound, as the largest of a type (ours)
SEEN = 8  # steps behind a bound, which show what is otherwise there (ours)
MOST_WORK = 1 << 30  # steps times weights that are run once more to see (ours)


@dataclass(frozen=True)
class Bounds:
    """A length to try, `behind` all bounds that can be tried, the first that is `untried`; 0 where there is none."""

    behind: int
    untried: int

    def told(self) -> tuple[str, ...]:
        """A note on what is not proved."""
        if not self.untried:
            return ()
        steps = f"{self.untried} steps"
        return (f"the file compares its length with {steps}, too many to be tried: from there on nothing is proved",)


def bounds_of(listing: Listing, cuts: Collection[int] = ()) -> Bounds:
    """What lengths and numbers of steps are compared with, and the numbers of steps at which sequences may be cut."""
    weights = sum(int(np.size(a)) for a in listing.constants.values()) + len(listing.calls)
    found = {*cuts, *_bounds(listing, set(listing.inputs.values()), listing.constants)}
    tried = {bound for bound in found if bound <= MOST and bound * weights <= MOST_WORK}
    most = max(tried, default=0)
    return Bounds(most + SEEN if most else 0, min(found - tried, default=0))


def _bounds(listing: Listing, data: Collection[Value], constants: Mapping[Value, Array]) -> Iterator[int]:
    """Whole numbers that anything but `data`, and what is computed of it, is compared with."""
    found = _of_data(listing, data)
    for call in listing.calls:
        if call.kind in COMPARED and not any(v in found for v in call.operands):
            told = [np.asarray(constants[v]) for v in call.operands if v is not None and v in constants]
            if len(told) < len(call.operands):
                numbers = (float(np.ravel(a)[0]) for a in told if a.size == 1 and a.dtype.kind in "iuf")
                yield from (int(number) for number in numbers if 0 < number < LEAST_ENDLESS and number == int(number))
        for name in call.op["regions"] if "regions" in call.op.attrs else ():
            body = body_of(call, name)
            outer = {inner: constants[v] for inner, v in _given(call, body) if v is not None and v in constants}
            yield from _bounds(body, _data_within(call, body, found), {**body.constants, **outer})


def _of_data(listing: Listing, data: Collection[Value]) -> set[Value]:
    """The data, and all that is computed of it but its sizes."""
    found = set(data)
    for call in listing.calls:
        if call.kind not in SIZES and any(v in found for v in call.operands):
            found.update(call.results)
    return found


def _given(call: Call, body: Listing) -> Iterator[tuple[Value, Value | None]]:
    """Inputs of a body with the operands that they are, where these are the same in all steps."""
    captured = int(call.op["captured"])
    if captured:
        yield from zip(list(body.inputs.values())[-captured:], call.operands[-captured:], strict=True)


def _data_within(call: Call, body: Listing, found: Collection[Value]) -> set[Value]:
    """Inputs of a body that are data: all but the number of the step, and states that count themselves."""
    data = {inner for inner, value in _given(call, body) if value in found}
    inputs, outputs = list(body.inputs.values()), list(body.outputs.values())
    own = inputs[: len(inputs) - int(call.op["captured"])]
    if call.kind == "Scan":
        count = len(own) - int(call.attrs["num_scan_inputs"])
        states = list(zip(own[:count], call.operands[:count], outputs[:count], strict=True))
        data.update(inner for inner, v in zip(own[count:], call.operands[count : len(own)], strict=True) if v in found)
    else:  # a loop's number of the step and condition come first
        states = list(zip(own[2:], call.operands[2 : len(own)], outputs[1 : len(own) - 1], strict=True))
    data.update(inner for inner, start, _ in states if start in found)
    while True:
        reached = _of_data(body, data)
        more = {inner for inner, _, following in states if following in reached} - data
        if not more:
            return data
        data |= more
