"""Layers that a model repeats: how a large model is scheduled is decided with a few of them.

Between layers only one value goes on. What lies between two such places is a layer; layers are alike where their nodes
are, but for the numbers that they hold. Of a long row of like layers the first ones are compiled in all ways that there
are, and the whole model in the way that was the fastest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.epochcore.arch import Arch
from backends.epochcore.clock.gemm import ceil_div
from backends.epochcore.lower.scan import HELD, parts_of, state_words
from ssmc.ir import Graph, Node, Piece, StreamType, Tensor, Value

LEAST_TILES = 500  # of the matrices in layers that are left out
PART_TILES = 4  # tiles take as many instructions as a part of a system that is scanned
KEPT = 2  # layers of a row, at least
LONGEST = 8  # pieces of a layer between places that one value passes


@dataclass(frozen=True)
class Shortened:
    """A graph with `kept` of `count` like layers; `like` is the node there for each one of the whole graph, whose
    constants are `crowded` in the scratchpad: there is no room for all of them at once."""

    graph: Graph
    like: Mapping[str, str]
    kept: int
    count: int
    crowded: bool

    def told(self, schedule: dict[str, Any]) -> dict[str, Any]:
        """A line of `schedules`, which says what was timed."""
        timed = f"timed with {self.kept} of {self.count} like layers"
        return {**schedule, "schedule": f"{schedule['schedule']} ({timed})"}


@dataclass(frozen=True)
class _Piece:
    """Nodes that follow each other, with the outputs that they feed; the values that go in and on."""

    nodes: tuple[str, ...]
    outputs: tuple[str, ...]
    enters: Value | None
    leaves: Value | None


@dataclass(frozen=True)
class _Row:
    """Pieces `start` to `start` + `period` * `count` - 1, alike after every `period`."""

    start: int
    period: int
    count: int

    def layer(self, pieces: Sequence[_Piece], number: int) -> list[_Piece]:
        first = self.start + number * self.period
        return list(pieces[first : first + self.period])


def shortened(graph: Graph, arch: Arch) -> Shortened | None:
    """The graph with fewer of its like layers; None where that would be little less."""
    pieces = _pieces(graph)
    row = _row([_kind(graph, piece) for piece in pieces])
    if row.count <= KEPT:
        return None
    tiles, words, _ = _sizes(graph, arch, [name for piece in row.layer(pieces, 0) for name in piece.nodes])
    bound = arch.memory.parameter_words
    _, all_words, scanned = _sizes(graph, arch, graph.order())
    kept = KEPT
    # parameters that do not stay on the chip must not do so in the short model either
    while kept < row.count and all_words > bound >= all_words - (row.count - kept) * words:
        kept += 1
    if (row.count - kept) * tiles < LEAST_TILES:
        return None
    layers = [row.layer(pieces, number) for number in range(row.count)]
    like = {name: name for name in graph.order()}
    for layer in layers[kept:]:
        for piece, other in zip(layer, layers[kept - 1], strict=True):
            like |= zip(piece.nodes, other.nodes, strict=True)
    return Shortened(_without(graph, layers, kept), like, kept, row.count, scanned > arch.memory.scratchpad_words)


def _pieces(graph: Graph) -> list[_Piece]:
    """The graph cut wherever one value goes on; constants and inputs are everywhere."""
    order = _order(graph)
    place = {name: number for number, name in enumerate(order)}
    last: dict[Value, int] = {}
    feeds: dict[str, list[str]] = {}
    for name in graph.order():
        for value in graph.operands(name):
            if value is not None and value.node in place:
                if name in place:
                    last[value] = place[name]
                else:
                    feeds.setdefault(value.node, []).append(name)
    found: list[_Piece] = []
    alive: dict[Value, None] = {}
    nodes: list[str] = []
    enters: Value | None = None
    for number, name in enumerate(order):
        nodes.append(name)
        for value in (*graph.operands(name), *graph.results(name)):
            if value is not None and value.node in place:
                if last.get(value, -1) > number:
                    alive[value] = None
                else:
                    alive.pop(value, None)
        if len(alive) == 1 or number == len(order) - 1:
            leaves = next(iter(alive), None)
            outputs = tuple(output for node in nodes for output in feeds.get(node, ()))
            found.append(_Piece(tuple(nodes), outputs, enters, leaves))
            nodes, enters = [], leaves
    return found


def _order(graph: Graph) -> list[str]:
    """All but constants, inputs and outputs, in an order: what is computed once, before or after the steps (states
    that a model is given and leaves), stands beside what needs it first, or beside what it is computed from."""
    inner = [name for name in graph.order() if graph.op(name).name not in ("constant", "input", "output")]
    known = set(inner)
    sources = {name: [v.node for v in graph.operands(name) if v is not None and v.node in known] for name in inner}
    steps = {name for name in inner if any(isinstance(kind, StreamType) for kind in graph.node(name).types)}
    after = set(steps)  # the steps, and what is computed from them
    users: dict[str, list[str]] = {}
    for name in inner:
        if any(source in after for source in sources[name]):
            after.add(name)
        for source in sources[name]:
            users.setdefault(source, []).append(name)
    late, found = after - steps, dict[str, None]()

    def settle(name: str) -> None:
        """The node, behind what it needs of what is computed before the steps, and what that completes."""
        waiting = [name]
        while waiting:
            first = [source for source in sources[waiting[-1]] if source not in found]
            if first:
                waiting += first
                continue
            done = waiting.pop()
            found[done] = None
            left = [user for user in users.get(done, []) if user in late and user not in found]
            waiting += [
                user for user in left if all(source in found or source not in after for source in sources[user])
            ]

    for name in inner:
        if name in steps and name not in found:
            settle(name)
    for name in inner:
        if name not in found:
            settle(name)
    return list(found)


def _kind(graph: Graph, piece: _Piece) -> tuple[Any, ...]:
    """What like pieces have in common: all but numbers and names."""
    number = {name: index for index, name in enumerate(piece.nodes)}

    def source(value: Value | None) -> Any:
        if value is None:
            return None
        if value.node in number:
            return number[value.node], value.index
        node = graph.node(value.node)
        return ("enters" if value == piece.enters else _look(node)), node.types[value.index]

    kinds = [
        (_look(graph.node(name)), graph.node(name).types, *map(source, graph.operands(name))) for name in piece.nodes
    ]
    fed = [source(value) for output in piece.outputs for value in graph.operands(output)]
    leaves = None if piece.leaves is None else source(piece.leaves)
    return tuple(kinds), tuple(fed), leaves


def _look(node: Node) -> tuple[Any, ...]:
    attrs = {k: v for k, v in node.op.attrs.items() if not (node.op.name == "input" and k == "name")}
    return node.op.name, tuple((name, _shown(value)) for name, value in sorted(attrs.items()))


def _shown(value: Any) -> str:
    """Of a tensor of numbers only its shape and format count, of pieces not where they lie."""
    if isinstance(value, tuple) and all(isinstance(part, Piece) for part in value):
        return repr([(p.k0, p.k1, p.n0, p.n1) for p in value])
    if not isinstance(value, Tensor):
        return repr(value)
    if value.stored.dtype.kind in "iub":
        return repr(value)
    bits = None if value.quantization is None else value.quantization.bits
    return f"{value.stored.dtype} {value.shape} {bits}"


def _row(kinds: Sequence[tuple[Any, ...]]) -> _Row:
    """The row with most like pieces; of as many, that with the shortest period."""
    numbers: dict[tuple[Any, ...], int] = {}
    seen = [numbers.setdefault(kind, len(numbers)) for kind in kinds]
    best = _Row(0, 1, min(1, len(seen)))
    for period in range(1, LONGEST + 1):
        run = 0
        for place in range(period, len(seen)):
            run = run + 1 if seen[place] == seen[place - period] else 0
            count = run // period + 1
            if count > 1 and count * period > best.count * best.period:
                best = _Row(place - run - period + 1, period, count)
    return best


def _sizes(graph: Graph, arch: Arch, names: Sequence[str]) -> tuple[int, int, int]:
    """Tiles of the matrices of some nodes, words of their numbers, and words in the scratchpad of those that the vector
    unit can only scan; a part of the channels of such a system takes as many instructions as some tiles."""
    tiles = words = scanned = 0
    for name in names:
        op = graph.op(name)
        if op.name == "tile.ssm" and op["liquid"] and "tri" not in arch.array.modes:
            tiles += PART_TILES * max(parts_of(graph.node(name)), default=1)
            scanned += HELD * state_words(graph.node(name))
        if op.name == "tile.matmul":
            inputs, outputs = op["weight"].shape
            tiles += ceil_div(inputs, arch.array.rows) * ceil_div(outputs, arch.array.cols)
        words += sum(t.stored.size for t in op.attrs.values() if isinstance(t, Tensor))
    return tiles, words, scanned


def _without(graph: Graph, layers: Sequence[Sequence[_Piece]], kept: int) -> Graph:
    short = graph.copy()
    last, instead = layers[-1][-1].leaves, layers[kept - 1][-1].leaves
    gone = [piece for layer in layers[kept:] for piece in layer]
    outputs = [name for piece in gone for name in piece.outputs]
    if last is not None and instead is not None:
        inside = {name for piece in gone for name in piece.nodes} | set(outputs)
        for user, slot in graph.users(last):
            if user not in inside:
                short.connect(user, slot, instead)
    for name in [*outputs, *reversed([name for piece in gone for name in piece.nodes])]:
        short.remove(name)
    used = {user.name for user in graph.inputs() if graph.users(Value(user.name))}
    for node in short.inputs():
        if node.name in used and not short.users(Value(node.name)):
            short.remove(node.name)
    short.prune()
    return short
