"""Whether the program as a whole takes stretches of time at once: layers that do so do not hand over to each other step
by step, which the choice of a layer's form by itself does not see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from backends.epochcore.lower import objective
from backends.epochcore.lower.assembly import Assembly
from backends.epochcore.lower.request import LEAST, Request
from ssmc.diagnostics import Misfit

SEQUENCES = 4
NAMES = "stretches of time at once", "one step after the other"


def fastest(make: Callable[[Request], Assembly], request: Request, cut_for: Mapping[Request, bool]) -> Assembly:
    """The program with the forms of its layers, or one without segments where that serves the objective better for one
    round of sequences, or for several that follow each other: their passes fill the array, too.

    Chunks that are cut into segments may be too long for the scratchpad: they become shorter until they fit. `make`
    lowers for a request, and `cut_for` it says then whether anything is cut. Raises Misfit where the model does not fit
    without segments either.
    """
    cut, asked = _fitting(make, request, cut_for)
    if not cut.draft.most or _asked(request):
        return cut
    whole = make(replace(asked, chunk=0, refused="the program as a whole is faster without"))
    several = SEQUENCES * cut.draft.together
    in_a_row, alone = (
        objective.best([made.costs_of(batch) for made in (whole, cut)], request.objective) == 1
        for batch in (several, cut.draft.together)
    )
    best = cut if in_a_row and alone else whole
    names = NAMES if in_a_row else (f"{NAMES[0]}, worse for {several} sequences in a row", NAMES[1])
    told = [made.told("time", name, chosen=made is best) for name, made in zip(names, (cut, whole), strict=True)]
    best.schedules = (*told, *best.schedules)
    return best


def _fitting(
    make: Callable[[Request], Assembly], request: Request, cut_for: Mapping[Request, bool]
) -> tuple[Assembly, Request]:
    """The program in as long chunks as the scratchpad has room for, and the request for it."""
    try:
        return _placed(make, request)
    except Misfit as error:
        if not cut_for.get(request, True):
            raise  # it is the same without segments
        longest = error
    refused = "a chunk that is cut into segments does not fit the scratchpad"
    # a model that does not fit without them is told so at once
    whole = None if _asked(request) else _placed(make, replace(request, chunk=0, refused=refused))
    chunk = request.chunk // 2 // LEAST * LEAST
    while chunk:
        with suppress(Misfit):
            return _placed(make, replace(request, chunk=chunk))
        chunk = chunk // 2 // LEAST * LEAST
    if whole is None:
        raise longest
    return whole


def _asked(request: Request) -> bool:
    """Whether the pipeline asks for segments."""
    return request.name == "segmented" or request.segments > 0


def _placed(make: Callable[[Request], Assembly], request: Request) -> tuple[Assembly, Request]:
    made = make(request)
    assert made.to_time
    return made, request
