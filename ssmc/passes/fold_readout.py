"""What is done to a system's inputs and outputs word by word, done by the system itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ssmc.ir import Graph, Node, Value
from ssmc.passes.base import Context, Pass
from ssmc.passes.linear_maps import words
from ssmc.passes.readout import constant, is_real, readout, replaced, rows_of, taken
from ssmc.passes.regroup import Drive, Regrouped, drive_of, regrouped
from ssmc.passes.rewrite import recast, rewritten
from ssmc.statespace import StateSpace

MOST_WORDS = 1 << 16  # of a system's outputs


@dataclass(frozen=True)
class FoldReadout(Pass):
    """Fold what is linear after a system into its C and D, where fewer words leave it then, and what spreads its inputs
    into its B; groups whose outputs are added become one group.

    before  %y = ssm(%u) {A (1024, 1)}    %p = binary(%y, %c) {fn = "mul"}    %z = reduce(%p) {fn = "sum"}
    after   %z = ssm(%x) {A (32, 32)}

    Products with constants, sums over features, differences, slices and orders of words are linear, real or complex.
    What a last step of them is wanted for (a one-step model's next states) is computed from the last states.
    """

    name = "fold-readout"

    def run(self, graph: Graph, context: Context) -> Graph:
        return rewritten(graph, "ssm", _fold)


def _fold(graph: Graph, node: Node) -> bool:
    system: StateSpace = node.op["system"]
    if node.op["weight_bits"] is not None or not (system.discrete or system.diagonal) or system.outputs > MOST_WORDS:
        return False
    read = readout(graph, node, system)
    if not read.streams or sum(words(graph, value) for value in read.streams) >= system.outputs:
        return _fold_drive(graph, node, system)
    if not is_real(read):
        return False
    drive = drive_of(graph, graph.operand(node.name, 0))
    made = regrouped(system, rows_of(read, Value(node.name)), drive)
    if made is None:
        return False
    y = _emit(graph, node, made, drive, read.sources)
    replaced(graph, node, system, read, made, y, None if drive.silent else graph.operand(node.name, 0))
    return True


def _fold_drive(graph: Graph, node: Node, system: StateSpace) -> bool:
    """Only what spreads the inputs, where fewer words enter then: a channel's word for each of its states."""
    drive = drive_of(graph, graph.operand(node.name, 0))
    if drive.silent or not system.real_output:
        return False
    made = regrouped(system, sparse.identity(system.outputs, format="csr"), drive)
    if made is None or made.columns.size >= system.inputs:
        return False
    if not all(np.array_equal(index, np.arange(index.size)) for index in (made.order, made.place)):
        return False
    u = taken(graph, node, drive.source, made.columns, ".drive")
    others = graph.operands(node.name)[1:]
    recast(graph, node.name, node.op.with_attrs(system=made.system), [u, *others])
    return True


def _emit(graph: Graph, node: Node, made: Regrouped, drive: Drive, sources: Sequence[str]) -> Value:
    """The new system's outputs."""
    _, dt, x0 = (*graph.operands(node.name), None, None)[:3]
    if drive.silent:
        like = drive.source
        zeros = constant(graph, node, np.zeros(made.columns.size), ".silence")
        u = graph.add("spread", [zeros, like], {}, name=f"{node.name}.silent", provenance=node.provenance)
    else:
        u = taken(graph, node, drive.source, made.columns, ".drive")
    plain = np.array_equal(made.order, np.arange(made.order.size))
    if x0 is not None and not plain:
        x0 = taken(graph, node, x0, made.order, ".start")
    attrs = {"system": made.system, "reverse": node.op["reverse"]}
    provenance = tuple(dict.fromkeys([*node.provenance, *sources]))
    return graph.add("ssm", [u, dt, x0], attrs, name=f"{node.name}.read", provenance=provenance)
