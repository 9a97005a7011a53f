"""Which array holds which piece, which bank which state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Graph, Node, Piece
from ssmc.passes.banks import Demand, demand, objection
from ssmc.passes.base import Context, Pass
from ssmc.passes.machine import Machine
from ssmc.passes.pieces import weights_per_array


@dataclass(frozen=True)
class MapWeights(Pass):
    """Give every piece an array and a first cell, and every state a bank.

    before  tile.matmul(%u) {pieces = (piece<0:64, 0:32>,)}    tile.state(%v) {bank = ""}
    after   tile.matmul(%u) {pieces = (piece<0:64, 0:32 @3[0, 0]>,)}    tile.state(%v) {bank = "volatile"}

    Small pieces share an array where they share neither rows nor columns, so that no current of one meets the
    other. Where arrays are reloaded at will (`machine.arrays` is None) every piece is its own unit, in order. States
    go to the first bank that can hold them, in the machine's order of preference; a state piece's unit is the
    bank's index, its row the first state node there.
    """

    name = "map-weights"

    def run(self, graph: Graph, context: Context) -> Graph:
        """Raises Misfit where arrays or state nodes do not suffice, UserError for states that no bank can hold."""
        machine = context.require_machine(self)
        out = graph.copy()
        _place_weights(out, machine)
        _place_states(out, machine, context, self)
        return out


@dataclass
class _Shelf:
    """An array being filled along its diagonal: what is taken of its rows and columns."""

    rows: int = 0
    cols: int = 0


@dataclass
class _Arrays:
    """Arrays of `rows` x `cols` weights; a piece goes to the first one where it fits (first fit decreasing)."""

    rows: int
    cols: int
    shelves: list[_Shelf] = field(default_factory=list)

    def add(self, height: int, width: int) -> tuple[int, int, int]:
        """(array, first row, first column), in weights."""
        fits = (i for i, s in enumerate(self.shelves) if s.rows + height <= self.rows and s.cols + width <= self.cols)
        unit = next(fits, len(self.shelves))
        if unit == len(self.shelves):
            self.shelves.append(_Shelf())
        shelf = self.shelves[unit]
        row, col = shelf.rows, shelf.cols
        shelf.rows, shelf.cols = row + height, col + width
        return unit, row, col


def _place_weights(graph: Graph, machine: Machine) -> None:
    rows, cols = weights_per_array(machine)
    every = [(node, i) for node in graph.nodes("tile.matmul", "tile.ssm") for i in range(len(node.op["pieces"]))]
    placed: dict[str, list[Piece]] = {node.name: list(node.op["pieces"]) for node, _ in every}
    if machine.arrays is None:
        for unit, (node, i) in enumerate(every):
            placed[node.name][i] = replace(placed[node.name][i], unit=unit, row=0, col=0)
    else:
        arrays = _Arrays(rows, cols)
        weights = [(node, i) for node, i in every if node.op.name == "tile.matmul"]
        for node, i in sorted(weights, key=lambda entry: _fill(entry[0].op["pieces"][entry[1]], rows, cols)):
            piece = placed[node.name][i]
            unit, row, col = arrays.add(piece.k1 - piece.k0, piece.n1 - piece.n0)
            placed[node.name][i] = replace(piece, unit=unit, row=row, col=col * machine.cells_per_weight)
        if len(arrays.shelves) > machine.arrays:
            raise _too_many_arrays(graph, machine, len(arrays.shelves), (node for node, _ in weights))
        for unit, (node, i) in enumerate((node, i) for node, i in every if node.op.name == "tile.ssm"):
            placed[node.name][i] = replace(placed[node.name][i], unit=unit, row=0, col=0)
    for name, pieces in placed.items():
        graph.set_op(name, graph.op(name).with_attrs(pieces=tuple(pieces)))


def _fill(piece: Piece, rows: int, cols: int) -> float:
    """How much of an array a piece takes, in its tighter dimension; negative, so that the large come first."""
    return -max((piece.k1 - piece.k0) / rows, (piece.n1 - piece.n0) / cols)


def _too_many_arrays(graph: Graph, machine: Machine, needed: int, nodes: Iterable[Node]) -> Misfit:
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


def _place_states(graph: Graph, machine: Machine, context: Context, pass_: Pass) -> None:
    """Node by node, each to the first bank that can hold all its states and has room for them."""
    used = [0] * len(machine.banks)
    for node in graph.nodes("tile.state", "tile.recurrence", "tile.ssm"):
        want = demand(node)
        index = _bank(machine, used, node, want)
        bank = machine.banks[index]
        if bank.kind != machine.banks[0].kind:
            reason = objection(machine.banks[0], want, machine) or "it is full"
            context.note(pass_, node.name, f"states in bank '{bank.kind}', not '{machine.banks[0].kind}': {reason}")
        if node.op.name != "tile.ssm":
            attrs: dict[str, object] = {"bank": bank.kind}
            if node.op.name == "tile.state":
                attrs["pieces"] = tuple(replace(p, unit=index, row=used[index] + p.k0) for p in node.op["pieces"])
            graph.set_op(node.name, node.op.with_attrs(**attrs))
        used[index] += want.size(bank)


def _bank(machine: Machine, used: list[int], node: Node, want: Demand) -> int:
    """Index of the bank for a node's states. Raises UserError where none may hold them, Misfit where none has room."""
    objections = [objection(bank, want, machine) for bank in machine.banks]
    legal = [i for i, reason in enumerate(objections) if not reason]
    origin = f" (from {', '.join(node.provenance[:3])})" if node.provenance else ""
    if not legal:
        reasons = "; ".join(f"bank '{b.kind}': {r}" for b, r in zip(machine.banks, objections, strict=True))
        raise UserError(
            f"no bank of the target can hold the states of layer '{node.name}'",
            where=f"pass 'map-weights', node '{node.name}'{origin}",
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
        where=f"pass 'map-weights', node '{node.name}'{origin}",
        levers="more state nodes in the architecture file, or a model with fewer states or layers" + "".join(others),
    )
