"""Loops over chunks of steps: retention, linear attention and SSD as a product inside a chunk and a state handed on.

Such a loop (a Scan, a Loop, or trips that an exporter unrolled) is no step of a recurrence, while what it gives may be
one, laid out in chunks (RetNet, arXiv 2307.08621, equation 7; GLA, arXiv 2312.06635, section 4; SSD, arXiv 2405.21060,
section 6). Where its body cannot be read as a step it is left to the region that it is in, which is probed as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ssmc.frontend.graph.flow import Raw, Refused, Tracked, Unsupported
from ssmc.frontend.loops.late import from_the_first, is_unbounded, trips_of, until_it_ends
from ssmc.frontend.reasons import Kind, Reason
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.sizes import DIVISIBLE

if TYPE_CHECKING:
    from ssmc.frontend.translator import Translator

KINDS = frozenset(["Scan", "Loop"])
MOST = 1024  # chunks that a loop may go over, as it is run many times when it is probed (ours)
APART = 3  # a loop over all steps but the first ones, from which its states start, leaves out one of so many (ours)


def over_chunks(translator: Translator, call: Call, items: Sequence[Any]) -> list[Tracked] | None:
    """What a loop gives that may go over chunks; None where it does not."""
    if _may_be(translator, call):
        return _as_step_or_raw(translator, call, items)
    return until_it_ends(translator, call, items) if is_unbounded(translator, call) else None


def _may_be(translator: Translator, call: Call) -> bool:
    """Does a loop make fewer trips than there are steps, or just a few less, the first steps being apart?"""
    if call.kind not in KINDS or translator.in_step:
        return False
    trips, steps = trips_of(translator, call), translator.steps
    if trips is not None and _all_but_the_first(trips, steps):
        return True
    if trips is None or trips > min(MOST, steps // 2):
        return False
    return trips > 1 or (translator.dynamic and steps not in DIVISIBLE and _counted(translator, call))


def _all_but_the_first(trips: int, steps: int) -> bool:
    return 1 < trips < steps <= MOST and APART * (steps - trips) <= steps


def _counted(translator: Translator, call: Call) -> bool:
    """Is the number of trips computed by the file?"""
    number = call.operands[0]
    return call.kind == "Scan" or (number is not None and number not in translator.listing.constants)


def _as_step_or_raw(translator: Translator, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A loop that may go over chunks by its own rule, or raw where that does not hold.

    What it is given may be raw too: then it is a loop of its own only if nothing explains the whole, or if it lacks the
    first step alone.
    """
    late = from_the_first(translator, call)
    if late is not None:
        return late
    reason = next((item.reason for item in items if isinstance(item, Raw)), None)
    if reason is not None:
        return [Raw(reason)] * len(call.results)
    before = translator.findings.copy()
    try:
        with translator.builder.origin(call.provenance):
            found = translator.apply(call, items)
    except Unsupported as error:
        found, reason = [], error.reason
    if found and not any(isinstance(item, Refused) for item in found):
        return found
    told = translator.findings.refusals[len(before.refusals) :]
    translator.findings.restore(before)
    steps = translator.steps
    whole = _all_but_the_first(trips_of(translator, call) or 0, steps)
    if translator.dynamic and not whole and steps not in DIVISIBLE and _counted(translator, call):
        return translator.refuse(call, Reason(f"{steps} steps cannot become chunks", Kind.INDIVISIBLE))
    reason = Reason(told[0].reason, told[0].kind) if told else reason or Reason("it goes over chunks of steps")
    return [Raw(reason)] * len(call.results)
