"""When a value exists: before, in or after a sweep over the steps, and at which of the steps.

A program is a row of stages. Even ones run once for a sequence, odd ones are loops over its steps. A model
that reads its sequence forwards needs three: before (0), the steps (1), after (2). A reversed stream is
kept whole and read backwards in another sweep, two stages later; so is a stream that needs what a pooling gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        return self.stage % 2 == 1

    @property
    def after(self) -> Context:
        """The stage after the sweep (or this one, outside of a sweep)."""
        return Context(self.stage + self.stage % 2)

    def resweep(self) -> Context:
        """The same steps in the next sweep."""
        return replace(self, stage=self.stage + 2)


def place_in_time(graph: Graph) -> dict[Value, Context]:
    """The context of every value of a tile graph. Raises UserError for a rate that is no 1/n."""
    found: dict[Value, Context] = {}
    loads: Mapping[str, int] = graph.attributes.get("loads", {})
    for node in graph.nodes():
        operands = [None if value is None else found[value] for value in graph.operands(node.name)]
        for index, context in enumerate(_results(node, operands, loads.get(node.name, 0))):
            found[Value(node.name, index)] = context
    return found


def work_context(node: Node, operands: Sequence[Context | None], load: int = 0) -> Context:
    """Where a node does its work: as its latest operand, streams in a sweep; when its load is there."""
    present = [context for context in operands if context is not None]
    stage = max((context.stage for context in present), default=0)
    stage = max(stage, 2 * load)
    streams = [context for context in present if context.streams]
    if not streams:
        return Context(stage)
    if stage % 2 == 0:
        stage += 1
    if node.op.get("reverse"):
        stage += 2
    return Context(stage, streams[0].stride, max(context.offset for context in streams))


def _results(node: Node, operands: Sequence[Context | None], load: int) -> tuple[Context, ...]:
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
    work = work_context(node, operands, load)
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
