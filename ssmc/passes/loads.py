"""A model that takes more arrays or states than there are: one load of weights after the other, each for a whole sweep.

Load k is what arrays and state nodes hold while the sequence passes for the k-th time, or for a few times in a row
where streams are turned round or wait for what a pooling gives. What one sweep makes and a later one needs is kept, and
read again. It is legal where a sequence may be kept: not where every event must be answered before the next comes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ssmc.ir import Graph, Node, Piece
from ssmc.passes.banks import demand, wanted
from ssmc.passes.machine import Machine
from ssmc.passes.packing import Packing
from ssmc.passes.pieces import weights_per_array

STATES = ("tile.state", "tile.recurrence", "tile.ssm")


def needs_loads(graph: Graph, machine: Machine) -> bool:
    """Whether state nodes alone would not suffice for the whole model at once."""
    used: dict[int, int] = defaultdict(int)
    for node in graph.nodes(*STATES):
        bank = _bank(machine, node)
        if bank is not None:
            used[bank] += demand(node).size(machine.banks[bank])
    return any(_over(machine, bank, count) for bank, count in used.items())


@dataclass
class _Filling:
    """The load being filled."""

    machine: Machine
    rows: int
    cols: int
    load: int = 0
    packing: Packing = field(init=False)
    used: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self.packing = Packing(self.rows, self.cols)

    def next(self) -> None:
        self.load += 1
        self.packing, self.used = Packing(self.rows, self.cols), defaultdict(int)


def fill_loads(graph: Graph, machine: Machine) -> dict[str, int]:
    """Place every matrix piece of `graph` in an array of its load, and say in which load each node works.

    In topological order; a matrix that does not fit into what is left goes on in the next load, its parts summed.
    """
    filling = _Filling(machine, *weights_per_array(machine))
    loads: dict[str, int] = {}
    for node in list(graph.nodes("tile.matmul", *STATES)):
        if node.op.name == "tile.matmul":
            _fill_matrix(graph, node, filling, loads)
        else:
            _fill_states(node, filling, loads)
    return loads


def _fill_states(node: Node, filling: _Filling, loads: dict[str, int]) -> None:
    bank = _bank(filling.machine, node)
    if bank is not None:
        count = demand(node).size(filling.machine.banks[bank])
        if filling.used[bank] and _over(filling.machine, bank, filling.used[bank] + count):
            filling.next()
        filling.used[bank] += count
    loads[node.name] = filling.load


def _bank(machine: Machine, node: Node) -> int | None:
    """The bank that the node's states want of those that may hold them."""
    return next(iter(wanted(node, machine)), None)


def _over(machine: Machine, bank: int, count: int) -> bool:
    most = machine.banks[bank].count
    return most is not None and count > most


def _fill_matrix(graph: Graph, node: Node, filling: _Filling, loads: dict[str, int]) -> None:
    parts: list[tuple[int, list[Piece]]] = []
    for piece in node.op["pieces"]:
        size = piece.k1 - piece.k0, piece.n1 - piece.n0
        place = filling.packing.add(*size, filling.machine.arrays)
        if place is None:
            filling.next()
            place = filling.packing.add(*size, filling.machine.arrays)
            assert place is not None, "a piece fits an empty array"
        unit, row, col = place
        placed = replace(piece, unit=unit, row=row, col=col * filling.machine.cells_per_weight)
        if not parts or parts[-1][0] != filling.load:
            parts.append((filling.load, []))
        parts[-1][1].append(placed)
    if len(parts) < 2:
        loads[node.name] = parts[0][0] if parts else filling.load
        graph.set_op(node.name, node.op.with_attrs(pieces=tuple(parts[0][1]) if parts else ()))
        return
    operands, total = graph.operands(node.name), None
    for number, (load, pieces) in enumerate(parts):
        bias = node.op["bias"] if number == len(parts) - 1 else None
        attrs = {"weight": node.op["weight"], "bias": bias, "pieces": tuple(pieces)}
        part = graph.add("tile.matmul", operands, attrs, name=f"{node.name}.load{load}", provenance=node.provenance)
        loads[part.node] = load
        name = f"{node.name}.sum{load}"
        both = [total, part]
        total = (
            part if total is None else graph.add("binary", both, {"fn": "add"}, name=name, provenance=node.provenance)
        )
    assert total is not None
    graph.replace_uses(graph.results(node.name)[0], total)
    graph.remove(node.name)


def told(loads: Mapping[str, int], weights: int) -> str:
    """What a cut into loads means, for people."""
    count = 1 + max(loads.values(), default=0)
    return (
        f"{weights} weights in {count} loads: each sequence is swept {count} times (more where it is read backwards), "
        "and arrays are written again for each load"
    )
