"""Arrays that should lie on one core: those around states that columns may charge, and that may drive rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ssmc.ir import Graph, Node, Piece, Value
from ssmc.passes.machine import Coupling, Machine
from ssmc.passes.placement import homes_of, words_a_step

Units = Mapping[str, Sequence[int]]  # a matrix's arrays, piece by piece, by its name


def on_one_core(graph: Graph, machine: Machine, units: Units) -> dict[int, int]:
    """From arrays as they were filled to others, so that those around the same states share a core, where the
    conversions that this spares take more energy than the words that it sends to other cores."""
    every = sorted({unit for found in units.values() for unit in found})
    same = {unit: unit for unit in every}
    per_core = machine.arrays_per_core
    if machine.coupling is None or per_core is None or machine.arrays is None:
        return same
    groups = _joined(_around_states(graph, units, per_core), per_core)
    best, least = same, _joules(graph, machine.coupling, units, per_core)
    for near in (True, False):
        at = _filled(every, groups, per_core, near)
        if max(at.values(), default=0) >= machine.arrays:
            continue
        moved = {name: [at[unit] for unit in found] for name, found in units.items()}
        found = _joules(graph, machine.coupling, moved, per_core)
        if found < least:
            best, least = at, found
    return best


def _filled(every: list[int], groups: list[set[int]], per_core: int, near: bool) -> dict[int, int]:
    """Core after core, each group whole; `near`: where the arrays before lie, if there is room."""
    linked = {unit: group for group in groups for unit in group}
    free: list[int] = []  # by core
    roomy: dict[int, int] = {}  # by a group's size: no core before this one has room for it
    at: dict[int, int] = {}
    last = 0
    for unit in every:
        if unit in at:
            continue
        group = sorted(linked.get(unit, {unit}))
        if not (near and free and free[last] >= len(group)):
            last = roomy.get(len(group), 0)
            while last < len(free) and free[last] < len(group):
                last += 1
            roomy[len(group)] = last
        core = last
        if core == len(free):
            free.append(per_core)
        for each in group:
            at[each] = core * per_core + per_core - free[core]
            free[core] -= 1
    return at


def _joules(graph: Graph, coupling: Coupling, units: Units, per_core: int) -> float:
    """Of a step's words between cores, each one hop, less what coupling spares."""
    homes = homes_of(graph, {name: list(found) for name, found in units.items()}, per_core)
    words = 0.0
    for node in graph.nodes():
        sources = [v for v in graph.operands(node.name) if v is not None and graph.op(v.node).name != "constant"]
        words += sum(words_a_step(graph, v) for v in sources if homes[v.node] != homes[node.name])
        if node.name in units:
            words += _rate(node) * sum(_sent(node, units[node.name], homes[node.name], per_core))
    spared = 0.0
    for node in graph.nodes("tile.state"):
        before, behind = _products(graph, node, units)
        cores = {unit // per_core for name in before for unit in units[name]}
        if len(cores) == 1:
            spared += coupling.conversion * sum(_rate(node) * (p.n1 - p.n0) for p in _pieces(graph, before))
        if len(cores | {unit // per_core for name in behind for unit in units[name]}) == 1:
            spared += coupling.drive * sum(_rate(node) * (p.k1 - p.k0) for p in _pieces(graph, behind))
    return words * coupling.hop - spared


def _rate(node: Node) -> float:
    return float(getattr(node.types[0], "rate", 0))


def _pieces(graph: Graph, names: Iterable[str]) -> Iterator[Piece]:
    for name in names:
        yield from graph.op(name)["pieces"]


def _sent(node: Node, units: Sequence[int], home: int, per_core: int) -> Iterator[int]:
    """Words to each other core that holds pieces, and back."""
    by_core: dict[int, list[Piece]] = {}
    for piece, unit in zip(node.op["pieces"], units, strict=True):
        by_core.setdefault(unit // per_core, []).append(piece)
    for core, pieces in by_core.items():
        if core != home:
            yield max(p.k1 for p in pieces) - min(p.k0 for p in pieces)
            yield max(p.n1 for p in pieces) - min(p.n0 for p in pieces)


def _products(graph: Graph, node: Node, units: Units) -> tuple[list[str], list[str]]:
    """The matrix before the states and those behind them."""
    drive = graph.operand(node.name, 0).node
    return [drive] if drive in units else [], [user for user, _ in graph.users(Value(node.name)) if user in units]


def _around_states(graph: Graph, units: Units, per_core: int) -> list[set[int]]:
    """The arrays of each drive and read-out together, of the drive alone where both are too many for a core."""
    found = []
    for node in graph.nodes("tile.state"):
        before, behind = ({u for name in names for u in units[name]} for names in _products(graph, node, units))
        found.append(before | behind if len(before | behind) <= per_core else before)
    return [group for group in found if 1 < len(group) <= per_core]


def _joined(groups: Iterable[set[int]], per_core: int) -> list[set[int]]:
    """Groups that share an array as one, where a core has room for it; else the earlier one keeps the array."""
    joined: list[set[int]] = []
    for group in groups:
        touching = [other for other in joined if other & group]
        merged = group.union(*touching)
        if len(merged) <= per_core:
            joined = [other for other in joined if not other & group] + [merged]
            continue
        rest = group.difference(*touching)
        if rest:
            joined.append(rest)
    return joined
