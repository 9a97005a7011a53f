"""When a value exists: before, in or after a sweep over the steps, and at which of the steps.

A program is a row of stages. Even ones run once for a sequence, odd ones are loops over its steps. A model
that reads its sequence forwards needs three: before (0), the steps (1), after (2). A reversed stream is
kept whole and read backwards in another sweep, two stages later; so is a stream that needs what a pooling gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Node, StreamType, Value


@dataclass(frozen=True, order=True)
class Context:
    """A stage, and in odd ones the steps offset, offset + stride, ... of it."""

    stage: int
    stride: int = 1
    offset: int = 0

    @property
    def streams(self) -> bool:
        """Is the stage a sweep over the steps?"""
        return self.stage % 2 == 1

    @property
    def after(self) -> Context:
        """The stage after the sweep (or this one, outside of a sweep)."""
        return Context(self.stage + self.stage % 2)

    @property
    def before(self) -> Context:
        """The stage before the sweep (or this one, outside of a sweep)."""
        return Context(self.stage - self.stage % 2)

    def resweep(self) -> Context:
        """The same steps in the next sweep."""
        return replace(self, stage=self.stage + 2)


@dataclass(frozen=True, eq=False)
class Timing:
    """The context of every value, and the first stage of each load of weights and states (see `ssmc.passes.loads`)."""

    contexts: Mapping[Value, Context]
    begins: Mapping[int, int]


def place_in_time(graph: Graph) -> Timing:
    """When a tile graph's values exist. A load stays for as many sweeps as its nodes need, and the next one begins in a
    stage of its own behind them. Raises UserError for a rate that is no 1/n."""
    found: dict[Value, Context] = {}
    loads: Mapping[str, int] = graph.attributes.get("loads", {})
    begins, last = {0: 0}, 0
    for node in _load_after_load(graph, loads):
        load = loads.get(node.name)
        if load is not None and load not in begins:
            begins[load] = last + 1 + (last + 1) % 2
        operands = [None if value is None else found[value] for value in graph.operands(node.name)]
        begin = begins[load or 0]
        for index, context in enumerate(_results(node, operands, begin)):
            found[Value(node.name, index)] = context
            if load is not None and (not index or graph.users(Value(node.name, index))):
                made = work_context(node, operands, begin) if not index else context
                last = max(last, made.stage)
    return Timing(found, begins)


def meetings(graph: Graph, contexts: Mapping[Value, Context]) -> Iterator[tuple[str, int, list[int]]]:
    """Nodes that read, step by step, streams of one stride that begin at different steps: their names, the stride, and
    where the streams begin. They have a meaning at the lengths that give them as many steps alone."""
    for node in graph.nodes():
        operands = [contexts[value] for value in graph.operands(node.name) if value is not None]
        begins = sorted({context.offset for context in operands if context.streams})
        if len(begins) > 1 and node.op.name != "spread":
            yield node.name, next(context.stride for context in operands if context.streams), begins


def _load_after_load(graph: Graph, loads: Mapping[str, int]) -> list[Node]:
    """Topological order in which the nodes of a load stand before those of the next."""
    level: dict[str, int] = {}
    nodes = list(graph.nodes())
    for node in nodes:
        before = (level[value.node] for value in graph.operands(node.name) if value is not None)
        level[node.name] = max(loads.get(node.name, 0), *before, 0)
    return sorted(nodes, key=lambda node: level[node.name])


def work_context(node: Node, operands: Sequence[Context | None], begin: int = 0) -> Context:
    """Where a node does its work: as its latest operand, streams in a sweep, and in a later one than they were made
    where it walks them backwards; not before stage `begin`, when its load is there."""
    present = [context for context in operands if context is not None]
    streams = [context for context in present if context.streams]
    turned = 2 if node.op.get("reverse") else 0
    stage = max((context.stage + (turned if context.streams else 0) for context in present), default=0)
    stage = max(stage, begin)
    if not streams:
        return Context(stage)
    return Context(stage + 1 - stage % 2, streams[0].stride, max(context.offset for context in streams))


def _results(node: Node, operands: Sequence[Context | None], begin: int) -> tuple[Context, ...]:
    op = node.op
    match op.name:
        case "input":
            kind = node.types[0]
            return (_input_steps(node, kind),) if isinstance(kind, StreamType) else (Context(0),)
        case "pool":
            return (work_context(node, operands).after,)
        case "reverse":
            assert operands[0] is not None
            return (operands[0].resweep(),)
        case "downsample":
            assert operands[0] is not None
            c, stride = operands[0], int(op["stride"])
            skip = int(op["offset"]) if op["kind"] == "take" else stride - 1
            return (Context(c.stage, c.stride * stride, c.offset + c.stride * skip),)
        case "spread":
            value, like = operands[0], operands[1]
            assert value is not None and like is not None
            return (Context(max(value.stage + 1, like.stage), like.stride, like.offset),)
    work = work_context(node, operands, begin)
    y = work.resweep() if op.get("reverse") else work
    return (y, work.after)[: len(node.types)]


def _input_steps(node: Node, kind: StreamType) -> Context:
    if kind.rate.numerator != 1:
        raise UserError(
            f"the input '{node.op['name']}' comes at {kind.rate} of the model's rate",
            where=f"node '{node.name}'",
            hint="this target takes inputs at every step, or at every n-th",
        )
    return Context(1, kind.rate.denominator, kind.rate.denominator - 1)
