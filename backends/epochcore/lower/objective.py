"""What a schedule is chosen for: the fewest cycles, the least energy, or the least product of both.

Asked for cycles, what is slower than the fastest by no more than `NEAR` counts as fast, and of that the least
energy-delay product is taken: energy may then cost that much time, and only if it saves more of it than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ssmc.passes.schedule import OBJECTIVES

NAMES = OBJECTIVES
CYCLES, ENERGY, EDP = NAMES
NEAR = 0.01  # of the cycles (ours)

Costs = tuple[float, float]  # cycles and joules


def best(found: Sequence[Costs], objective: str) -> int:
    """Which of some costs serve the objective best; the first of equal ones."""
    numbers: Iterable[int] = range(len(found))
    if objective == CYCLES:
        limit = (1 + NEAR) * min(cycles for cycles, _ in found)
        numbers = [number for number in numbers if found[number][0] <= limit]
    return min(numbers, key=lambda number: _weight(found[number], objective))


def hopeless(bound: Costs, found: Sequence[Costs], objective: str) -> bool:
    """Whether what costs at least `bound` is not chosen beside what was found."""
    if not found:
        return False
    if objective == CYCLES:
        return bound[0] > (1 + NEAR) * min(cycles for cycles, _ in found)
    return _weight(bound, objective) > min(_weight(costs, objective) for costs in found)


def _weight(costs: Costs, objective: str) -> tuple[float, float]:
    cycles, joules = costs
    return (joules, cycles) if objective == ENERGY else (cycles * joules, cycles)
