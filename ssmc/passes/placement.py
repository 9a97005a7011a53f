"""Which core of the mesh does what: cores that talk much stand close together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from math import prod
from typing import Any

from ssmc.ir import Graph, Node, Value

Traffic = Mapping[tuple[int, int], float]  # words a step between two cores, the lower number first
ROUNDS = 20


def traffic(graph: Graph, homes: Mapping[str, int], units: Mapping[str, list[int]], per_core: int) -> Traffic:
    """Words that cores send each other in a step: along the graph's edges, and to matrices on several cores."""
    found: dict[tuple[int, int], float] = defaultdict(float)

    def add(a: int, b: int, words: float) -> None:
        if a != b:
            found[min(a, b), max(a, b)] += words

    for node in graph.nodes():
        for value in graph.operands(node.name):
            if value is not None and graph.op(value.node).name != "constant":
                add(homes[value.node], homes[node.name], words_a_step(graph, value))
        for piece, unit in zip(node.op["pieces"] if node.name in units else (), units.get(node.name, ()), strict=True):
            words = (piece.k1 - piece.k0) + (piece.n1 - piece.n0)
            add(homes[node.name], unit // per_core, words)
    return found


def words_a_step(graph: Graph, value: Value) -> float:
    kind: Any = graph.type(value)
    return float(prod(kind.shape) * getattr(kind, "rate", 0))


def homes_of(graph: Graph, units: Mapping[str, list[int]], per_core: int) -> dict[str, int]:
    """Where each node works: where most of its pieces lie, else where its operands or users are."""
    homes: dict[str, int] = {}
    for name, places in units.items():
        counts = Counter(unit // per_core for unit in places)
        if counts:
            homes[name] = min(counts, key=lambda core: (-counts[core], core))
    every = list(graph.nodes())
    for node in (*every, *reversed(every)):
        if node.name not in homes:
            near = [homes[v.node] for v in graph.operands(node.name) if v is not None and v.node in homes]
            near += [homes[user] for user in _users(graph, node) if user in homes]
            if near:
                homes[node.name] = near[0]
    first = min(homes.values(), default=0)
    return {node.name: homes.get(node.name, first) for node in every}


def _users(graph: Graph, node: Node) -> list[str]:
    return [user for user, _ in graph.users(Value(node.name))]


def hops(a: int, b: int, width: int) -> int:
    """Between two cores of a mesh so many cores wide (dimension-ordered routes)."""
    (r0, c0), (r1, c1) = divmod(a, width), divmod(b, width)
    return abs(r0 - r1) + abs(c0 - c1)


def place(count: int, cores: int, width: int, words: Traffic) -> list[int]:
    """A core of the mesh for each of `count` (which must not exceed `cores`), with few words times hops: begun as a
    snake, then exchanged in pairs while that helps (2-opt of the quadratic assignment problem)."""
    snake = sorted(range(cores), key=lambda core: (core // width, core % width * (-1 if core // width % 2 else 1)))
    at = snake[:count]
    free = snake[count:]

    def cost(core: int, position: int) -> float:
        return sum(
            w * hops(position, at[b if a == core else a], width) for (a, b), w in words.items() if core in (a, b)
        )

    for _ in range(ROUNDS):
        changed = False
        for a in range(count):
            for i, position in enumerate(free):
                if cost(a, position) < cost(a, at[a]) - 1e-9:
                    at[a], free[i], changed = position, at[a], True
                    position = free[i]
            for b in range(a + 1, count):
                before = total(at, words, width)
                at[a], at[b] = at[b], at[a]
                if total(at, words, width) < before - 1e-9:
                    changed = True
                else:
                    at[a], at[b] = at[b], at[a]
        if not changed:
            break
    return at


def total(at: list[int], words: Traffic, width: int) -> float:
    """Words times hops in a step."""
    return sum(w * hops(at[a], at[b], width) for (a, b), w in words.items())
