"""Channels packed in a column: each has a group of the column's rows to itself, and words of its own.

A column holds one channel; where its states are fewer than the rows the rest idles. Where elements hand on several
words in a cycle (`array.column_words`), as many channels lie below each other, each in as many rows as it has states,
and a pass serves them all (`groups` of a preload). That is worth while where the ports bring as many words, or where
a step takes several cycles anyway, as in deep or ganged elements. A pass with more channels may end later than the
first of several, so that whole programs are compiled and timed with and without.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from backends.epochcore.lower import objective
from backends.epochcore.lower.assembly import Assembly
from backends.epochcore.lower.request import Request
from ssmc.diagnostics import Misfit


def fastest(make: Callable[[Request], Assembly], request: Request) -> Assembly:
    """The program with channels packed as they best are, each layer by itself, or with none packed where that serves
    the objective better. Raises Misfit where the model does not fit."""
    packed = make(request)
    groups = _groups(packed)
    if groups == 1 or request.groups:
        return packed
    with suppress(Misfit):
        alone = make(replace(request, groups=1))
        batch = max(request.batch, packed.draft.together, alone.draft.together)
        best = (packed, alone)[objective.best([made.costs_of(batch) for made in (packed, alone)], request.objective)]
        names = (f"up to {groups} channels in a column's rows", packed), ("one channel in a column's rows", alone)
        told = [made.told("rows", name, chosen=made is best, batch=batch) for name, made in names]
        best.schedules = (*told, *best.schedules)
        return best
    return packed


def _groups(made: Assembly) -> int:
    """The most groups of rows in a pass of a program."""
    steps = (step for block in made.draft.blocks.values() for step in block if step.mnemonic == "preload")
    return max((int(step.operands.get("groups", 1)) for step in steps), default=1)
