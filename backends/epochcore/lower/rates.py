"""How streams came to lower rates, and which streams count their steps alike.

A stream of the n-th steps of another has one for every `stride` steps of the model's input, the first at some offset:
after t steps, ceil((t - offset) / stride). Where streams of one stride meet in a node, as even and odd steps do in
`x[:, ::2] * x[:, 1::2]`, the model runs at those lengths alone that give them as many steps. They then share the
register of the one that is complete last, and no chunk may end between the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Node, Op, StreamType, Value

# How a stream came to a lower rate: (stride, offset, whole windows), the first step down first.
Rates = tuple[tuple[int, int, bool], ...]


def count_steps(graph: Graph, order: Sequence[str]) -> dict[Value, Rates]:
    """The rates of all streams of a graph in topological order, alike where the streams meet.

    Raises UserError where streams meet whose steps are in different windows.
    """
    alike: dict[Rates, Rates] = {}
    while True:
        found = _rates(graph, order, alike)
        met = next(_meetings(graph, order, found), None)
        if met is None:
            return found
        least, most = sorted(met, key=lambda rates: (_offset(rates), rates))
        alike = {rates: most if kept == least else kept for rates, kept in alike.items()} | {least: most}


def downsampled(rates: Rates, op: Op) -> Rates:
    """The rates of every n-th step, or of windows of n steps, of a stream, by themselves."""
    stride, offset = op["stride"], op["offset"]
    # A window's last step is there when the whole window is: both are one rate, so that they can be added.
    windows = op["kind"] != "take" or offset == stride - 1
    return (*rates, (stride, 0 if windows else offset, windows))


def every(rates: Rates) -> int:
    """Steps of the model's input that become one."""
    return prod(stride for stride, *_ in rates)


def _offset(rates: Rates) -> int:
    """The step of the model's input with which the first step at these rates is complete."""
    found = 0
    for stride, offset, windows in reversed(rates):
        found = found * stride + (stride - 1 if windows else offset)
    return found


def _meetings(graph: Graph, order: Iterable[str], rates: dict[Value, Rates]) -> Iterator[tuple[Rates, Rates]]:
    """Different rates of streams that a node reads step by step."""
    for name in order:
        node = graph.node(name)
        if node.op.name in ("downsample", "spread"):
            continue
        first, *others = dict.fromkeys(rates[v] for v in graph.operands(name) if v in rates) or ((),)
        for other in others:
            if every(first) == every(other) and _offset(first) // every(first) != _offset(other) // every(other):
                raise UserError(
                    f"this node reads streams whose steps lie in different windows of {every(first)}",
                    where=f"layer '{name}'",
                    why=f"one begins with step {_offset(first)}, another with step {_offset(other)}; a "
                    f"chunk that ends between them has more of the first",
                    hint="delay the first in the model, or begin both in the same window",
                )
            yield first, other


def _rates(graph: Graph, order: Iterable[str], alike: dict[Rates, Rates]) -> dict[Value, Rates]:
    rates: dict[Value, Rates] = {}
    for name in order:
        for result in graph.results(name):
            if isinstance(graph.type(result), StreamType):
                found = _made(graph, graph.node(name), rates)
                rates[result] = alike.get(found, found)
    return rates


def _made(graph: Graph, node: Node, rates: dict[Value, Rates]) -> Rates:
    if node.op.name == "input":
        return ()
    if node.op.name == "spread":
        return rates[graph.operand(node.name, 1)]
    before = next(rates[value] for value in graph.operands(node.name) if value in rates)
    return downsampled(before, node.op) if node.op.name == "downsample" else before
