"""Loops over chunks of steps: retention, linear attention and SSD as a product inside a chunk and a state handed on.

Such a loop (a Scan, a Loop, or trips that an exporter unrolled) is no step of a recurrence, while what it gives may be
one, laid out in chunks (RetNet, arXiv 2307.08621, equation 7; GLA, arXiv 2312.06635, section 4; SSD, arXiv 2405.21060,
section 6). Where its body cannot be read as a step it is left to the region that it is in, which is probed as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmc.frontend.evaluate import scan_form
from ssmc.frontend.flow import Flow, Raw, Refused, Tracked, Unsupported
from ssmc.frontend.listing import Call

if TYPE_CHECKING:
    from ssmc.frontend.translator import Translator

KINDS = frozenset(["Scan", "Loop"])
MOST = 1024  # chunks that a loop may go over, as it is run many times when it is probed (ours)


def may_be_over_chunks(translator: Translator, call: Call) -> bool:
    """Does a loop make fewer trips than the model's inputs have steps?"""
    if call.kind not in KINDS or translator.in_step:
        return False
    trips = _trips(translator, call)
    inputs = (translator.lookup(value) for value in translator.listing.inputs.values())
    steps = [f.shape[f.axes.index("t")] for f in inputs if isinstance(f, Flow) and "t" in f.axes]
    return trips is not None and 1 < trips <= min(MOST, max(steps, default=0) // 2)


def _trips(translator: Translator, call: Call) -> int | None:
    values = [v for v in call.operands if v is not None]
    if call.kind == "Loop":
        count = None if call.operands[0] is None else translator.samples.at(0, [call.operands[0]])[call.operands[0]]
        return None if count is None else int(np.asarray(count).reshape(-1)[0])
    arrays = translator.samples.at(0, values)
    own = [arrays[v] for v in values[: len(values) - int(call.op["captured"])]]
    form = scan_form(call, len(own), [np.ndim(a) for a in own])
    return int(np.shape(own[form.states])[form.input_axes[0]]) if len(own) > form.states else None


def as_step_or_raw(translator: Translator, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A loop that may go over chunks by its own rule, or raw where that does not hold; `items` may be raw."""
    env, before = translator.env.copy(), translator.findings.copy()
    found: list[Tracked] = []
    items = [translator.settled(v) if v and isinstance(i, Raw) else i for v, i in zip(call.operands, items, strict=True)]
    reason = "it goes over chunks of steps"
    if not any(isinstance(item, Refused) for item in items):
        try:
            with translator.builder.origin(call.provenance):
                found = translator.apply(call, items)
        except Unsupported as error:
            reason = str(error)
    if found and not any(isinstance(item, Refused) for item in found):
        return found
    told = translator.findings.refusals[len(before.refusals) :]
    translator.env = env
    translator.findings.restore(before)
    return [Raw(told[0].reason if told else reason)] * len(call.results)
