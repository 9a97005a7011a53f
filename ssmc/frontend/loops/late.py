"""Loops that make one trip less than there are steps: which of them are said from the step in front of them on.

What the file puts in front of the first trip is what the step before it gives (`behind`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.graph.flow import Known, Refused, Tracked, Unsupported
from ssmc.frontend.loops.behind import front_of, is_linear
from ssmc.frontend.loops.control import translate_scan
from ssmc.frontend.loops.loop import translate_loop
from ssmc.frontend.source.blame import BROKEN
from ssmc.frontend.source.evaluate import scan_form
from ssmc.frontend.source.listing import Call

if TYPE_CHECKING:
    from ssmc.frontend.translator import Translator

MANY = (1 << 31) - 1  # trips: no bound


def trips_of(translator: Translator, call: Call) -> int | None:
    """How many trips a Scan or Loop makes at most, at the sizes that are studied."""
    values = [v for v in call.operands if v is not None]
    if call.kind == "Loop":
        count = None if call.operands[0] is None else translator.samples.at(0, [call.operands[0]])[call.operands[0]]
        return None if count is None else int(np.asarray(count).reshape(-1)[0])
    arrays = translator.samples.at(0, values)
    own = [arrays[v] for v in values[: len(values) - int(call.op["captured"])]]
    form = scan_form(call, len(own), [np.ndim(a) for a in own])
    return int(np.shape(own[form.states])[form.input_axes[0]]) if len(own) > form.states else None


def from_the_first(translator: Translator, call: Call) -> list[Tracked] | None:
    """What a loop over all steps but the first gives, as one over all steps; None where it is none.

    One that is linear is left to its region, which says it as one system.
    """
    if trips_of(translator, call) != translator.steps - 1 or is_linear(translator, call):
        return None
    return _with_front(translator, call)


def is_unbounded(translator: Translator, call: Call) -> bool:
    """Is it a Loop that its condition alone ends?"""
    if call.kind != "Loop" or translator.in_step or translator.steps < 2:
        return False
    trips = trips_of(translator, call)
    return trips is None or trips >= MANY


def until_it_ends(translator: Translator, call: Call, items: Sequence[Any]) -> list[Tracked] | None:
    """What a loop gives that may end a step earlier than the sequence, as it starts from the first step; None where it
    does not."""
    known, before = translator.env.copy(), translator.findings.copy()
    try:
        with translator.builder.origin(call.provenance):
            found = translator.apply(call, items)
    except Unsupported:
        found = []
    if found and not any(isinstance(item, Refused) for item in found):
        return found
    translator.env = known
    translator.findings.restore(before)
    return _with_front(translator, call)


def _with_front(translator: Translator, call: Call) -> list[Tracked] | None:
    """What a loop gives from the step in front of it on; None where it cannot be said so."""
    known, before = translator.env.copy(), translator.findings.copy()
    try:
        with translator.builder.origin(call.provenance):
            found = _translated(translator, call)
    except (Unsupported, UserError, ValueError, *BROKEN):  # told where the loop is read as the file has it
        found = []
    if found and not any(isinstance(item, Refused) for item in found):
        return found
    translator.env = known
    translator.findings.restore(before)
    return None


def _translated(translator: Translator, call: Call) -> list[Tracked]:
    front = front_of(translator, call)
    captured = len(call.operands) - int(call.op["captured"])
    items: list[Any] = []
    for k, value in enumerate(call.operands):
        if value is None:
            items.append(None)
        elif call.kind == "Scan" and k in front.starts:
            items.append(Known(np.zeros(translator.samples.shape(value))))
        elif call.kind == "Loop" and k < captured:
            items.append(translator.lookup(value))
        else:
            items.append(translator.settled(value))
    if any(isinstance(item, Refused) for item in items):
        raise Unsupported("what it is given could not be translated")
    if call.kind == "Loop":
        return translate_loop(translator, call, items, front)
    if not front.picks:
        raise Unsupported("it starts from no first step")
    return translate_scan(translator, call, items, front)
