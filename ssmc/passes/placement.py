"""Which core of the mesh does what: cores that talk much stand close together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssmc.ir import Graph, Node, Value

Traffic = Mapping[tuple[int, int], float]  # words a step between two cores, the lower number first
ROUNDS = 20
LEAST = 1e-9  # words times hops that an exchange must save
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


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
    """Numbers of a stream for every step of the input; 0 of other values."""
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
    found = _Exchanges(np.array(snake[:count], np.int64), np.array(snake[count:], np.int64), width, words)
    for _ in range(ROUNDS):
        changed = False
        for core in range(count):
            changed |= found.with_free(core)
            changed |= found.with_others(core)
        if not changed:
            break
    return [int(position) for position in found.at]


@dataclass
class _Exchanges:
    """Where cores stand, the places that are `free`, and exchanges that save words times hops."""

    at: Ints
    free: Ints
    width: int
    words: Traffic

    def __post_init__(self) -> None:
        ends = np.array([*self.words], np.int64).reshape(-1, 2)
        sent = np.array([*self.words.values()], np.float64)
        self.core, self.other, self.sent = (
            np.append(ends[:, 0], ends[:, 1]),
            np.append(ends[:, 1], ends[:, 0]),
            np.tile(sent, 2),
        )
        self.near = [np.flatnonzero(self.core == core) for core in range(len(self.at))]
        self.row, self.column = np.divmod(
            np.arange(1 + max(self.at.max(initial=0), self.free.max(initial=0))), self.width
        )

    def with_free(self, core: int) -> bool:
        """Move a core to one free place after the other, where that helps."""
        edges, changed, first = self.near[core], False, 0
        costs = self.sent[edges] @ self._hops(self.free, self.at[self.other[edges], None])
        now = float(self.sent[edges] @ self._hops(self.at[core], self.at[self.other[edges]]))
        while len(better := first + np.flatnonzero(costs[first:] < now - LEAST)):
            place = int(better[0])
            self.at[core], self.free[place] = self.free[place], self.at[core]
            now, changed, first = float(costs[place]), True, place + 1
        return changed

    def with_others(self, core: int) -> bool:
        """Exchange a core with one after the other of those of higher numbers, where that helps."""
        changed, first = False, core + 1
        while first < len(self.at) and len(better := first + np.flatnonzero(self._gains(core)[first:] < -LEAST)):
            other = int(better[0])
            self.at[core], self.at[other] = self.at[other], self.at[core]
            changed, first = True, other + 1
        return changed

    def _gains(self, core: int) -> Floats:
        """What an exchange with each of the others adds."""
        edges, here = self.near[core], self.at[core]
        others, sent = self.other[edges], self.sent[edges]
        now = self._hops(here, self.at[others])
        added = sent @ self._hops(self.at, self.at[others, None]) - float(sent @ now)
        far = self.at[self.other]
        moved = self.sent * (self._hops(here, far) - self._hops(self.at[self.core], far))
        added += np.bincount(self.core, moved, len(self.at))
        np.add.at(added, others, 2 * sent * now)  # what these send each other goes as far as before
        return np.asarray(added)

    def _hops(self, a: Any, b: Any) -> Ints:
        return np.asarray(np.abs(self.row[a] - self.row[b]) + np.abs(self.column[a] - self.column[b]))


def total(at: list[int], words: Traffic, width: int) -> float:
    """Words times hops in a step."""
    return sum(w * hops(at[a], at[b], width) for (a, b), w in words.items())
