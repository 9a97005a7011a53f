"""In how many loops over time the states of a model are: all of a loop lie beside its streams, so that many of them
leave room for short chunks only.

Those of later layers may be in further loops, whose chunks are longer; streams between loops go through DRAM. How much
longer chunks are worth is told by the program with its states together, timed with shorter chunks, too: where that
promises more than a little, the most promising cut is compiled and timed as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from backends.epochcore.arch import Arch
from backends.epochcore.clock.gemm import ceil_div
from backends.epochcore.lower import objective
from backends.epochcore.lower.assembly import Assembly
from backends.epochcore.lower.flow import Flow, carried_words, plan_flow
from backends.epochcore.lower.request import Request
from ssmc.diagnostics import Misfit
from ssmc.ir import Graph

SHARES = 8, 16, 32, 64  # of the scratchpad: a loop of states that are apart has no more of them (ours)
SHORTER = 2  # times as many chunks, to tell what one costs
FEW, APART = "states in as few loops as can be", "states of later layers in further loops"


def most_words(arch: Arch, request: Request) -> int | None:
    """Words of states that a loop has at most, where they are apart."""
    return _room(arch, request) // request.apart if request.apart else None


def fitting(
    make: Callable[[Request], Assembly], graph: Graph, arch: Arch, request: Request, *, known: bool = False
) -> Assembly:
    """The program that fits: with everything in the scratchpad, or with parameters there for their loops alone; with
    the states of all layers in as few loops as can be, or apart, whichever serves the objective. It stays as it is
    where the way is `known` and fits.

    Raises Misfit where nothing fits.
    """
    cuts = {0: plan_flow(graph, request.loops), **dict(_cuts(graph, arch, request))}
    fits: dict[int, Assembly] = {}
    refused: list[Misfit] = []
    for apart in (request.apart,) if request.apart else tuple(cuts):
        try:
            fits[apart] = _within(make, replace(request, apart=apart))
            break
        except Misfit as misfit:
            refused.append(misfit.with_traceback(None))  # which holds all that was lowered
            cuts.pop(apart, None)
    if not fits:
        raise min(refused, key=lambda misfit: misfit.demand / max(1, misfit.bound))
    ((first, best),) = fits.items()
    if known or request.apart or len(cuts) == 1:
        return best
    with suppress(Misfit):
        apart = _promising(best, {apart: _held(graph, cut) for apart, cut in cuts.items()}, first, _room(arch, request))
        if apart != first:
            other = _within(make, replace(request, apart=apart))
            if other.costs:  # timing it may find that it does not fit
                fits[apart] = other
    if len(fits) == 1:
        return best
    tried = list(fits.values())
    best = tried[objective.best([one.costs for one in tried], request.objective)]
    names = {apart: APART if apart else FEW for apart in fits}
    if len(set(names.values())) == 1:
        names = {apart: f"{name}, {1 + max(cuts[apart].stage.values()) // 2} in all" for apart, name in names.items()}
    told = [one.told("states", names[apart], chosen=one is best) for apart, one in fits.items()]
    best.schedules = (*told, *best.schedules)
    return best


def crowded(graph: Graph, arch: Arch, request: Request) -> bool:
    """Do the states of all nodes take more than half of the scratchpad?"""
    return 2 * sum(words for _, words in carried_words(graph)) > _room(arch, request)


def _room(arch: Arch, request: Request) -> int:
    """Words of the scratchpad for a sample."""
    return arch.memory.scratchpad_words // max(1, request.together)


def _cuts(graph: Graph, arch: Arch, request: Request) -> Iterator[tuple[int, Flow]]:
    """By share of the scratchpad, the loops in which states then are, each way to cut them once; none where all states
    take less than the first share."""
    seen = [plan_flow(graph, request.loops).stage]
    for share in SHARES:
        flow = plan_flow(graph, request.loops, _room(arch, request) // share)
        if flow.stage not in seen:
            seen.append(flow.stage)
            yield share, flow
        elif len(seen) == 1:
            return


def _held(graph: Graph, flow: Flow) -> int:
    """The most words of states in a loop."""
    held: dict[int, int] = {}
    for name, words in carried_words(graph):
        held[flow.stage[name]] = held.get(flow.stage[name], 0) + words
    return max(held.values(), default=0)


def _promising(made: Assembly, held: dict[int, int], now: int, room: int) -> int:
    """The cut that costs least if chunks are as long as there is room beside its states, and each one of them costs as
    it does in a program that is cut as `now`: that one, unless another promises to be faster."""
    steps, limit = made.low.request.steps, min(_limits(made))
    chunks = ceil_div(steps, limit)
    shorter = replace(made, more=SHORTER)
    more = ceil_div(steps, min(_limits(shorter))) - chunks
    if chunks == 1 or held[now] >= room:
        return now
    each = (shorter.costs[0] - made.costs[0]) / more if more else made.costs[0] / chunks
    longer = {apart: (room - words) / (room - held[now]) for apart, words in held.items() if words < room}
    costs = {apart: made.costs[0] - each * (chunks - max(1, chunks / times)) for apart, times in longer.items()}
    least = min(costs, key=lambda apart: costs[apart])
    return least if costs[least] < (1 - objective.NEAR) * made.costs[0] else now


def _limits(made: Assembly) -> list[int]:
    """Steps of a chunk, by loop."""
    return [int(ins["limit"]) for ins in made.to_time.sections[0].code if ins.mnemonic == "chunks"]


def _within(make: Callable[[Request], Assembly], request: Request) -> Assembly:
    try:
        return make(request)
    except Misfit as all_at_once:
        try:
            return make(replace(request, streamed=True))
        except Misfit:
            raise all_at_once from None
