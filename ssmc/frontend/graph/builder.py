"""The new graph under construction: constants fold, and what changes nothing is not emitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, TypeAlias

import numpy as np

from ssmc.ir.graph import Graph, Value
from ssmc.ir.op import Array, Op
from ssmc.ir.table import spec_of
from ssmc.ir.tensor import Tensor, widened
from ssmc.ir.types import ConstantType, FlowType, StreamType, TensorType
from ssmc.statespace import StateSpace

Operand: TypeAlias = Value | Array

# Ops whose result at a step depends on that step's operands alone: they commute with reversing time.
PER_STEP = frozenset(
    [
        "linear",
        "norm",
        "gate",
        "unary",
        "binary",
        "select",
        "complex",
        "real",
        "imag",
        "softmax",
        "reduce",
        "concat",
        "slice",
        "take",
        "reshape",
        "transpose",
        "broadcast",
        "contract",
        "embed",
    ]
)


# x counts the steps from 1 on, y = x - 1
COUNTER = StateSpace(A=np.ones((1, 1)), B=np.ones((1, 1, 1)), C=np.ones((1, 1, 1)), D=-np.ones((1, 1, 1)))


def kind_of(graph: Graph, value: Value) -> FlowType:
    """The type of a value of the new graph."""
    kind = graph.type(value)
    assert not isinstance(kind, TensorType)
    return kind


def features_of(graph: Graph, value: Value) -> tuple[int, ...]:
    """The feature shape of a value of the new graph."""
    return kind_of(graph, value).shape


def size_of(graph: Graph, value: Value) -> int:
    """How many features a value has."""
    return prod(features_of(graph, value))


class Builder:
    """Adds ops to `graph`. Operands are its values, or arrays, which are constants (features only)."""

    def __init__(self, graph: Graph | None = None) -> None:
        self.graph = graph or Graph()
        self.provenance: tuple[str, ...] = ()
        self.tables: dict[str, tuple[Array, str]] = {}  # of `positional`: node -> the constant and its axes

    @contextmanager
    def origin(self, provenance: tuple[str, ...]) -> Iterator[None]:
        """Nodes added inside come from these ONNX nodes."""
        before, self.provenance = self.provenance, provenance
        try:
            yield
        finally:
            self.provenance = before

    def kind(self, operand: Operand) -> FlowType:
        """The type of an operand; that of an array is a constant of its shape."""
        if isinstance(operand, Value):
            return kind_of(self.graph, operand)
        element = {"c": "complex", "i": "index", "u": "index", "b": "bool"}.get(operand.dtype.kind, "real")
        return ConstantType(tuple(operand.shape), element)  # type: ignore[arg-type]

    def features(self, operand: Operand) -> tuple[int, ...]:
        """The feature shape of an operand."""
        return self.kind(operand).shape

    def emit(self, name: str, operands: Sequence[Operand | None], **attrs: Any) -> Operand:
        """The first result of an op; an array where all operands are arrays."""
        given = [o for o in operands if o is not None]
        if given and all(not isinstance(o, Value) for o in given) and name in PER_STEP:
            return self._fold(name, operands, attrs)
        return self.add(name, operands, **attrs)

    def add(self, name: str, operands: Sequence[Operand | None], **attrs: Any) -> Value:
        """A node of the graph, and its first result; reversals of time move behind what does not mind them."""
        attrs = {key: value for key, value in attrs.items() if value is not None}
        if name in PER_STEP:
            inner = self._unreversed(operands)
            if inner is not None:
                return self.reverse(self.add(name, inner, **attrs))
        values = [o if o is None or isinstance(o, Value) else self.constant(o) for o in operands]
        return self.graph.add(name, values, attrs, provenance=self.provenance)

    def _fold(self, name: str, operands: Sequence[Operand | None], attrs: dict[str, Any]) -> Array:
        spec = spec_of(name)
        op = Op(name, spec.complete({k: v for k, v in attrs.items() if v is not None}))
        kinds: list[Any] = [None if o is None else self.kind(o) for o in operands]
        arrays: list[Any] = [widened(o) for o in operands]
        missing = len(spec.operands) - len(arrays) - spec.variadic
        spec.infer(op, kinds + [None] * missing)
        result = spec.evaluate(op, arrays + [None] * missing, kinds + [None] * missing)[0]
        return np.asarray(result)

    def _unreversed(self, operands: Sequence[Operand | None]) -> list[Operand | None] | None:
        """Operands before their reversal, if every stream among them is reversed."""
        found, any_reversed = list(operands), False
        for i, operand in enumerate(operands):
            if not isinstance(operand, Value) or not isinstance(self.graph.type(operand), StreamType):
                continue
            if self.graph.op(operand.node).name != "reverse":
                return None
            found[i], any_reversed = self.graph.operand(operand.node, 0), True
        return found if any_reversed else None

    # -- single ops, with what changes nothing left out ----------------------------------------------------

    def constant(self, array: Array) -> Value:
        """A node that holds an array."""
        return self.graph.add("constant", [], {"value": Tensor(array)}, provenance=self.provenance)

    def unary(self, fn: str, x: Operand) -> Operand:
        """`fn(x)`, elementwise."""
        return x if fn == "identity" else self.emit("unary", [x], fn=fn)

    def binary(self, fn: str, a: Operand, b: Operand) -> Operand:
        """fn(a, b) with the neutral and the absorbing constants simplified."""
        if isinstance(a, Value) != isinstance(b, Value):
            shape = np.broadcast_shapes(self.features(a), self.features(b))
            constant, value = (a, b) if isinstance(b, Value) else (b, a)
            assert not isinstance(constant, Value) and isinstance(value, Value)
            if fn == "mul" and not np.any(constant):
                return np.zeros(shape)
            if fn == "div" and constant is a and not np.any(constant):
                return np.zeros(shape)
            neutral = {"add": 0.0, "mul": 1.0, "sub": 0.0, "div": 1.0}.get(fn)
            commutes = fn in ("add", "mul") or constant is b
            if neutral is not None and commutes and bool(np.all(constant == neutral)):
                return self.broadcast(value, shape)
            if fn == "sub" and constant is a and not np.any(constant):
                return self.broadcast(self.unary("neg", value), shape)
            if fn == "add" and isinstance(value, Value):
                biased = self._biased(value, constant)
                if biased is not None:
                    return biased
        return self.emit("binary", [a, b], fn=fn)

    def _biased(self, value: Value, constant: Array) -> Value | None:
        """A bias after a matrix, as part of it."""
        node = self.graph.node(value.node)
        if node.op.name == "reverse":
            inner = self._biased(self.graph.operand(value.node, 0), constant)
            return None if inner is None else self.reverse(inner)
        if (
            node.op.name != "linear"
            or node.op["bias"] is not None
            or constant.shape not in ((), self.features(value)[-1:])
        ):
            return None
        bias = np.broadcast_to(constant, self.features(value)[-1:])
        return self.add("linear", [self.graph.operand(value.node, 0)], weight=node.op["weight"], bias=Tensor(bias))

    def reshape(self, x: Operand, shape: tuple[int, ...]) -> Operand:
        """The same numbers in another feature shape; reshapes of reshapes are one."""
        if self.features(x) == shape:
            return x
        if isinstance(x, Value) and self.graph.op(x.node).name == "reshape":
            return self.reshape(self.graph.operand(x.node, 0), shape)
        return self.emit("reshape", [x], shape=shape)

    def transpose(self, x: Operand, permutation: Sequence[int]) -> Operand:
        """Feature axes in the order of `permutation`."""
        order = tuple(permutation)
        shape = self.features(x)
        if order == tuple(range(len(order))):
            return x
        moved = [i for i in order if shape[i] != 1]
        if moved == sorted(moved):  # only axes of size one change places
            return self.reshape(x, tuple(shape[i] for i in order))
        return self.emit("transpose", [x], permutation=order)

    def broadcast(self, x: Operand, shape: tuple[int, ...]) -> Operand:
        """Features repeated up to `shape`."""
        if self.features(x) == shape:
            return x
        if prod(self.features(x)) == prod(shape):
            return self.reshape(x, shape)
        return self.emit("broadcast", [x], shape=shape)

    def slice(self, x: Operand, axis: int, start: int | None, stop: int | None, step: int = 1) -> Operand:
        """`x[start:stop:step]` along a feature axis."""
        size = self.features(x)[axis]
        if range(size)[slice(start, stop, step)] == range(size):
            return x
        return self.emit("slice", [x], axis=axis, start=start, stop=stop, step=step)

    def concat(self, parts: Sequence[Operand], axis: int) -> Operand:
        """Features side by side along an axis."""
        return parts[0] if len(parts) == 1 else self.emit("concat", parts, axis=axis)

    def linear(self, x: Operand, weight: Array, bias: Array | None = None) -> Operand:
        """`x @ weight + bias`, `weight` (inputs, outputs), on the last feature axis."""
        return self.emit("linear", [x], weight=Tensor(weight), bias=None if bias is None else Tensor(bias))

    def reverse(self, x: Operand) -> Value:
        """The stream from its last step to its first; twice is once too often, and left out."""
        assert isinstance(x, Value)
        if self.graph.op(x.node).name == "reverse":
            return self.graph.operand(x.node, 0)
        return self.graph.add("reverse", [x], provenance=self.provenance)

    def recurrent(self, name: str, operands: Sequence[Operand | None], **attrs: Any) -> tuple[Value, Value]:
        """An `ssm`, `recurrence` or `fir`, as (its stream, its last state); reversed operands become `reverse`."""
        inner = self._unreversed(operands)
        if inner is None:
            y = self.add(name, operands, **attrs)
            return y, Value(y.node, 1)
        y = self.add(name, inner, **{**attrs, "reverse": not attrs.get("reverse", False)})
        return self.reverse(y), Value(y.node, 1)

    def stream(self, x: Operand, like: Value) -> Value:
        """A constant or sequence value as the stream that repeats it."""
        if isinstance(x, Value) and isinstance(self.graph.type(x), StreamType):
            return x
        return self.add("spread", [x, like])

    def steps(self, like: Value) -> Operand:
        """The stream of the steps' numbers, 0 first, without features."""
        one = self.stream(np.ones(1), like)
        return self.reshape(self.add("ssm", [one], system=COUNTER), ())

    def positional(self, table: Array, like: Value, source: tuple[Array, str]) -> Value:
        """A stream that follows the rows of `table` (steps, *features): a counter looks them up.

        `source` is the constant that the table was made of, with its axes.
        """
        flat = self.add("embed", [self.steps(like)], table=Tensor(table.reshape(len(table), -1)))
        self.tables[flat.node] = source
        result = self.reshape(flat, tuple(table.shape[1:]))
        assert isinstance(result, Value)
        return result
