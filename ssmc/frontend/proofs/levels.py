"""Parallel scans of logarithmic depth whose number of levels was fixed when the file was traced.

A scan that doubles its shifts (Hillis and Steele, doi:10.1145/7902.7903) or halves its steps (Blelloch, CMU-CS-90-190)
has as many levels as the length has bits; unrolled over a dynamic length, it is right as far as those reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Refusal
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.interface import concrete_shapes, sample_inputs
from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value
from ssmc.ir.types import TensorType

FEWEST = 3  # shifts by 1, 2, 4, or halvings, that tell such a scan (ours)
FEWEST_COMPUTED = 2  # of a scan whose decays are computed (ours)
FARTHEST = 1 << 13  # steps up to which files are run to see how far their levels reach (ours)


def reach(listing: Listing) -> int:
    """So many steps the file's shifts by 1, 2, 4 and so on reach; 0 where there are none, or they reach far, or those
    between are there as well, as of a filter that is written as a sum."""
    shifts = _shifts(listing)
    found = 1
    while found in shifts:
        found *= 2
    if shifts.keys() >= set(range(1, found // 2)):
        return 0
    return found if 1 << FEWEST <= found <= FARTHEST else 0


def fixed_levels(listing: Listing) -> Refusal | None:
    """The node that tells a fixed number of levels, for a file that is another model at another length."""
    steps, shifts = reach(listing), _shifts(listing)
    if steps:
        call, levels = shifts[steps // 2], steps.bit_length() - 1
        return _refusal(call, f"the last of {levels} levels of a scan that doubles its shifts", f"up to {steps} steps")
    halved: dict[object, int] = {}
    deepest: tuple[int, Call] | None = None
    for call in listing.calls:
        behind = max((halved.get(v, 0) for v in call.operands if v is not None), default=0)
        depth = behind + (2 in _constants(listing, call, 4) if call.kind == "Slice" else 0)
        halved.update((value, depth) for value in call.results)
        if deepest is None or depth > deepest[0]:
            deepest = depth, call
    if deepest is None or deepest[0] < FEWEST:
        return None
    return _refusal(deepest[1], f"the last of {deepest[0]} levels of a scan that halves its steps", "at that length")


@dataclass(frozen=True)
class Level:
    """One level of a scan, `u + a shift(u)`: `number` levels so far, `shift` steps, or 0 where it halves them."""

    number: int
    shift: int
    call: Call
    first: Call  # what shifts in the first level

    @property
    def reach(self) -> int:
        return 2 * self.shift or 1 << self.number


def computed_levels(listing: Listing, types: Mapping[str, TensorType]) -> Refusal | None:
    """The last level of a scan with computed decays, `u + a shift(u)` beside `a shift(a)`; None where there is none.

    Its levels are told by the nodes: what such a file gives at longer sequences may well be lifted as what it is, a
    product over as many steps as the levels reach, and is no scan. One within chunks of a fixed size is right at any
    number of these.
    """
    products: dict[Value, Value] = {}  # a shift(a), of what it is a product
    for call in listing.calls:
        if call.kind == "Mul" and (pair := _moved_pair(listing, call)) is not None:
            products[call.results[0]] = pair
    found: dict[Value, Level] = {}  # by the decay
    for call in listing.calls if products else ():
        told = _level(listing, call) if call.kind == "Add" else None
        if told is None:
            continue
        decay, shift, by = told
        before = next((found.get(products[v]) for v in _within(listing, decay) if v in products), None)
        if before is None:
            found[decay] = Level(1, shift, call, by)
        elif shift == 2 * before.shift:
            found[decay] = Level(before.number + 1, shift, call, before.first)
    deepest = max(found.values(), key=lambda level: level.number, default=None)
    if deepest is None or deepest.number < FEWEST_COMPUTED or deepest.reach > FARTHEST:
        return None
    steps, axis = 4 * deepest.reach, _axis(listing, deepest.first)
    shape = _shape_at(listing, types, deepest.first.operands[0], steps)
    if axis is None or not -len(shape) <= axis < len(shape) or shape[axis] < steps:
        return None
    if not deepest.shift:
        what = f"the last of {deepest.number} levels of a scan that halves its steps"
        return _refusal(deepest.call, what, "at that length")
    what = f"the last of {deepest.number} levels of a scan that doubles its shifts"
    return _refusal(deepest.call, what, f"up to {deepest.reach} steps")


def _shape_at(listing: Listing, types: Mapping[str, TensorType], value: Value | None, steps: int) -> tuple[int, ...]:
    """The shape of a value where a dynamic length is so many steps; none where the file does not get there."""
    if value is None:
        return ()
    point = sample_inputs(listing, concrete_shapes(types, 1, steps), types, 0)
    try:
        return tuple(np.shape(evaluate(listing, point, [value])[value]))
    except (UserError, ValueError):
        return ()


def _axis(listing: Listing, call: Call) -> int | None:
    """Along which axis a node shifts; from the end where it is known so."""
    if call.kind == "Pad":
        value = call.operands[1] if len(call.operands) > 1 else None
        pads = np.ravel(listing.constants.get(value, ())) if value is not None else np.zeros(0)
        given = call.operands[3] if len(call.operands) > 3 else None
        moved = np.flatnonzero(pads.reshape(2, -1).any(axis=0)) if pads.size else pads
        if len(moved) != 1:
            return None
        axes = None if given is None else listing.constants.get(given)
        return int(moved[0]) if axes is None else int(np.ravel(axes)[moved[0]])
    along = _constants(listing, call, 3)
    return along.pop() if len(along) == 1 else None


def _level(listing: Listing, call: Call) -> tuple[Value, int, Call] | None:
    """(what a is made from, the shift or 0 where every second step is taken, what shifts) of `u + a shift(u)`."""
    for own, other in (call.operands, call.operands[::-1]):
        product = listing.producer.get(other) if other is not None else None
        if own is None or product is None or product.kind != "Mul":
            continue
        whole, _, _ = _source(listing, own)
        for moved, decay in (product.operands, product.operands[::-1]):
            if moved is None or decay is None or decay in listing.constants:
                continue
            source, numbers, by = _source(listing, moved)
            made, _, _ = _source(listing, decay)
            if source == whole and by is not None and made != source and source not in listing.constants:
                return made, 0 if 0 in numbers else max(numbers), by
    return None


def _moved_pair(listing: Listing, call: Call) -> Value | None:
    """What both factors are, one of them some steps later."""
    first, second = (None if v is None else _source(listing, v) for v in call.operands)
    if first is None or second is None or first[0] != second[0] or call.operands[0] == call.operands[1]:
        return None
    return first[0] if first[0] not in listing.constants and (first[1] or second[1]) else None


def _source(listing: Listing, value: Value) -> tuple[Value, set[int], Call | None]:
    """What a value is a part of, or padded from, by how many steps, 0 among these where every second is taken, and the
    node that does."""
    numbers: set[int] = set()
    by: Call | None = None
    while (call := listing.producer.get(value)) is not None and call.kind in ("Pad", "Slice", "Identity"):
        if call.operands[0] is None:
            break
        told = _constants(listing, call, 1) if call.kind != "Identity" else set()
        if call.kind == "Slice":
            told |= {-n for n in _constants(listing, call, 2)}
            if 2 in _constants(listing, call, 4):
                told, numbers = {0}, numbers | {0}
        some = {n for n in told if 0 < n <= FARTHEST}
        by = call if some or (call.kind == "Slice" and 0 in numbers and by is None) else by
        numbers |= some
        value = call.operands[0]
    return value, numbers, by


def _within(listing: Listing, value: Value) -> list[Value]:
    """A value, and those that it is joined of."""
    call = listing.producer.get(value)
    joined = [v for v in call.operands if v is not None] if call is not None and call.kind == "Concat" else []
    return [value, *joined]


def _refusal(call: Call, what: str, where: str) -> Refusal:
    reason = f"{what}; their number was fixed at the length that was traced, and the file is right {where} only"
    return Refusal(call.name, call.kind, reason)


def _shifts(listing: Listing) -> dict[int, Call]:
    """By how many steps constants slice or pad, and the first node that does."""
    found: dict[int, Call] = {}
    for call in listing.calls:
        numbers = _constants(listing, call, 1) if call.kind == "Pad" else set()
        if call.kind == "Slice":
            numbers = _constants(listing, call, 1) | {-n for n in _constants(listing, call, 2)}
        for number in numbers:
            found.setdefault(number, call)
    return found


def _constants(listing: Listing, call: Call, slot: int) -> set[int]:
    value = call.operands[slot] if len(call.operands) > slot else None
    array = None if value is None else listing.constants.get(value)
    return set() if array is None else {int(n) for n in np.ravel(np.asarray(array))}
