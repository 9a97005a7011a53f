"""A layer whose states no bank can hold at once, in parts that one can: diagonal states do not feel each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmc.ir import Graph, Node, Piece, Tensor, Value
from ssmc.passes.banks import demand, objection
from ssmc.passes.machine import Machine


def split_states(graph: Graph, machine: Machine) -> None:
    """Cut every `tile.state` that is larger than the largest bank which may hold it; others stay as they are.

    Each part takes its words of the drive, both halves where states are complex; what the parts give is put back in
    order.
    """
    for node in list(graph.nodes("tile.state")):
        operands = [*graph.operands(node.name), None, None][:3]
        want = demand(node)
        each = want.size(machine.banks[0]) // want.states if machine.banks else 1
        most = max((_room(machine, i, node) for i in range(len(machine.banks))), default=0) // each
        if most < 1 or want.states <= most or operands[2] is not None or graph.users(Value(node.name, 1)):
            continue
        _cut(graph, node, most)


def _room(machine: Machine, index: int, node: Node) -> int:
    """Real states of a bank, 0 where it may not hold the node's."""
    bank = machine.banks[index]
    if objection(bank, demand(node), machine):
        return 0
    return demand(node).states * 2 if bank.count is None else bank.count


def _cut(graph: Graph, node: Node, most: int) -> None:
    drive, dt, _ = [*graph.operands(node.name), None, None][:3]
    assert drive is not None
    decay = node.op["decay"].array
    count = len(decay)
    kind: Any = graph.type(drive)
    halves = 2 if kind.shape[-1] == 2 * count else 1
    order, parts = [], []
    for number, start in enumerate(range(0, count, most)):
        stop = min(start + most, count)
        words = np.concatenate([np.arange(start, stop) + half * count for half in range(halves)])
        order.append(words)

        def name(what: str, number: int = number) -> str:
            return f"{node.name}.part{number}{what}"

        own = graph.add(
            "take", [drive], {"axis": -1, "index": Tensor(words)}, name=name(".drive"), provenance=node.provenance
        )
        attrs = {**node.op.attrs, "decay": Tensor(decay[start:stop]), "pieces": (Piece(0, stop - start, 0, 1),)}
        parts.append(graph.add("tile.state", [own, dt], attrs, name=name(""), provenance=node.provenance))
    every = graph.add("concat", parts, {"axis": -1}, name=f"{node.name}.parts", provenance=node.provenance)
    back = Tensor(np.argsort(np.concatenate(order)))
    whole = graph.add(
        "take", [every], {"axis": -1, "index": back}, name=f"{node.name}.whole", provenance=node.provenance
    )
    graph.replace_uses(Value(node.name), whole)
    graph.remove(node.name)
