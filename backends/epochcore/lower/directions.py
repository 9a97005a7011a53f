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

import numpy as np

from backends.epochcore.arch import Arch
from backends.epochcore.lower import objective
from backends.epochcore.lower.assembly import Assembly
from backends.epochcore.lower.both_ways import Directed, Pair, together
from backends.epochcore.lower.request import Request
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Graph, Node, StreamType, Value

APART, TOGETHER = NAMES = ("apart", "together")
TOLD = {APART: "directions in loops of their own", TOGETHER: "both directions in one pass"}


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
        return make(together(graph, found, arch))
    best = apart = make(graph)
    tried = [(APART, apart)]
    with suppress(Misfit):
        joined = make(together(graph, found, arch))
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
    systems = [one for node in graph.nodes("tile.ssm", "tile.state") if (one := system_of(graph, node, arch))]
    for one in systems:
        for other in systems:
            if not one.state.op["reverse"] and other.result.name not in taken and _opposite(one, other):
                taken.add(other.result.name)
                found.append(Pair(one, other))
                break
    return found


def system_of(graph: Graph, node: Node, arch: Arch) -> Directed | None:
    """The system that a node is, or is the states of; None where it needs what is outside of the array's pass."""
    op, fused = node.op, node.op.name == "tile.ssm"
    modes = {"fri", "tri"} if fused else {"fri.x"}
    if not modes & set(arch.array.modes) or op.get("asynchronous") or not _alone(graph, node):
        return None
    if fused:
        return Directed(graph.operand(node.name, 0), node)
    drive, users = graph.node(graph.operand(node.name, 0).node), graph.users(Value(node.name))
    if len(users) != 1 or users[0][1] != 0:
        return None
    read = graph.node(users[0][0])
    plain = all(_is_plain(graph, matrix) for matrix in (drive, read))
    if not plain or len(graph.users(Value(drive.name))) != 1:
        return None
    return Directed(graph.operand(drive.name, 0), node, drive, read)


def _is_plain(graph: Graph, node: Node) -> bool:
    """Whether a node is a matrix over whole vectors that change with time."""
    if node.op.name != "tile.matmul":
        return False
    kind = graph.type(graph.operand(node.name, 0))
    return isinstance(kind, StreamType) and kind.shape == node.op["weight"].shape[:1]


def _alone(graph: Graph, node: Node) -> bool:
    """Whether a system begins with zeros, nobody asks for its last states, and its pieces cover it."""
    operands = graph.operands(node.name)
    given = any(value is not None for value in operands[1:])
    covered = np.zeros((*node.op["decay"].shape, 1)[:2])
    for p in node.op["pieces"]:
        covered[p.k0 : p.k1, p.n0 : p.n1] += 1
    return not given and not graph.users(Value(node.name, 1)) and bool((covered == 1).all())


def _opposite(one: Directed, other: Directed) -> bool:
    a, b = one.state.op, other.state.op
    if a.name != b.name or not b["reverse"] or a["decay"].is_complex != b["decay"].is_complex or one.u != other.u:
        return False
    late = (one if one.before else other).drive
    if late is not None:
        # a step later is what the stream has given, and no bias
        return one.before == other.before or late.op["bias"] is None
    return bool(a["liquid"] == b["liquid"] and a["decay"].shape == b["decay"].shape)


def _saves(pair: Pair, arch: Arch) -> bool:
    """Whether the array takes fewer cycles a step for both of them than for one after the other."""
    decay, other = (system.state.op["decay"] for system in (pair.forward, pair.backward))
    if pair.forward.drive is None:
        channels, states = decay.shape
        one, both = (arch.cycles_a_step(states, n * channels, 1, decay.is_complex) for n in (1, 2))
        return both < 2 * one
    words, sizes = 1 + decay.is_complex, [int(d.shape[0]) for d in (decay, other)]
    one, two, both = (arch.cycles_a_step(1, size, words, decay.is_complex) for size in (*sizes, sum(sizes)))
    return both < one + two
