"""Elementwise ops with a constant, seen as a scale and a shift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmc.ir import Graph, Node, SequenceType, StreamType, Value
from ssmc.ir.op import Array
from ssmc.passes.rewrite import constant_of


@dataclass(frozen=True)
class Affine:
    """`y = x scale + shift`, a number each for every entry of the last axis."""

    x: Value
    scale: Array  # (n,)
    shift: Array  # (n,)

    @property
    def is_scale(self) -> bool:
        return not self.shift.any()

    @property
    def is_shift(self) -> bool:
        return bool((self.scale == 1).all())


def affine_of(graph: Graph, node: Node) -> Affine | None:
    """What an elementwise node does, if that is to scale or shift a real value by a constant along its last axis."""
    kind = node.types[0]
    if not isinstance(kind, StreamType | SequenceType) or kind.element != "real" or not kind.shape:
        return None
    width = kind.shape[-1]
    ones, zeros = np.ones(width), np.zeros(width)
    if node.op.name == "unary" and node.op["fn"] == "neg":
        return Affine(graph.operand(node.name, 0), -ones, zeros)
    if node.op.name != "binary":
        return None
    a, b = graph.operand(node.name, 0), graph.operand(node.name, 1)
    left, right = constant_of(graph, a), constant_of(graph, b)
    x, c = (b, left) if left is not None else (a, right)
    if (
        c is None
        or np.iscomplexobj(c)
        or graph.type(x) != kind
        or c.size not in (1, width)
        or c.shape[-1:] != (c.size,)[: c.ndim]
    ):
        return None
    c = np.broadcast_to(c.reshape(-1), (width,)).astype(np.float64)
    match node.op["fn"]:
        case "mul":
            return Affine(x, c, zeros)
        case "div" if x == a and c.all():
            return Affine(x, 1 / c, zeros)
        case "add":
            return Affine(x, ones, c)
        case "sub":
            return Affine(x, ones, -c) if x == a else Affine(x, -ones, c)
    return None
