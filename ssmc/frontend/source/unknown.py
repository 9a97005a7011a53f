"""Nodes whose op nobody gives a meaning to: named all at once, together with what else would not compile."""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx
import onnx

from ssmc.frontend.findings import Refusal
from ssmc.frontend.source.refused import MICROSOFT_OPS
from ssmc.ir.graph import Graph, Node

REASON = (
    "neither the ONNX standard nor this compiler gives this op a meaning; export it with standard ops, or with its "
    "body as a model-local function"
)
NO_ONNX = (
    "the ONNX known here has no op of this name, and the file gives no body for it, as where a converter leaves an op "
    "of another framework as it was (tf2onnx says so while it writes the file); write the model without that op"
)
LAYOUT = (
    "onnxruntime's optimiser lays numbers out for the processor on which it ran; give the model as it was before, or "
    "optimised at the level 'extended'"
)

CLASSICAL = (
    "this is an op of classical machine learning, which is not looked into; write it with ops of the default domain: "
    "scaling as Sub and Mul, a linear model as Gemm"
)

Known = Callable[[onnx.NodeProto], bool]


def unknown_nodes(graph: Graph, known: Known) -> dict[str, tuple[Refusal, ...]]:
    """Nodes of an `onnx.*` graph that are of an unknown op, or hold one in a body: label -> what to say of it."""
    found = {name: tuple(_told(graph.node(name), known)) for name in graph.order()}
    return {name: told for name, told in found.items() if told}


def _told(node: Node, known: Known) -> list[Refusal]:
    if not node.op.name.startswith("onnx."):
        return []
    told = [r for body in node.op["regions"].values() for n in body.order() for r in _told(body.node(n), known)]
    proto = node.op["node"]
    if not known(proto):
        kind = f"{proto.domain}::{proto.op_type}" if proto.domain else proto.op_type
        told.append(Refusal(node.provenance[0], kind, _reason(proto.domain, proto.op_type)))
    return told


def _reason(domain: str, kind: str) -> str:
    if domain in ("", "ai.onnx"):
        return NO_ONNX
    if domain == "com.microsoft.nchwc":
        return LAYOUT
    if domain == "ai.onnx.ml":
        return CLASSICAL
    return MICROSOFT_OPS.get(kind, REASON) if domain == "com.microsoft" else REASON


def known_part(graph: Graph, unknown: dict[str, tuple[Refusal, ...]]) -> Graph | None:
    """What comes before the unknown nodes, its last values as outputs; None where nothing does."""
    part = graph.copy()
    lost = set(unknown).union(*(nx.descendants(part.net, name) for name in unknown))
    last = {v for name in lost for v in graph.operands(name) if v is not None and v.node not in lost}
    for value in sorted(last):
        if part.op(value.node).name.startswith("onnx."):
            part.add("output", [value], {"name": f"{value.node}:{value.index}"})
    for output in part.outputs():
        if output.name in lost:
            part.remove(output.name)
    part.prune()
    return part if part.outputs() else None
