"""How many samples are run together: a round of them fills columns that idle otherwise, or the cycles in which the
pipelines of deep elements work, and shares the weights that are in place.

Each of them has its own words in the scratchpad, so that chunks are shorter, and one alone may take longer. So whole
programs are compiled and timed for the batch that the model's file or `schedule{batch=N}` tells, with every number of
samples together that the machine has room for, up to a limit. They run any other batch, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from backends.epochcore.arch import Arch
from backends.epochcore.lower import objective
from backends.epochcore.lower.assembly import Assembly
from backends.epochcore.lower.request import Request
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Graph

LARGEST = 16  # number of samples that is tried
GAIN = 0.005  # of cycles or of energy: twice as many samples that gain less, in elements that gain nothing, are enough
MOST = 255  # what an instruction can say


def fastest(make: Callable[[Request], Assembly], graph: Graph, arch: Arch, request: Request) -> Assembly:
    """The program that runs so many samples together as serve the batch best; `make` lowers for a request.

    Raises Misfit where the model does not fit with as many together as are asked for, UserError where no instruction
    can say so many.
    """
    if request.together > MOST:
        raise UserError(f"{request.together} samples cannot be run together", hint=f"together is at most {MOST}")
    if request.together:
        return make(request)
    batch = request.batch
    best = make(replace(request, together=1))
    tried = [best]
    numbers = _numbers(graph, arch, request)
    for n, number in enumerate(numbers):
        try:
            tried.append(make(replace(request, together=number)))
        except Misfit:
            break  # more samples take more room
        if _gains_little(tried, batch, request.objective) and not _fills_more(graph, arch, number, numbers[n + 1 :]):
            break  # chunks only become shorter
    if len(tried) > 1:
        best = tried[objective.best([made.costs_of(batch) for made in tried], request.objective)]
        told = [made.told("samples", _name(made), chosen=made is best, batch=batch) for made in tried]
        best.schedules = (*told, *best.schedules)
    return best


def _name(made: Assembly) -> str:
    number = made.low.request.together
    return f"{number} samples together" if number > 1 else "one sample after the other"


def _numbers(graph: Graph, arch: Arch, request: Request) -> list[int]:
    """Numbers of samples that may be worth being together, powers of two and the batch itself: the elements take
    no longer for each of them."""
    numbers = {n for n in (2, 4, 8, LARGEST, request.batch) if 1 < n <= min(request.batch, LARGEST)}
    return [n for n in sorted(numbers) if _cycles(graph, arch, n) <= n * _cycles(graph, arch, 1)]


def _gains_little(tried: list[Assembly], batch: int, asked: str) -> bool:
    """Whether the last number of samples serves the batch no better than the one before, or hardly."""
    before, last = (made.costs_of(batch) for made in tried[-2:])
    better = objective.best([before, last], asked) == 1
    return not better or all(now > (1 - GAIN) * then for now, then in zip(last, before, strict=True))


def _fills_more(graph: Graph, arch: Arch, number: int, more: list[int]) -> bool:
    """Whether elements take fewer cycles for a sample where there are more samples than so many."""
    now = _cycles(graph, arch, number) / number
    return any(_cycles(graph, arch, n) / n < now for n in more)


def _cycles(graph: Graph, arch: Arch, samples: int) -> float:
    """Cycles of a step of so many samples in the array's elements, of all systems that are kept there."""
    total = 0.0
    for node in graph.nodes("tile.ssm", "tile.state"):
        decay, op = node.op["decay"], node.op
        fused = op.name == "tile.ssm"
        mode = ("tri" if op["liquid"] else "fri") if fused else "fri.x"
        if mode not in arch.array.modes or op.get("asynchronous"):
            continue
        channels, states = decay.shape if fused else (decay.array.size, 1)
        words = 1 if fused or not decay.is_complex else 2
        total += arch.cycles_a_step(states, channels, words, decay.is_complex, samples)
    return total
