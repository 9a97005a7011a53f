"""A layer whose states no bank can hold at once, in parts that one can: diagonal states do not feel each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmc.ir import Graph, Node, Piece, Tensor, Value
from ssmc.passes.banks import Demand, demand, wanted
from ssmc.passes.machine import Machine, StateBank


def split_states(graph: Graph, machine: Machine) -> None:
    """Cut every `tile.state` that is larger than the bank it wants (the largest that may hold it, where that is open).

    Each part takes its words of the drive, both halves where states are complex; what the parts give is put back in
    order.
    """
    for node in list(graph.nodes("tile.state")):
        operands = [*graph.operands(node.name), None, None][:3]
        want, banks = demand(node), [machine.banks[i] for i in wanted(node, machine)]
        if banks and node.op["bank"]:
            banks = banks[:1]
        most = max((_room(bank, want) for bank in banks), default=0)
        if most < 1 or want.states <= most or operands[2] is not None or graph.users(Value(node.name, 1)):
            continue
        _cut(graph, node, most)


def _room(bank: StateBank, want: Demand) -> int:
    """How many of the states a bank holds at once."""
    return want.states if bank.count is None else bank.count * want.states // want.size(bank)


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
