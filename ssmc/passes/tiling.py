"""The graph that `tile` is building: new values for old ones, complex values as real halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.ir import ConstantType, Graph, Node, Op, SequenceType, StreamType, Tensor, Value, ValueType
from ssmc.ir.op import Array
from ssmc.passes.machine import Machine
from ssmc.passes.pieces import Block, cut


@dataclass
class Tiling:
    """`source` being rewritten into `out`, node by node; `real` and `pairs` hold what has been made so far, `origin`
    of which source node."""

    source: Graph
    out: Graph
    machine: Machine
    real: dict[Value, Value] = field(default_factory=dict)
    pairs: dict[Value, Halves] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)

    def operands(self, node: Node, slots: int) -> list[Value | None]:
        """Operands of a source node, filled up with None."""
        given = self.source.operands(node.name)
        return given + [None] * (slots - len(given))

    def is_complex(self, value: Value) -> bool:
        """Does a source value have an imaginary part?"""
        return value in self.pairs

    def parts(self, value: Value, node: Node) -> Halves:
        """A source value as complex: a real one gets no imaginary part."""
        return self.pairs[value] if value in self.pairs else Halves(self, node, re=self.real[value], im=None)

    def emit(self, node: Node, op: str, operands: Sequence[Value | None], suffix: str = "", **attrs: Any) -> Value:
        """Add a node that stands for (a part of) source node `node`: its name, with `suffix`, and its provenance."""
        made = self.out.add(op, operands, attrs, name=node.name + suffix, provenance=node.provenance)
        self.origin[made.node] = node.name
        return made

    def constant(self, node: Node, array: Array, suffix: str) -> Value:
        """A constant of the new graph."""
        return self.emit(node, "constant", [], suffix, value=Tensor(array))

    def matmul(
        self,
        node: Node,
        x: Value,
        weight: Tensor | Array,
        suffix: str = "",
        *,
        bias: Tensor | None = None,
        blocks: Sequence[Block] | None = None,
    ) -> Value:
        """`x @ weight + bias`, with `weight` (inputs, outputs) cut into pieces of the size of an array; of a
        matrix with zeros only the `blocks` that hold something."""
        weight = weight if isinstance(weight, Tensor) else Tensor(weight)
        pieces = cut(weight, self.machine, blocks)
        return self.emit(node, "tile.matmul", [x], suffix, weight=weight, bias=bias, pieces=pieces)

    def binary(self, node: Node, fn: str, a: Value, b: Value, suffix: str = "") -> Value:
        """`fn(a, b)`, elementwise."""
        return self.emit(node, "binary", [a, b], suffix, fn=fn)

    def unary(self, node: Node, fn: str, x: Value, suffix: str = "") -> Value:
        """`fn(x)`, elementwise."""
        return self.emit(node, "unary", [x], suffix, fn=fn)

    def shape(self, value: Value) -> tuple[int, ...]:
        """Feature shape of a value of `out`."""
        kind: Any = self.out.type(value)
        return tuple(kind.shape)

    def reshape(self, node: Node, x: Value, shape: tuple[int, ...], suffix: str) -> Value:
        """The value with other features; itself where it has them already."""
        return x if self.shape(x) == shape else self.emit(node, "reshape", [x], suffix, shape=shape)

    def refuse(self, node: Node, what: str, why: str = "", hint: str = "") -> UserError:
        """An error about a source node, to be raised."""
        return UserError(what, where=f"pass 'tile', {node.where}", why=why, hint=hint)


@dataclass
class Halves:
    """A complex value as real ones: its parts, or both joined on the last axis as halves re|im.

    What is missing is made when it is asked for; an imaginary part that is known to be zero is None until then.
    """

    tiling: Tiling
    node: Node
    re: Value | None = None
    im: Value | None = None
    whole: Value | None = None

    @property
    def is_real(self) -> bool:
        """The imaginary part is known to be zero."""
        return self.im is None and self.whole is None

    def real_part(self) -> Value:
        """The real part, a value of its own."""
        if self.re is None:
            self.re = self._half(0, ".re")
        return self.re

    def imag_part(self) -> Value:
        """The imaginary part, a value of its own; zeros where there is none."""
        if self.im is None and self.whole is not None:
            self.im = self._half(1, ".im")
        if self.im is None:
            zero = self.tiling.constant(self.node, np.zeros(()), ".zero")
            self.im = self.tiling.binary(self.node, "mul", self.real_part(), zero, ".im")
        return self.im

    def joined(self) -> Value:
        """(..., 2 n); a scalar becomes (2,)."""
        if self.whole is None:
            t = self.tiling
            re, im = self._even()
            width = (1,) if t.shape(re) == () else t.shape(re)
            halves = [t.reshape(self.node, part, width, ".part") for part in (re, im)]
            self.whole = t.emit(self.node, "concat", halves, ".halves", axis=-1)
        return self.whole

    def _even(self) -> tuple[Value, Value]:
        """Both parts in one shape."""
        t, re = self.tiling, self.real_part()
        im = self.im
        if im is None:
            return re, t.constant(self.node, np.zeros(t.shape(re)), ".zeros")
        shape = np.broadcast_shapes(t.shape(re), t.shape(im))
        wide = [
            p if t.shape(p) == shape else t.emit(self.node, "broadcast", [p], ".wide", shape=shape) for p in (re, im)
        ]
        return wide[0], wide[1]

    def _half(self, index: int, suffix: str) -> Value:
        assert self.whole is not None
        half = self.tiling.shape(self.whole)[-1] // 2
        return self.tiling.emit(
            self.node, "slice", [self.whole], suffix, axis=-1, start=index * half, stop=(index + 1) * half, step=1
        )


@dataclass(frozen=True)
class Ports:
    """The operands of an `ssm` node in the new graph, and what is asked of it."""

    u: Value
    dt: Value | None
    x0: Value | None  # (W,)
    is_complex: bool  # states are halves re|im
    last_used: bool
    reverse: bool


def real_form(matrix: Array, is_complex: bool) -> Array:
    """`M` (inputs, outputs) for row vectors of halves: `[re | im] [[Mr, Mi], [-Mi, Mr]]`."""
    if not is_complex:
        return matrix
    return np.block([[matrix.real, np.imag(matrix)], [-np.imag(matrix), matrix.real]])


def copy_op(tiling: Tiling, node: Node, operands: Sequence[Value | None], suffix: str = "") -> Value:
    """The source node's op on other operands."""
    op: Op = node.op
    return tiling.out.add(op, operands, name=node.name + suffix, provenance=node.provenance)


def even(tiling: Tiling, node: Node, part: Value, kind: ValueType, whole: Halves) -> Value:
    """A part of `whole` as a value of the type `kind`, which broadcasting alone may have given to the other part."""
    if not isinstance(kind, StreamType | SequenceType | ConstantType):
        return part
    has: Any = tiling.out.type(part)
    if has.shape != kind.shape:
        part = tiling.emit(node, "broadcast", [part], ".wide", shape=kind.shape)
    if isinstance(kind, StreamType) and not isinstance(has, StreamType):
        streams = [p for p in (whole.real_part(), whole.imag_part()) if isinstance(tiling.out.type(p), StreamType)]
        part = tiling.emit(node, "spread", [part, streams[0]], ".spread")
    return part
