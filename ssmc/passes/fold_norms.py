"""Scales, shifts and matrices that a neighbouring matrix can take over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ssmc.ir import Graph, Node, Op, StreamType, Tensor, Value
from ssmc.ir.op import Array
from ssmc.passes.affine import Affine, affine_of
from ssmc.passes.base import Context, Pass
from ssmc.passes.rewrite import absorb, add_constant, constant_sources, recast, sole_user, sweep
from ssmc.statespace import StateSpace


@dataclass(frozen=True)
class FoldNorms(Pass):
    """Fold what batch norms are at inference (a scale and a shift), and the scale and shift of other norms, into the
    matrix before or after; merge matrices that meet without growing.

    before  %a = linear(%x)    %b = binary(%a, %scale) {fn = "mul"}    %c = binary(%b, %shift) {fn = "add"}
    after   %c = linear(%x)

    A matrix is a `linear`, the C and D of a system (after it), its B and D (before it; no shift there), or an
    embedding table. Only values with a single user are folded away; rounded weights stay as they are.
    """

    name = "fold-norms"

    def run(self, graph: Graph, context: Context) -> Graph:
        out = graph.copy()
        changed = sweep(out, _visit)
        return out if out.prune() or changed else graph


def _visit(graph: Graph, node: Node) -> bool:
    """Fold the node with the one before it, if some rule can; whether it was."""
    if node.name not in graph or not graph.operands(node.name):
        return False
    node = graph.node(node.name)
    before = _before(graph, node)
    if before is None:
        return False
    kind = node.op.name if affine_of(graph, node) is None else "affine"
    first = before.op.name if affine_of(graph, before) is None else "affine"
    sources = [*constant_sources(graph, before), *constant_sources(graph, node)]
    if not any(rule(graph, before, node) for rule in RULES.get((first, kind), ())):
        return False
    graph.add_provenance(node.name, *sources)
    return True


def _before(graph: Graph, node: Node) -> Node | None:
    """The node whose first result the node works on, if nobody else reads that."""
    affine = affine_of(graph, node)
    value = graph.operands(node.name)[0] if affine is None else affine.x
    if value is None or value.index != 0 or sole_user(graph, value) is None:
        return None
    return graph.node(value.node)


def _linear_affine(graph: Graph, first: Node, node: Node) -> bool:
    """(x W + b) s + t = x (W s) + (b s + t)"""
    affine = _affine(graph, node)
    if not _plain(first):
        return False
    weight, bias = _weights(first)
    return _linear(graph, first, node, weight * affine.scale, bias * affine.scale + affine.shift)


def _affine_linear(graph: Graph, first: Node, node: Node) -> bool:
    """(x s + t) W + b = x (s W) + (t W + b)"""
    affine = _affine(graph, first)
    if not _plain(node):
        return False
    weight, bias = _weights(node)
    return _linear(graph, first, node, affine.scale[:, None] * weight, affine.shift @ weight + bias, affine.x)


def _linear_linear(graph: Graph, first: Node, node: Node) -> bool:
    """(x V + a) W + b = x (V W) + (a W + b), where V W is not larger than both."""
    if not (_plain(first) and _plain(node)):
        return False
    (inner, before), (outer, after) = _weights(first), _weights(node)
    if inner.shape[0] * outer.shape[1] > inner.size + outer.size:
        return False
    return _linear(graph, first, node, inner @ outer, before @ outer + after)


def _linear(graph: Graph, first: Node, node: Node, weight: Array, bias: Array, operand: Value | None = None) -> bool:
    op = Op("linear", {"weight": Tensor(weight), "bias": Tensor(bias) if bias.any() else None})
    absorb(graph, first, node, op, [operand or graph.operand(first.name, 0)])
    return True


def _embed_affine(graph: Graph, first: Node, node: Node) -> bool:
    """The table holds the scaled and shifted rows."""
    affine, table = _affine(graph, node), first.op["table"]
    if table.quantization is not None:
        return False
    op = first.op.with_attrs(table=Tensor(table.array * affine.scale + affine.shift))
    absorb(graph, first, node, op, graph.operands(first.name))
    return True


def _embed_linear(graph: Graph, first: Node, node: Node) -> bool:
    """The table holds the rows times W, where it does not become larger than both."""
    table = first.op["table"]
    if table.quantization is not None or not _plain(node) or table.array.ndim != 2:
        return False
    weight, bias = _weights(node)
    if table.shape[0] * weight.shape[1] > table.array.size + weight.size:
        return False
    absorb(
        graph, first, node, first.op.with_attrs(table=Tensor(table.array @ weight + bias)), graph.operands(first.name)
    )
    return True


def _norm_affine(graph: Graph, first: Node, node: Node) -> bool:
    """(n s + t) s' + t' = n (s s') + (t s' + t')"""
    affine, op = _affine(graph, node), first.op
    scale = affine.scale if op["scale"] is None else op["scale"].array * affine.scale
    shift = affine.shift if op["shift"] is None else op["shift"].array * affine.scale + affine.shift
    op = op.with_attrs(scale=Tensor(scale), shift=Tensor(shift) if shift.any() else None)
    absorb(graph, first, node, op, graph.operands(first.name))
    return True


def _norm_linear(graph: Graph, first: Node, node: Node) -> bool:
    """(n s + t) W + b = n (s W) + (t W + b)"""
    op = first.op
    if not _plain(node) or (op["scale"] is None and op["shift"] is None):
        return False
    weight, bias = _weights(node)
    shift = 0 if op["shift"] is None else op["shift"].array @ weight
    scaled = weight if op["scale"] is None else op["scale"].array[:, None] * weight
    bare = _bare_norm(graph, first, None)
    bias = bias + shift
    recast(
        graph,
        node.name,
        Op("linear", {"weight": Tensor(scaled), "bias": Tensor(bias) if bias.any() else None}),
        [bare],
        first.provenance,
    )
    graph.remove(first.name)
    return True


def _norm_system(graph: Graph, first: Node, node: Node) -> bool:
    """B (n s) = (B s) n, and D alike; a shift t stays as t / s where no s is zero."""
    op = first.op
    if op["scale"] is None or not _unrounded(node):
        return False
    scale = op["scale"].array
    if op["shift"] is not None and not scale.all():
        return False
    shift = None if op["shift"] is None else Tensor(op["shift"].array / scale)
    bare = _bare_norm(graph, first, shift)
    system = _driven(node.op["system"], np.diag(scale))
    recast(
        graph, node.name, node.op.with_attrs(system=system), [bare, *graph.operands(node.name)[1:]], first.provenance
    )
    graph.remove(first.name)
    return True


def _bare_norm(graph: Graph, norm: Node, shift: Tensor | None) -> Value:
    op = norm.op.with_attrs(scale=None, shift=shift)
    return graph.add(op, graph.operands(norm.name), name=f"{norm.name}.bare", provenance=norm.provenance)


def _affine_affine(graph: Graph, first: Node, node: Node) -> bool:
    """Two scales become one, two shifts too; a shift before a scale comes after it, so that the scale can be folded."""
    a, b = _affine(graph, first), _affine(graph, node)
    if a.is_scale and b.is_shift:
        return False
    scale, shift = a.scale * b.scale, a.shift * b.scale + b.shift
    if (a.is_scale and b.is_scale) or (a.is_shift and b.is_shift):
        fn, array = ("mul", scale) if a.is_scale else ("add", shift)
        constant = add_constant(graph, array, node, f".{fn}")
        absorb(graph, first, node, Op("binary", {"fn": fn}), [a.x, constant])
        return True
    factor = add_constant(graph, scale, node, ".scale")
    origin = (*first.provenance, *node.provenance)
    scaled = graph.add("binary", [a.x, factor], {"fn": "mul"}, name=f"{node.name}.scaled", provenance=origin)
    constant = add_constant(graph, shift, node, ".shift")
    absorb(graph, first, node, Op("binary", {"fn": "add"}), [scaled, constant])
    return True


def _system_affine(graph: Graph, first: Node, node: Node) -> bool:
    """s (C x + D u): the scale goes into C and D; a shift has no place there."""
    affine = _affine(graph, node)
    if affine.shift.any() or not _unrounded(first):
        return False
    system: StateSpace = first.op["system"]
    scale = affine.scale.reshape(system.groups, -1, 1)
    system = replace(system, C=system.C * scale, D=system.D * scale)
    absorb(graph, first, node, first.op.with_attrs(system=system), graph.operands(first.name))
    return True


def _affine_system(graph: Graph, first: Node, node: Node) -> bool:
    """B (s u): the scale goes into B and D. A shift stays before it, as (u + t / s), if there is a scale to fold."""
    affine = _affine(graph, first)
    if not _unrounded(node):
        return False
    rest = graph.operands(node.name)[1:]
    if affine.is_scale:
        system = _driven(node.op["system"], np.diag(affine.scale))
        absorb(graph, first, node, node.op.with_attrs(system=system), [affine.x, *rest])
        return True
    inner = _before(graph, first)
    scale = None if inner is None else affine_of(graph, inner)
    if inner is None or scale is None or not scale.is_scale or not scale.scale.all():
        return False
    constant = add_constant(graph, affine.shift / scale.scale, first, ".shift")
    shifted = graph.add(
        "binary", [scale.x, constant], {"fn": "add"}, name=f"{first.name}.shifted", provenance=first.provenance
    )
    system = _driven(node.op["system"], np.diag(scale.scale))
    absorb(graph, first, node, node.op.with_attrs(system=system), [shifted, *rest])
    graph.add_provenance(node.name, *inner.provenance, *constant_sources(graph, inner))
    graph.remove(inner.name)
    return True


def _linear_system(graph: Graph, first: Node, node: Node) -> bool:
    """B (u W) = (B W') u, where one system's B and D do not grow by it and there is no bias."""
    system: StateSpace = node.op["system"]
    if not (_plain(first) and _unrounded(node)) or system.groups != 1 or _flat(graph, first) is None:
        return False
    weight, bias = _weights(first)
    merged = _driven(system, weight)
    if bias.any() or stored(merged) > stored(system) + weight.size:
        return False
    operands = [graph.operand(first.name, 0), *graph.operands(node.name)[1:]]
    absorb(graph, first, node, node.op.with_attrs(system=merged), operands)
    return True


def _system_linear(graph: Graph, first: Node, node: Node) -> bool:
    """(C x + D u) W: W' C and W' D, where one system's C and D do not grow by it; a bias stays behind."""
    system: StateSpace = first.op["system"]
    if not (_plain(node) and _unrounded(first)) or system.groups != 1:
        return False
    weight, bias = _weights(node)
    merged = replace(system, C=weight.T @ system.C, D=weight.T @ system.D)
    if stored(merged) > stored(system) + weight.size:
        return False
    op, operands = first.op.with_attrs(system=merged), graph.operands(first.name)
    if not bias.any():
        absorb(graph, first, node, op, operands)
        return True
    origin = (*first.provenance, *node.provenance)
    mixed = graph.add(op, operands, name=f"{node.name}.unbiased", provenance=origin)
    graph.replace_uses(Value(first.name, 1), Value(mixed.node, 1))
    constant = add_constant(graph, bias, node, ".bias")
    absorb(graph, first, node, Op("binary", {"fn": "add"}), [mixed, constant])
    return True


def _driven(system: StateSpace, weight: Array) -> StateSpace:
    """The system of the input `u W`, W (new inputs, old inputs), within each group."""
    if system.groups == 1:
        return replace(system, B=system.B @ weight.T, D=system.D @ weight.T)
    scale = np.diag(weight).reshape(system.groups, 1, -1)
    return replace(system, B=system.B * scale, D=system.D * scale)


def stored(system: StateSpace) -> int:
    """Numbers that B, C and D of one group take; a D that is zero or diagonal takes none, or one an output."""
    width = 2 if system.is_complex else 1
    d = system.D[0]
    square = d.shape[0] == d.shape[1] and not (d - np.diag(np.diag(d))).any()
    direct = 0 if not d.any() else d.shape[0] if square else d.size
    return width * (system.B.size + system.C.size) + direct


def _affine(graph: Graph, node: Node) -> Affine:
    affine = affine_of(graph, node)
    assert affine is not None
    return affine


def _weights(node: Node) -> tuple[Array, Array]:
    weight, bias = node.op["weight"].array, node.op["bias"]
    return weight, np.zeros(weight.shape[1]) if bias is None else bias.array


def _plain(node: Node) -> bool:
    """A real `linear` whose weight is not rounded."""
    weight, bias = node.op["weight"], node.op["bias"]
    return weight.quantization is None and not weight.is_complex and not (bias is not None and bias.is_complex)


def _unrounded(node: Node) -> bool:
    return node.op["weight_bits"] is None


def _flat(graph: Graph, node: Node) -> Value | None:
    """The operand of a `linear`, if a system can take it: a real stream of vectors."""
    x = graph.operand(node.name, 0)
    kind = graph.type(x)
    real = not node.op["weight"].is_complex
    return x if isinstance(kind, StreamType) and kind.element == "real" and len(kind.shape) == 1 and real else None


Rule = Callable[[Graph, Node, Node], bool]
# (op before, op): the rules for the pair. An "affine" is an elementwise op with a constant: x * s, x + t, ...
RULES: dict[tuple[str, str], tuple[Rule, ...]] = {
    ("linear", "affine"): (_linear_affine,),
    ("affine", "linear"): (_affine_linear,),
    ("linear", "linear"): (_linear_linear,),
    ("embed", "affine"): (_embed_affine,),
    ("embed", "linear"): (_embed_linear,),
    ("norm", "affine"): (_norm_affine,),
    ("norm", "linear"): (_norm_linear,),
    ("norm", "ssm"): (_norm_system,),
    ("affine", "affine"): (_affine_affine,),
    ("ssm", "affine"): (_system_affine,),
    ("affine", "ssm"): (_affine_system,),
    ("linear", "ssm"): (_linear_system,),
    ("ssm", "linear"): (_system_linear,),
}
