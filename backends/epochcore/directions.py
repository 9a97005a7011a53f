"""Both directions of a layer in one pass over the array: channels that read their stream from the beginning beside
channels that read it from the end.

Usually the directions are in loops of their own, which walk the chunks one way each, as a stream that is written by one
loop is read by the next. A pass over H channels may leave columns idle, or cycles while the pipelines of its elements
work; channels of the other direction fill them, in columns of their own or in turn (`Arch.shares`). Their stream comes
from memory mirrored, and so go their results: what reads both of them is in the next loop. That takes a loop more a
layer and twice the traffic, so that whole programs are compiled and timed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from backends.epochcore import objective
from backends.epochcore.arch import Arch
from backends.epochcore.assembly import Assembly
from backends.epochcore.flow import is_backward, plan_flow
from backends.epochcore.request import Request
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Graph, Node, Piece, Tensor, Value

APART, TOGETHER = NAMES = ("apart", "together")
TOLD = {APART: "directions in loops of their own", TOGETHER: "both directions in one pass"}


@dataclass(frozen=True)
class Pair:
    """Systems of one stream, from its beginning and from its end."""

    forward: Node
    backward: Node


def fastest(make: Callable[[Graph], Assembly], graph: Graph, arch: Arch, request: Request) -> Assembly:
    """The program with its directions apart or together, whichever serves the objective, or what is asked for.

    Raises UserError where what is asked for is none of the two, Misfit where the model does not fit.
    """
    asked = request.directions
    if asked not in ("", *NAMES):
        raise UserError(f"directions cannot be '{asked}'", hint=f"directions: {', '.join(NAMES)}")
    found = worth(graph, arch, request)
    if not found or asked == APART:
        return make(graph)
    if asked:
        return make(together(graph, found))
    best = apart = make(graph)
    tried = [(APART, apart)]
    with suppress(Misfit):
        joined = make(together(graph, found))
        tried.append((TOGETHER, joined))
        best = (apart, joined)[objective.best([apart.costs, joined.costs], request.objective)]
    if len(tried) > 1:
        told = [made.told("directions", TOLD[name], chosen=made is best) for name, made in tried]
        best.schedules = (*told, *best.schedules)
    return best


def worth(graph: Graph, arch: Arch, request: Request) -> list[Pair]:
    """Pairs that share a pass where directions are together."""
    return [pair for pair in pairs(graph, arch, request) if request.directions == TOGETHER or _saves(pair, arch)]


def pairs(graph: Graph, arch: Arch, request: Request) -> list[Pair]:
    """The directions of layers that can share a pass: alike, with no states given or asked for."""
    if request.name not in ("", "state in place"):
        return []
    found, taken = [], set[str]()
    for node in graph.nodes("tile.ssm"):
        if node.op["reverse"] or not _alone(graph, node) or not {"fri", "tri"} & set(arch.array.modes):
            continue
        for name, slot in graph.users(graph.operand(node.name, 0)):
            other = graph.node(name)
            if slot == 0 and name not in taken and _opposite(node, other) and _alone(graph, other):
                taken.add(name)
                found.append(Pair(node, other))
                break
    return found


def _alone(graph: Graph, node: Node) -> bool:
    """Whether a system begins with zeros, nobody asks for its last states, and its pieces cover it."""
    operands = graph.operands(node.name)
    given = len(operands) > 1 and operands[1] is not None
    covered = np.zeros(node.op["decay"].shape)
    for p in node.op["pieces"]:
        covered[p.k0 : p.k1, p.n0 : p.n1] += 1
    return not given and not graph.users(Value(node.name, 1)) and bool((covered == 1).all())


def _opposite(node: Node, other: Node) -> bool:
    if other.op.name != node.op.name or not other.op["reverse"] or other.op["liquid"] != node.op["liquid"]:
        return False
    # a liquid system's outputs before an update are no sums of its states after it
    ordered = not node.op["liquid"] or node.op["read_before"] == other.op["read_before"]
    decay, others = node.op["decay"], other.op["decay"]
    return bool(ordered and decay.shape == others.shape and decay.is_complex == others.is_complex)


def _saves(pair: Pair, arch: Arch) -> bool:
    """Whether the array takes fewer cycles a step for both of them than for one after the other."""
    decay = pair.forward.op["decay"]
    channels, states = decay.shape
    one, both = (arch.cycles_a_step(states, n * channels, 1, decay.is_complex) for n in (1, 2))
    return both < 2 * one


def together(graph: Graph, found: list[Pair]) -> Graph:
    """The graph with each pair as one system of twice the channels. Layers keep their names; what is `added` is none
    of the model's values."""
    out, wide = graph.copy(), dict[Value, Value]()
    for pair in found:
        _join(out, pair, wide)
    out.attributes["added"] = tuple(name for name in out.order() if name not in graph)
    return out


def _join(graph: Graph, pair: Pair, wide: dict[Value, Value]) -> None:
    """Replace a pair; `wide` are the streams so far that go both ways."""
    u = graph.operand(pair.forward.name, 0)
    # the loop that reads what another one writes goes against it
    made = plan_flow(graph).stage[u.node]
    turned = made > 0 and is_backward(made + 2)
    own, other = (pair.backward, pair.forward) if turned else (pair.forward, pair.backward)
    provenance = tuple(dict.fromkeys((*own.provenance, *other.provenance)))
    if u not in wide:
        mirrored = graph.add("reverse", [u], provenance=provenance)
        wide[u] = graph.add("concat", [u, mirrored], {"axis": -1}, provenance=provenance)
    name = f"{pair.forward.name}_{pair.backward.name}"
    y = graph.add("tile.ssm", [wide[u]], _both(own, other, turned), name=name, provenance=provenance)
    channels = own.op["decay"].shape[0]
    for number, node in enumerate((own, other)):
        users = graph.users(Value(node.name))
        for user, slot in users:
            graph.connect(user, slot, None)
        graph.remove(node.name)
        cut = {"axis": -1, "start": number * channels, "stop": (number + 1) * channels}
        if node is own:
            result = graph.add("slice", [y], cut, name=node.name, provenance=node.provenance)
        else:
            mirrored = graph.add("slice", [y], cut, provenance=node.provenance)
            result = graph.add("reverse", [mirrored], name=node.name, provenance=node.provenance)
        for user, slot in users:
            graph.connect(user, slot, result)


def _both(own: Node, other: Node, turned: bool) -> dict[str, object]:
    """Attributes of the system of both, which walks as `own` does."""
    before = own.op["read_before"] or other.op["read_before"]
    systems = [_read(node, before) for node in (own, other)]
    parts = [np.concatenate(values) for values in zip(*systems, strict=True)]
    channels, states = parts[0].shape
    names = ("decay", "b", "c", "d")
    return {
        **{name: Tensor(values) for name, values in zip(names, parts, strict=True)},
        "liquid": own.op["liquid"],
        "pieces": (Piece(0, channels, 0, states),),
        "read_before": before,
        "reverse": turned,
    }


def _read(node: Node, before: bool) -> tuple[np.ndarray, ...]:
    """Decay, b, c and d of a system whose states are read `before` their update: c (a x + b u) + d u after it."""
    a, b, c, d = (node.op[name].array for name in ("decay", "b", "c", "d"))
    if before and not node.op["read_before"]:
        return a, b, c * a, d + (c * b).sum(-1).real
    return a, b, c, d
