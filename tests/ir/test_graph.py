"""Changing a graph: what is pruned after any sequence of changes is what no output needs."""

from __future__ import annotations

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from ssmc.ir import Graph, StreamType, Value


def _unneeded(graph: Graph) -> set[str]:
    needed = {node.name for node in graph.outputs()}
    for name in list(needed):
        needed |= nx.ancestors(graph.net, name)
    return {node.name for node in graph.nodes() if node.name not in needed and node.op.name != "input"}


@given(st.data())
def test_prune(data: st.DataObject) -> None:
    graph = Graph()
    values = [graph.add("input", attrs={"name": "x", "type": StreamType((2,)), "role": "data"})]
    values += [graph.add("binary", [data.draw(st.sampled_from(values)), values[0]], {"fn": "add"}) for _ in range(5)]
    graph.add("output", [values[-1]], {"name": "y"})
    if data.draw(st.booleans()):
        graph.prune()
    for _ in range(data.draw(st.integers(0, 6))):
        alive = [v for v in values if v.node in graph]
        match data.draw(st.sampled_from(["add", "connect", "replace", "copy", "remove"])):
            case "add":
                values.append(graph.add("unary", [data.draw(st.sampled_from(alive))], {"fn": "tanh"}))
            case "connect":
                user = data.draw(st.sampled_from([node.name for node in graph.nodes("binary", "output")]))
                before = nx.descendants(graph.net, user) | {user}
                free = [v for v in alive if v.node not in before]
                graph.connect(user, 0, data.draw(st.sampled_from(free)))
            case "replace":
                graph.replace_uses(data.draw(st.sampled_from(alive)), values[0])
            case "copy":
                graph = graph.copy()
            case "remove":
                unused = [v for v in alive if not graph.net.out_degree(v.node) and v != values[0]]
                for value in unused[:1]:
                    graph.remove(value.node)
    expected = _unneeded(graph)
    left = {node.name for node in graph.nodes()} - expected
    assert set(graph.prune()) == expected
    assert {node.name for node in graph.nodes()} == left
    assert graph.prune() == [] and Value(values[0].node).node in graph
