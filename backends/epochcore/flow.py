"""When each node runs: straight code and loops over time, taking turns.

Stage 0 is straight code, 1 the first loop over time, 2 straight code after it, 3 the second loop, and so on. Loops
1, 5, 9 ... walk the chunks from the beginning of the sequence, loops 3, 7, 11 ... from its end. A value per
sequence is made in straight code, a stream in a loop; a stream that another loop needs goes through DRAM.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssmc.ir import ConstantType, Graph, Node, SequenceType, StreamType, Value

RECURRENT = ("tile.state", "tile.ssm", "tile.recurrence", "spike", "rounded", "fir")
FORWARD = ("delay", "downsample")
# How a stream came to a lower rate: (stride, offset, whole windows), the first step down first.
Rates = tuple[tuple[int, int, bool], ...]


@dataclass(frozen=True)
class Flow:
    """`stage` of every node that is not constant; `rates` of every stream value."""

    order: tuple[str, ...]
    stage: dict[str, int]
    rates: dict[Value, Rates]


def is_loop(stage: int) -> bool:
    return stage % 2 == 1


def is_backward(stage: int) -> bool:
    return stage % 4 == 3


def plan_flow(graph: Graph) -> Flow:
    """Stages and rates of a tile graph, in topological order."""
    stage: dict[str, int] = {}
    rates: dict[Value, Rates] = {}
    order = tuple(graph.order())
    for name in order:
        node = graph.node(name)
        operands = [value for value in graph.operands(name) if value is not None]
        for result in graph.results(name):
            if isinstance(graph.type(result), StreamType):
                rates[result] = _rates(graph, node, operands, rates)
        if not all(isinstance(kind, ConstantType) for kind in node.types):
            stage[name] = _stage(graph, node, operands, stage)
    return Flow(order, stage, rates)


def _stage(graph: Graph, node: Node, operands: list[Value], stage: dict[str, int]) -> int:
    """The first stage in which `node` can run.

    A reversed stream has the stage of its operand: it is that stream, read from DRAM in the other direction.
    """
    streams, others = [-1], [-1]
    for value in operands:
        kind = graph.type(value)
        if isinstance(kind, StreamType):
            streams.append(_ready(graph, value, stage))
        elif isinstance(kind, SequenceType):
            others.append(_sequence_stage(graph, value, stage))
    if isinstance(node.types[0], SequenceType):
        # straight code after everything that it reads; pooling works inside the loop of its operand
        if node.op.name == "pool":
            return _loop(max(streams), max(others), "any")
        return max(0, *others, *(s + 1 for s in streams))
    if node.op.name in ("input", "reverse"):
        return max(streams)
    way = "forward" if node.op.name in FORWARD else "any"
    if node.op.name in RECURRENT:
        way = "backward" if node.op["reverse"] else "forward"
    return _loop(max(streams), max(others), way)


def _ready(graph: Graph, value: Value, stage: dict[str, int]) -> int:
    """The loop in which a stream operand can be read: that of its node, a later one where it is reversed."""
    made = stage[value.node]
    return made + 2 if graph.op(value.node).name == "reverse" and made > 0 else made


def _sequence_stage(graph: Graph, value: Value, stage: dict[str, int]) -> int:
    """The straight stage in which a sequence value is there: after the loop, for what a loop leaves behind."""
    made = stage[value.node]
    return made + 1 if is_loop(made) else made


def _loop(stream: int, sequence: int, way: str) -> int:
    found = max(1, stream, sequence + 1)
    if way != "any" and is_backward(found) != (way == "backward"):
        found += 2
    return found


def _rates(graph: Graph, node: Node, operands: list[Value], rates: dict[Value, Rates]) -> Rates:
    if node.op.name == "input":
        return ()
    if node.op.name == "spread":
        return rates[operands[1]]
    before = next(rates[value] for value in operands if value in rates)
    if node.op.name != "downsample":
        return before
    stride, offset = node.op["stride"], node.op["offset"]
    # A window's last step is there when the whole window is: both are one rate, so that they can be added.
    windows = node.op["kind"] != "take" or offset == stride - 1
    return (*before, (stride, 0 if windows else offset, windows))
