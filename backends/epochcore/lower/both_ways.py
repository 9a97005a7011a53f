"""Two systems of one stream, from its beginning and from its end, as one of twice the channels.

One of them walks with the loop, the other reads the stream mirrored, and its results are mirrored again. A system with
matrices around its states, as S5, becomes one with block matrices. Where one is read before its states' update and the
other after it, linear states of channels are read before it, c (a x + b u) + d u; elsewhere what is read before an
update is what the step before has left: that system gets its stream a step later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from backends.epochcore.arch import Arch
from backends.epochcore.clock.gemm import ceil_div
from backends.epochcore.lower.flow import is_backward, plan_flow
from backends.epochcore.lower.window_matrices import side_by_side, unit_of
from ssmc.ir import Graph, Node, Piece, Tensor, Value
from ssmc.ir.op import Array

Streams = dict[tuple[Value, bool, tuple[bool, bool]], Value]
LATER = Tensor(np.array([[0.0, 1.0]]))  # the kernel of a step's delay


@dataclass(frozen=True)
class Directed:
    """A system that reads `u` one way: `tile.ssm`, or `tile.state` with the matrices that drive and read it."""

    u: Value
    state: Node
    drive: Node | None = None
    read: Node | None = None

    @property
    def result(self) -> Node:
        return self.read or self.state

    @property
    def before(self) -> bool:
        """Whether states are read before their update."""
        return bool(self.state.op["read_before"])

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(node for node in (self.drive, self.state, self.read) if node is not None)


@dataclass(frozen=True)
class Pair:
    """Systems of one stream, from its beginning and from its end."""

    forward: Directed
    backward: Directed


def together(graph: Graph, found: Sequence[Pair], arch: Arch) -> Graph:
    """The graph with each pair as one system of twice the channels. Layers keep their names; what is `added` is none
    of the model's values."""
    out, streams, joined = graph.copy(), Streams(), dict[str, tuple[str, str]]()
    for pair in found:
        joined |= _join(out, pair, arch, streams)
    out.attributes["added"] = tuple(name for name in out.order() if name not in graph)
    out.attributes["joined"] = tuple((name, *parts) for name, parts in joined.items())
    return out


def joined_in(graph: Graph) -> dict[str, tuple[str, str]]:
    """By node that `together` has made of two: the forward one and the backward one."""
    told: Any = graph.attributes.get("joined", ())
    return {str(name): (str(forward), str(backward)) for name, forward, backward in told}


def _join(graph: Graph, pair: Pair, arch: Arch, streams: Streams) -> dict[str, tuple[str, str]]:
    """Replace a pair; `streams` are those so far that go both ways. Returns the nodes that each new one stands for."""
    u = pair.forward.u
    # the loop that reads what another one writes goes against it
    made = plan_flow(graph).stage[u.node]
    turned = made > 0 and is_backward(made + 2)
    both = (pair.backward, pair.forward) if turned else (pair.forward, pair.backward)
    fused, differ = pair.forward.drive is None, both[0].before != both[1].before
    # outputs of linear states of channels before an update follow from those after it; others come a step later
    late = (
        (False, False) if not differ or (fused and not both[0].state.op["liquid"]) else (both[0].before, both[1].before)
    )
    provenance = tuple(dict.fromkeys(name for one in both for node in one.nodes for name in node.provenance))
    wide = _stream(graph, u, turned, late, streams, provenance)
    before = not any(late) and any(one.before for one in both)
    way = {"read_before": before, "reverse": turned}
    add = partial(graph.add, provenance=provenance)
    name = "_".join(one.state.name for one in (pair.forward, pair.backward))
    if fused:
        nodes = [y := add("tile.ssm", [wide], {**_channels(both, before, late), **way}, name=name)]
    else:
        drive, state, read = _matrices(both, arch)
        driven = add("tile.matmul", [wide], drive)
        stepped = add("tile.state", [driven], {**state, **way}, name=name)
        nodes = [driven, stepped, y := add("tile.matmul", [stepped], read)]
    sizes = [_words(graph, Value(one.result.name)) for one in both]
    for number, (one, stop) in enumerate(zip(both, accumulate(sizes), strict=True)):
        cut = {"axis": -1, "start": stop - sizes[number], "stop": stop}
        direct = one.state.op["d"].array if fused and late[number] else np.zeros(1)
        _instead(graph, one, y, cut, mirrored=number == 1, direct=direct)
    parts = zip(nodes, pair.forward.nodes, pair.backward.nodes, strict=True)
    return {new.node: (forward.name, backward.name) for new, forward, backward in parts}


def _instead(graph: Graph, one: Directed, y: Value, cut: dict[str, int], *, mirrored: bool, direct: Array) -> None:
    """A part of the channels for what a system has given; `direct` of its stream is missing there."""
    node, users = one.result, graph.users(Value(one.result.name))
    for user, slot in users:
        graph.connect(user, slot, None)
    for old in reversed(one.nodes):
        graph.remove(old.name)
    steps: list[tuple[str, list[Value], dict[str, Any]]] = [("slice", [], cut)]
    steps += [("reverse", [], {})] * mirrored
    if direct.any():
        d = graph.add("constant", [], {"value": Tensor(direct)}, provenance=node.provenance)
        through = graph.add("binary", [one.u, d], {"fn": "mul"}, provenance=node.provenance)
        steps.append(("binary", [through], {"fn": "add"}))
    for op, more, attrs in steps[:-1]:
        y = graph.add(op, [y, *more], attrs, provenance=node.provenance)
    op, more, attrs = steps[-1]
    y = graph.add(op, [y, *more], attrs, name=node.name, provenance=node.provenance)
    for user, slot in users:
        graph.connect(user, slot, y)


def _stream(
    graph: Graph, u: Value, turned: bool, late: tuple[bool, bool], known: Streams, provenance: tuple[str, ...]
) -> Value:
    """The stream as it is, then mirrored; `late` ones a step later in the loop's direction."""
    key = u, turned, late
    if key not in known:
        parts = [u, graph.add("reverse", [u], provenance=provenance)]
        kernel = Tensor(np.tile(LATER.array, (_words(graph, u), 1)))
        for number in range(2):
            if late[number]:
                attrs = {"kernel": kernel, "reverse": turned}
                parts[number] = graph.add("fir", [parts[number]], attrs, provenance=provenance)
        known[key] = graph.add("concat", parts, {"axis": -1}, provenance=provenance)
    return known[key]


def _words(graph: Graph, value: Value) -> int:
    kind: Any = graph.type(value)
    return int(kind.shape[-1])


def _channels(both: tuple[Directed, Directed], before: bool, late: tuple[bool, bool]) -> dict[str, Any]:
    """Attributes of the channels of two systems side by side."""
    systems = [_read(one.state, before, own) for one, own in zip(both, late, strict=True)]
    values = [np.concatenate(parts) for parts in zip(*systems, strict=True)]
    channels, states = values[0].shape
    tensors = {name: Tensor(value) for name, value in zip(("decay", "b", "c", "d"), values, strict=True)}
    pieces = (Piece(0, channels, 0, states),)
    return {**tensors, "unit": _units(both), "liquid": both[0].state.op["liquid"], "pieces": pieces}


def _units(both: tuple[Directed, Directed]) -> Tensor | None:
    unit = side_by_side([unit_of(one.state) for one in both])
    return None if unit is None else Tensor(unit)


def _read(node: Node, before: bool, late: bool) -> tuple[Array, ...]:
    """Decay, b, c and d of a system whose states are read `before` their update: c (a x + b u) + d u after it. Without
    d where the stream is `late`."""
    a, b, c, d = (node.op[name].array for name in ("decay", "b", "c", "d"))
    if before and not node.op["read_before"]:
        return a, b, c * a, d + (c * b).sum(-1).real
    return a, b, c, d * (not late)


def _matrices(both: tuple[Directed, Directed], arch: Arch) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Attributes of the matrix that drives the states of both systems, of the states, and of the matrix that reads
    them. Complex states are real halves, then imaginary ones, of both."""
    decays = [one.state.op["decay"].array for one in both]
    drives, reads = ([getattr(one, what).op for one in both] for what in ("drive", "read"))
    halves, sizes = 1 + np.iscomplexobj(decays[0]), [decay.size for decay in decays]
    order = np.concatenate(
        [np.arange(sizes[n]) + half * sizes[n] + n * halves * sizes[0] for half in range(halves) for n in range(2)]
    )
    place = np.argsort(order)
    states = [place[: halves * sizes[0]], place[halves * sizes[0] :]]
    into, out = ([op["weight"].shape[axis] for op in ops] for axis, ops in ((0, drives), (1, reads)))
    inputs, outputs = ([np.arange(n), np.arange(n, n + m)] for n, m in (into, out))
    decay = np.concatenate(decays)
    state = {**both[0].state.op.attrs, "decay": Tensor(decay), "unit": _units(both)}
    state["pieces"] = (Piece(0, decay.size, 0, 1),)
    return _blocks(drives, inputs, states, arch), state, _blocks(reads, states, outputs, arch)


def _blocks(ops: Sequence[Any], rows: Sequence[Array], cols: Sequence[Array], arch: Arch) -> dict[str, Any]:
    """Attributes of a matrix with each of two in its own rows and columns, in whichever pieces take fewer passes."""
    shape = sum(map(len, rows)), sum(map(len, cols))
    weight, bias = np.zeros(shape), np.zeros(shape[1])
    for op, high, wide in zip(ops, rows, cols, strict=True):
        weight[np.ix_(high, wide)] = op["weight"].array
        bias[wide] = 0.0 if op["bias"] is None else op["bias"].array
    whole = (Piece(0, shape[0], 0, shape[1]),)
    apart = tuple(
        Piece(k0, k1, n0, n1)
        for high, wide in zip(rows, cols, strict=True)
        for n0, n1 in _runs(wide)
        for k0, k1 in _runs(high)
    )
    pieces = min(whole, apart, key=partial(_passes, arch))
    return {"weight": Tensor(weight), "bias": Tensor(bias) if bias.any() else None, "pieces": pieces}


def _runs(places: Array) -> list[tuple[int, int]]:
    """Stretches of places that follow each other."""
    cuts = np.flatnonzero(np.diff(places) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(places, cuts)]


def _passes(arch: Arch, pieces: Sequence[Piece]) -> int:
    """Passes over the array."""
    rows, cols = arch.array.rows, arch.array.cols
    return sum(ceil_div(p.k1 - p.k0, rows) * ceil_div(p.n1 - p.n0, cols) for p in pieces)
