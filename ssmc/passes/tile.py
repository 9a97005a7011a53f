"""From systems and matrices to pieces that a target holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ssmc.ir import ConstantType, Graph, Node, SequenceType, StreamType, Value
from ssmc.passes.base import Context, Pass
from ssmc.passes.machine import Machine
from ssmc.passes.tile_complex import COMPLEX_RULES, tile_linear
from ssmc.passes.tile_liquid import tile_liquid
from ssmc.passes.tile_systems import tile_recurrence, tile_ssm
from ssmc.passes.tiling import Halves, Tiling, copy_op, even


@dataclass(frozen=True)
class Tile(Pass):
    """Write systems and matrices as tile ops, cut to the target's arrays; complex values become real halves re|im.

    before  %y, %last = ssm(%u) {system = ...}
    after   %y.drive = tile.matmul(%u) {pieces = ...}       (many inputs; single ones are spread over the states)
            %y.x, %last = tile.state(%y.drive) {decay = ...}
            %y = tile.matmul(%y.x) {pieces = ...}           (plus D u)
    or      %y, %last = tile.ssm(%u) {...}                  (single-input systems where a bank is `fused`)

    A decay that follows the elapsed time stays in `tile.state` where a bank decays by itself; elsewhere it is
    computed, `exp(A delta dt)`, and drives `tile.recurrence`. `B` is folded into `C` for single-input systems whose
    states nobody sees; `fold_input=false` keeps them apart. `fold_output` folds `C` into `B` likewise, where the states
    of a system all decay alike: one matrix then does for two.
    """

    name = "tile"
    fold_input: bool = True
    fold_output: bool = False

    def run(self, graph: Graph, context: Context) -> Graph:
        """Raises UserError for a continuous or dense system, and for complex values no real form is known for."""
        return tiled(graph, context.require_machine(self), self)[0]


def tiled(graph: Graph, machine: Machine, options: Tile) -> tuple[Graph, Mapping[str, str]]:
    """The graph in tiles, and of which node of `graph` each tile is a part."""
    out = Graph(graph.name, dict(graph.attributes))
    tiling = Tiling(graph, out, machine)
    for node in graph.nodes():
        _convert(tiling, node, options)
    out.prune()
    return out, tiling.origin


def _convert(t: Tiling, node: Node, options: Tile) -> None:
    if node.op.name == "ssm":
        tile_ssm(t, node, options.fold_input, options.fold_output)
    elif node.op.name in RULES:
        RULES[node.op.name](t, node)
    elif any(t.is_complex(v) for v in t.source.operands(node.name) if v is not None):
        if node.op.name not in COMPLEX_RULES:
            raise t.refuse(node, f"'{node.op.name}' has no form in real numbers for a complex operand")
        COMPLEX_RULES[node.op.name](t, node)
    else:
        _keep(t, node)


def _keep(t: Tiling, node: Node) -> None:
    operands = [None if v is None else t.real[v] for v in t.source.operands(node.name)]
    made = copy_op(t, node, operands)
    for value in t.source.results(node.name):
        t.real[value] = Value(made.node, value.index)


def _input(t: Tiling, node: Node) -> None:
    kind = node.types[0]
    if isinstance(kind, StreamType | SequenceType | ConstantType) and kind.element == "complex":
        raise t.refuse(
            node,
            f"the input '{node.op['name']}' is complex, and a target takes real numbers",
            hint="give its real and imaginary parts as two inputs, joined by the op 'complex'",
        )
    _keep(t, node)


def _output(t: Tiling, node: Node) -> None:
    if t.is_complex(t.source.operand(node.name, 0)):
        raise t.refuse(
            node,
            f"the output '{node.op['name']}' is complex, and a target gives real numbers",
            hint="ask for its real and imaginary parts as two outputs",
        )
    _keep(t, node)


def _constant(t: Tiling, node: Node) -> None:
    array = node.op["value"].array
    if not np.iscomplexobj(array):
        _keep(t, node)
        return
    halves = Halves(t, node, t.constant(node, array.real, ".re"), t.constant(node, array.imag, ".im"))
    if array.ndim:
        halves.whole = t.constant(node, np.concatenate([array.real, array.imag], -1), ".halves")
    t.pairs[Value(node.name)] = halves


def _complex(t: Tiling, node: Node) -> None:
    re, im = (t.real[t.source.operand(node.name, slot)] for slot in (0, 1))
    for part in (re, im):
        _credit(t, node, part)
    t.pairs[Value(node.name)] = Halves(t, node, re, im)


def _credit(t: Tiling, node: Node, value: Value) -> None:
    """A node that becomes no node of its own leaves its origin with the value it stands for."""
    if t.out.op(value.node).name not in ("input", "constant"):
        t.out.add_provenance(value.node, *node.provenance)


def _real(t: Tiling, node: Node) -> None:
    z = t.parts(t.source.operand(node.name, 0), node)
    _part(t, node, z, z.real_part())


def _imag(t: Tiling, node: Node) -> None:
    z = t.parts(t.source.operand(node.name, 0), node)
    _part(t, node, z, z.imag_part())


def _part(t: Tiling, node: Node, z: Halves, part: Value) -> None:
    part = even(t, node, part, node.types[0], z)
    _credit(t, node, part)
    t.real[Value(node.name)] = part


RULES: dict[str, Callable[[Tiling, Node], None]] = {
    "input": _input,
    "output": _output,
    "constant": _constant,
    "linear": tile_linear,
    "recurrence": tile_recurrence,
    "liquid_ssm": tile_liquid,
    "complex": _complex,
    "real": _real,
    "imag": _imag,
}
