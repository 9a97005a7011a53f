"""Which array holds which piece, which bank which state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Graph, Node, Piece
from ssmc.passes.bank_choice import candidates
from ssmc.passes.banks import Demand, demand, objection, wanted
from ssmc.passes.base import Context, Pass
from ssmc.passes.loads import fill_loads, needs_loads, told
from ssmc.passes.machine import Machine
from ssmc.passes.neighbours import on_one_core
from ssmc.passes.packing import pack
from ssmc.passes.pieces import weights_per_array
from ssmc.passes.placement import homes_of, place, traffic
from ssmc.passes.split_states import split_states

MATRICES = ("tile.matmul", "tile.feedback")


@dataclass(frozen=True)
class MapWeights(Pass):
    """Give every piece an array and a first cell, and every state a bank.

    before  tile.matmul(%u) {pieces = (piece<0:64, 0:32>,)}    tile.state(%v) {bank = ""}
    after   tile.matmul(%u) {pieces = (piece<0:64, 0:32 @3[0, 0]>,)}    tile.state(%v) {bank = "volatile"}

    Pieces share arrays in disjoint rectangles (see `packing`); arrays around states that they may charge without
    conversions share a core (see `neighbours`), and those of layers that talk much lie on cores that stand close
    together (see `placement`). Where arrays are reloaded at will (`machine.arrays` is None) every
    piece is its own unit, in order. Where a machine that reloads has too few for the whole model, what does not fit
    waits for the next sweep over the sequence (see `loads`; graph attribute loads {"node": load}).

    States go to the bank that is named for them (see `choose-banks`) if it can hold them and has room, else to the
    first that can and has, in the machine's order; a state piece's unit is the bank's index, its row the first state
    node there.
    """

    name = "map-weights"

    def run(self, graph: Graph, context: Context) -> Graph:
        """Raises Misfit where arrays or state nodes do not suffice, UserError for states that no bank can hold."""
        machine = context.require_machine(self)
        out = graph.copy()
        loads: Mapping[str, int] = {}
        if machine.reloads and _too_large(out, machine):
            split_states(out, machine)
            loads = fill_loads(out, machine)
            out.attributes["loads"] = dict(loads)
            context.note(self, "", told(loads, _weights(out)))
        else:
            _place_weights(out, machine, context, self)
        _place_states(out, machine, context, self, loads)
        return out


def _too_large(graph: Graph, machine: Machine) -> bool:
    """Whether the arrays or the state nodes do not suffice for the whole model at once."""
    sizes = [(p.k1 - p.k0, p.n1 - p.n0) for node in graph.nodes(*MATRICES) for p in node.op["pieces"]]
    _, needed = pack([sizes], *weights_per_array(machine))
    return needed > (machine.arrays or 0) or needs_loads(graph, machine)


def _weights(graph: Graph) -> int:
    return sum((p.k1 - p.k0) * (p.n1 - p.n0) for node in graph.nodes(*MATRICES) for p in node.op["pieces"])


def _place_weights(graph: Graph, machine: Machine, context: Context, pass_: Pass) -> None:
    placed: dict[str, list[Piece]] = {n.name: list(n.op["pieces"]) for n in graph.nodes(*MATRICES, "tile.ssm")}
    if machine.arrays is None:
        _in_order(placed, placed)
    else:
        matrices = {node.name: placed[node.name] for node in graph.nodes(*MATRICES)}
        _pack(graph, machine, matrices, context, pass_)
        _in_order(placed, [node.name for node in graph.nodes("tile.ssm")])
    for name, pieces in placed.items():
        graph.set_op(name, graph.op(name).with_attrs(pieces=tuple(pieces)))


def _in_order(placed: dict[str, list[Piece]], names: Iterable[str]) -> None:
    """Every piece is its own unit."""
    every = [(name, i) for name in names for i in range(len(placed[name]))]
    for unit, (name, i) in enumerate(every):
        placed[name][i] = replace(placed[name][i], unit=unit, row=0, col=0)


def _pack(graph: Graph, machine: Machine, matrices: dict[str, list[Piece]], context: Context, pass_: Pass) -> None:
    """Layer after layer, so that a layer's arrays are neighbours; where those do not suffice, large pieces first."""
    rows, cols = weights_per_array(machine)
    sizes = {name: [(p.k1 - p.k0, p.n1 - p.n0) for p in pieces] for name, pieces in matrices.items()}
    places, needed = pack(sizes.values(), rows, cols)
    assert machine.arrays is not None
    if needed > machine.arrays:
        every = [(name, i) for name in matrices for i in range(len(matrices[name]))]
        (flat,), needed = pack([[sizes[name][i] for name, i in every]], rows, cols)
        found = dict(zip(every, flat, strict=True))
        places = [[found[name, i] for i in range(len(matrices[name]))] for name in matrices]
    if needed > machine.arrays:
        raise _too_many_arrays(machine, needed, graph.nodes(*MATRICES))
    units = {name: [unit for unit, _, _ in group] for name, group in zip(matrices, places, strict=True)}
    moved = on_one_core(graph, machine, units)
    units = {name: [moved[unit] for unit in group] for name, group in units.items()}
    where = _on_mesh(graph, machine, units)
    for name, group in zip(matrices, places, strict=True):
        for i, (unit, row, col) in enumerate(group):
            cells = col * machine.cells_per_weight
            matrices[name][i] = replace(matrices[name][i], unit=where(moved[unit]), row=row, col=cells)
    weights = sum(h * w for group in sizes.values() for h, w in group)
    if matrices:
        least = -(-weights // (rows * cols))
        context.note(pass_, "", f"{weights} weights in {needed} arrays, no fewer than {least}")


def _on_mesh(graph: Graph, machine: Machine, units: dict[str, list[int]]) -> Callable[[int], int]:
    """From arrays as they were filled to those of the cores that they are given."""
    per_core = machine.arrays_per_core
    if per_core is None or machine.mesh_width is None or machine.arrays is None:
        return lambda unit: unit
    homes = homes_of(graph, units, per_core)
    count = 1 + max((unit // per_core for group in units.values() for unit in group), default=0)
    words = traffic(graph, homes, units, per_core)
    at = place(count, machine.arrays // per_core, machine.mesh_width, words)
    return lambda unit: at[unit // per_core] * per_core + unit % per_core


def _too_many_arrays(machine: Machine, needed: int, nodes: Iterable[Node]) -> Misfit:
    area = {node.name: sum((p.k1 - p.k0) * (p.n1 - p.n0) for p in node.op["pieces"]) for node in nodes}
    largest = sorted(area, key=lambda name: -area[name])[:3]
    told = ", ".join(f"'{name}' {area[name]} weights" for name in largest)
    return Misfit(
        f"weight arrays of {machine.array_rows} x {machine.array_cols} cells",
        needed,
        machine.arrays or 0,
        unit="arrays",
        where=f"target '{machine.target}'",
        levers=f"more arrays, larger arrays, or fewer cells a weight; the largest matrices: {told}",
    )


def _place_states(graph: Graph, machine: Machine, context: Context, pass_: Pass, loads: Mapping[str, int]) -> None:
    """Node by node, each to the first bank that can hold all its states and has room for them in the node's load."""
    every: dict[int, list[int]] = {}
    for node in graph.nodes("tile.state", "tile.recurrence", "tile.ssm", "tile.feedback"):
        used = every.setdefault(loads.get(node.name, 0), [0] * len(machine.banks))
        want = demand(node)
        found, named = candidates(graph, node, machine), node.op.get("bank", "")
        index = _bank(machine, used, node, want, wanted(node, machine))
        context.banks += [replace(choice, chosen=i == index) for i, choice in enumerate(found)]
        bank = machine.banks[index]
        meant = next((i for i, other in enumerate(machine.banks) if other.kind == named), 0)
        if index != meant:
            reason = found[meant].objection or "it is full"
            context.note(pass_, node.name, f"states in bank '{bank.kind}', not '{found[meant].bank}': {reason}")
        if node.op.name != "tile.ssm":
            attrs: dict[str, object] = {"bank": bank.kind}
            if node.op.name == "tile.state":
                attrs["pieces"] = tuple(replace(p, unit=index, row=used[index] + p.k0) for p in node.op["pieces"])
            graph.set_op(node.name, node.op.with_attrs(**attrs))
        used[index] += want.size(bank)


def _bank(machine: Machine, used: list[int], node: Node, want: Demand, legal: list[int]) -> int:
    """Index of the bank for a node's states, of those in `legal` the first with room.

    Raises UserError where none may hold them, Misfit where none has room."""
    objections = [objection(bank, want, machine) for bank in machine.banks]
    if not legal:
        reasons = "; ".join(f"bank '{b.kind}': {r}" for b, r in zip(machine.banks, objections, strict=True))
        raise UserError(
            f"no bank of the target can hold the states of layer '{node.name}'",
            where=f"pass 'map-weights', {node.where}",
            why=reasons or "the target has no state banks",
            hint=want.hint(),
        )
    for i in legal:
        count = machine.banks[i].count
        if count is None or used[i] + want.size(machine.banks[i]) <= count:
            return i
    i = legal[int(np.argmax([(machine.banks[j].count or 0) - used[j] for j in legal]))]
    bank = machine.banks[i]
    others = [f"; bank '{b.kind}' cannot hold them: {r}" for b, r in zip(machine.banks, objections, strict=True) if r]
    raise Misfit(
        f"state nodes of bank '{bank.kind}'",
        used[i] + want.size(bank),
        bank.count or 0,
        unit="states",
        where=f"pass 'map-weights', {node.where}",
        levers="more state nodes in the architecture file, or a model with fewer states or layers" + "".join(others),
    )
