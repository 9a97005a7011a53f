"""What is known only after the last step: moved out of the sums over the steps, as far as it can be.

A program that needs it at every step runs through the sequence again. `mean((x - mean(x))^2)` needs the mean at every
step, and softmax over time the sum of all exponentials; but a sum over the steps of `c_1 s_1 + c_2 s_2 + ...`, where
each c is one value a sequence and each s a stream, is `c_1 sum(s_1) + c_2 sum(s_2) + ...`, which one run gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ssmc.frontend.graph.builder import Builder, Operand, features_of
from ssmc.ir.graph import Graph, Value
from ssmc.ir.types import StreamType

MOST = 16  # terms of a sum (ours)

Terms: TypeAlias = dict[Value | None, Operand | None]  # stream -> what it is multiplied with; None is one


@dataclass(eq=False)
class Late:
    """In which run through the sequence values are made, and which nodes make a run necessary."""

    run: dict[Value, int] = field(default_factory=dict)  # 0 is the first; of what a run leaves, that run
    first: list[str] = field(default_factory=list)  # nodes whose streams need what an earlier run leaves


def late_values(graph: Graph) -> Late:
    """In which run through the sequence each value is made: a stream that needs what is known only after the last step
    is made in another run."""
    late = Late()
    for node in graph.nodes():
        operands = [v for v in graph.operands(node.name) if v is not None]
        own = max((late.run[v] for v in operands if v in late.run), default=-1)
        if any(isinstance(kind, StreamType) for kind in node.types):
            left = max((late.run[v] for v in operands if v in late.run and not _is_stream(graph, v)), default=-1)
            own = max(own, left + 1)
            if left >= 0 and left + 1 == own:
                late.first.append(node.name)
        if own >= 0:
            late.run.update(dict.fromkeys(graph.results(node.name), own))
    return late


def postpone(graph: Graph) -> dict[str, str]:
    """Take what is known late out of sums and means over the steps where that spares a run through the sequence.

    In place; nothing is renamed.
    """
    tried: set[str] = set()
    while (name := _sparing(graph, tried)) is not None:
        tried.add(name)
        node, late = graph.node(name), late_values(graph)
        expansion = _Expansion(graph, late, late.run[graph.operand(name, 0)])
        with expansion.builder.origin(node.provenance):
            terms = expansion.terms(graph.operand(name, 0))
            if terms is None:
                continue
            total = expansion.summed(terms, node.op["kind"], features_of(graph, Value(name)))
        if isinstance(total, Value):
            graph.replace_uses(Value(name), total)
    graph.prune()
    return {}


def _sparing(graph: Graph, tried: set[str]) -> str | None:
    """The first sum of a late stream that only such sums need; what every step needs takes another run anyway, and a
    sum of squares about their mean is exact where the sum of squares is not."""
    late, ends = late_values(graph), [node.name for node in graph.outputs()]
    run = {node.name: late.run[graph.operand(node.name, 0)] for node in graph.nodes("pool")}
    for most in sorted(set(run.values()) - {0}):
        sums = {n.name for n in graph.nodes("pool") if n.op["kind"] in ("sum", "mean") and run[n.name] == most} - tried
        while sums:
            kept = {
                n for n in _behind(graph, ends, sums) if late.run.get(Value(n)) == most and _is_stream(graph, Value(n))
            }
            dear = {n for n in sums if _behind(graph, [graph.operand(n, 0).node], sums) & kept}
            if not dear:
                return next(name for name in graph.order() if name in sums)
            sums -= dear
    return None


def _behind(graph: Graph, names: list[str], barred: set[str]) -> set[str]:
    """What the nodes are made of, without what only the barred ones need."""
    found, waiting = set(names), list(names)
    while waiting:
        before = set(graph.net.predecessors(waiting.pop())) - barred - found
        found |= before
        waiting += before
    return found


def _is_stream(graph: Graph, value: Value) -> bool:
    return isinstance(graph.type(value), StreamType)


@dataclass(eq=False)
class _Expansion:
    graph: Graph
    late: Late
    run: int  # of the sum; what earlier runs make need not be expanded

    def __post_init__(self) -> None:
        self.builder = Builder(self.graph)
        self.like: Value | None = None  # any stream that the sum runs over

    def terms(self, value: Value) -> Terms | None:
        """The value as a sum of products; None where it is not known to be one."""
        graph, builder = self.graph, self.builder
        if not _is_stream(graph, value):
            return {None: value}
        self.like = value
        if self.late.run[value] < self.run:
            return {value: None}
        op, operands = graph.op(value.node), [v for v in graph.operands(value.node) if v is not None]
        if op.name == "spread":
            return {None: operands[0]}
        parts = [self.terms(v) for v in operands]
        if any(part is None for part in parts) or value.index:
            return None
        known = [part for part in parts if part is not None]
        with builder.origin(graph.node(value.node).provenance):
            match op.name, op.get("fn"):
                case "reverse", _:
                    return {s if s is None else builder.reverse(s): c for s, c in known[0].items()}
                case "unary", "identity":
                    return known[0]
                case "unary", "neg":
                    return self._scaled(known[0], np.asarray(-1.0))
                case "unary", "square":
                    return self._product(known[0], known[0])
                case "binary", "add":
                    return self._sum(known[0], known[1])
                case "binary", "sub":
                    return self._sum(known[0], self._scaled(known[1], np.asarray(-1.0)))
                case "binary", "mul":
                    return self._product(known[0], known[1])
                case "binary", "div":
                    return self._quotient(known[0], known[1])
                case (("reshape" | "broadcast"), _):
                    return self._shaped(known[0], features_of(graph, operands[0]), op.name, op["shape"])
                case "reduce", "sum" | "mean":
                    return self._reduced(known[0], features_of(graph, operands[0]), op.name, dict(op.attrs))
                case "contract", _:
                    return self._contracted(known, operands, str(op["equation"]))
        return None

    # -- how terms combine ---------------------------------------------------------------------------------

    def _times(self, a: Operand | None, b: Operand | None) -> Operand | None:
        if a is None or b is None:
            return b if a is None else a
        return self.builder.unary("square", a) if a is b else self.builder.binary("mul", a, b)

    def _scaled(self, terms: Terms, factor: Operand) -> Terms:
        return {s: self._times(c, factor) for s, c in terms.items()}

    def _sum(self, a: Terms, b: Terms) -> Terms:
        found = dict(a)
        for s, c in b.items():
            one = np.asarray(1.0)
            found[s] = c if s not in found else self.builder.binary("add", _or(found[s], one), _or(c, one))
        return found

    def _product(self, a: Terms, b: Terms) -> Terms | None:
        found: Terms = {}
        if len(a) * len(b) > MOST:
            return None
        for s, c in a.items():
            for t, d in b.items():
                stream = self._times(s, t)
                assert stream is None or isinstance(stream, Value)
                found = self._sum(found, {stream: self._times(c, d)})
        return found

    def _quotient(self, a: Terms, b: Terms) -> Terms | None:
        if len(b) != 1:
            return None
        ((stream, factor),) = b.items()
        if factor is not None:
            a = {s: self.builder.binary("div", _or(c, np.asarray(1.0)), factor) for s, c in a.items()}
        if stream is None:
            return a
        found: Terms = {}
        for s, c in a.items():
            part = self.builder.unary("reciprocal", stream) if s is None else self.builder.binary("div", s, stream)
            assert isinstance(part, Value)
            found[part] = c
        return found

    # -- ops on features -----------------------------------------------------------------------------------

    def _full(self, x: Operand | None, shape: tuple[int, ...]) -> Operand | None:
        return None if x is None else self.builder.broadcast(x, shape)

    def _shaped(self, terms: Terms, before: tuple[int, ...], name: str, shape: tuple[int, ...]) -> Terms:
        def moved(x: Operand | None) -> Operand | None:
            if x is None or (name == "broadcast"):
                return x if x is None else self.builder.broadcast(x, shape)
            full = self.builder.broadcast(x, before)
            return self.builder.reshape(full, shape)

        found: Terms = {}
        for s, c in terms.items():
            stream = moved(s)
            assert stream is None or isinstance(stream, Value)
            found[stream] = moved(c)
        return found

    def _reduced(self, terms: Terms, before: tuple[int, ...], name: str, attrs: dict[str, object]) -> Terms | None:
        """A sum over features: what differs along them must be the stream, not its factor."""
        axes = attrs["axes"]
        assert isinstance(axes, tuple)
        found: Terms = {}
        for s, c in terms.items():
            shape = () if c is None else self.builder.features(c)
            if s is None:
                assert c is not None
                found[None] = self.builder.emit(name, [self.builder.broadcast(c, before)], **attrs)
                continue
            if any(-axis <= len(shape) and shape[axis] != 1 for axis in axes):
                return None
            gone = {len(before) + axis for axis in axes}
            padded = (1,) * (len(before) - len(shape)) + shape
            kept = tuple(d for i, d in enumerate(padded) if attrs["keepdims"] or i not in gone)
            stream = self.builder.emit(name, [self._full(s, before)], **attrs)
            assert isinstance(stream, Value)
            found = self._sum(found, {stream: None if c is None else self.builder.reshape(c, kept)})
        return found

    def _contracted(self, parts: list[Terms], operands: list[Value], equation: str) -> Terms | None:
        """A contraction: factors along letters that stay are factors of the result."""
        left, _, result = equation.partition("->")
        letters = left.split(",")
        if len(parts) != 2 or len(parts[0]) * len(parts[1]) != 1:
            return None
        streams: list[Operand] = []
        factor: Operand | None = None
        for terms, operand, own in zip(parts, operands, letters, strict=True):
            ((s, c),) = terms.items()
            shape = features_of(self.graph, operand)
            if s is None:
                assert c is not None
                s, c = self.builder.stream(self.builder.broadcast(c, shape), self._any()), None
            streams.append(self.builder.broadcast(s, shape))
            if c is None:
                continue
            held = self.builder.features(c)
            padded = (1,) * (len(shape) - len(held)) + held
            if any(d != 1 and x not in result for d, x in zip(padded, own, strict=True)):
                return None
            order = sorted(range(len(own)), key=lambda i: result.find(own[i]))
            c = self.builder.transpose(self.builder.reshape(c, padded), order)
            sizes = dict(zip(own, padded, strict=True))
            factor = self._times(factor, self.builder.reshape(c, tuple(sizes.get(x, 1) for x in result)))
        stream = self.builder.emit("contract", streams, equation=equation)
        assert isinstance(stream, Value)
        return {stream: factor}

    def _any(self) -> Value:
        assert self.like is not None
        return self.like

    # -- the sum over the steps ----------------------------------------------------------------------------

    def summed(self, terms: Terms, kind: str, shape: tuple[int, ...]) -> Operand:
        """The pooled terms, added up."""
        builder, total = self.builder, None
        for s, c in terms.items():
            part: Operand | None
            if s is not None:
                part = self._times(builder.add("pool", [s], kind=kind), c)
            elif kind == "mean":
                part = c
            else:
                steps = builder.add("pool", [builder.stream(np.ones(()), self._untied())], kind="sum")
                part = self._times(steps, c)
            assert part is not None
            total = part if total is None else builder.binary("add", total, part)
        assert total is not None
        return builder.broadcast(total, shape)

    def _untied(self) -> Value:
        """A stream at the rate of the sum that does not need anything late."""
        waiting = [self._any()]
        while waiting:
            value = waiting.pop()
            if _is_stream(self.graph, value) and self.late.run[value] < self.run:
                return value
            waiting += [v for v in self.graph.operands(value.node) if v is not None]
        return self._any()


def _or(x: Operand | None, default: Operand) -> Operand:
    return default if x is None else x
