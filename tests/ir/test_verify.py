"""The verifier finds every kind of problem, all at once, and is silent on good graphs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Op, Place, StreamType, Tensor, Value
from ssmc.ir.verify import problems, verify
from tests.ir.cases import graphs


@settings(max_examples=40, deadline=None)
@given(graph=graphs())
def test_well_formed_graphs_pass(graph: Graph) -> None:
    assert problems(graph) == []


def chain() -> Graph:
    graph = Graph("chain")
    u = graph.add("input", [], {"name": "u", "type": StreamType((4,)), "axes": "btf"})
    a = graph.add("unary", [u], {"fn": "tanh"}, name="a", provenance=["Tanh_1"])
    b = graph.add("binary", [a, a], {"fn": "add"}, name="b", provenance=["Add_2"])
    graph.add("output", [b], {"name": "y", "axes": "btf"}, name="y")
    return graph


def told(graph: Graph) -> str:
    return "\n".join(map(str, problems(graph)))


def test_all_problems_in_one_message() -> None:
    graph = chain()
    graph.net.nodes["a"]["data"] = replace(graph.node("a"), op=Op("unary", {"fn": "tahn"}))
    graph.net.nodes["b"]["data"] = replace(graph.node("b"), types=(StreamType((5,)),))
    with pytest.raises(UserError) as caught:
        verify(graph, where="after pass 'fold'")
    message = str(caught.value)
    assert message.startswith("after pass 'fold': ")
    assert "no function 'tahn'" in message and "node 'a' (from Tanh_1)" in message
    assert "has the type stream<5>, but op 'binary' gives stream<4>" in message and "(from Add_2)" in message


def test_cycle() -> None:
    graph = chain()
    graph.connect("a", 0, Value("b"))
    assert "a cycle: a -> b -> a" in told(graph) or "a cycle: b -> a -> b" in told(graph)


def test_unknown_op_and_attribute() -> None:
    graph = chain()
    graph.net.nodes["a"]["data"] = replace(graph.node("a"), op=Op("frobnicate"))
    assert "no op is called 'frobnicate'" in told(graph)
    graph.net.nodes["a"]["data"] = replace(graph.node("a"), op=Op("unary", {"fn": "tanh", "speed": 3}))
    assert "op 'unary' has no attribute 'speed'" in told(graph)


def test_missing_and_dangling_operands() -> None:
    graph = chain()
    graph.connect("b", 1, None)
    assert "op 'binary' takes a, b; given 1 operands" in told(graph)
    graph = chain()
    graph.net.add_edge("a", "b", key=1, index=3)
    assert "operand 1 is result 3 of 'a', which has 1" in told(graph)
    graph = chain()
    graph.net.add_edge("ghost", "b", key=1, index=0)
    assert "comes from 'ghost', which does not exist" in told(graph)
    assert "operand 1 is given 2 times" in told(graph)
    assert "node 'ghost': an edge names this node, but it was never added" in told(graph)


def test_outputs() -> None:
    graph = chain()
    graph.add("output", [Value("a")], {"name": "y", "axes": "btf"})
    assert "2 nodes are the output 'y'" in told(graph)
    empty = Graph()
    empty.add("input", [], {"name": "u", "type": StreamType((4,))})
    assert "no output" in told(empty)


def test_levels_do_not_mix() -> None:
    graph = chain()
    graph.add("tile.matmul", [Value("a")], {"weight": Tensor(np.eye(4)), "pieces": ()})
    graph.add("linear", [Value("a")], {"weight": Tensor(np.eye(4))}, name="dense")
    assert "node 'dense': op 'linear' does not belong to the tile level" in told(graph)
    graph.add("constant", [], {"value": Tensor([1j])}, name="z")
    assert "node 'z': a complex value at the tile level" in told(graph)


def test_places_follow_the_data() -> None:
    graph = chain()
    graph.set_place("a", Place(0, 2, "steps"))
    graph.set_place("b", Place(0, 1, "steps"))
    assert "before its operand 'a'" in told(graph)
    graph.set_place("b", Place(0, 3, "before"))
    assert "before its operand 'a'" in told(graph)
    graph.set_place("b", Place(0, 3, "sometime"))
    assert "phase 'sometime'" in told(graph)
    graph.set_place("b", Place(1, 0, "steps"))
    assert told(graph) == ""


def test_problems_in_a_subgraph_name_it() -> None:
    from onnx import helper

    from ssmc.ir import TensorType

    graph = chain()
    body = chain()
    body.connect("b", 1, None)
    node = helper.make_node("Scan", ["x"], ["y"])
    attrs = {"node": node, "version": 9, "regions": {"body": body}}
    graph.add("onnx.Scan", [Value("a")], attrs, types=(TensorType(None, "double"),), name="scan")
    assert "node 'scan.body': node 'b' (from Add_2): op 'binary'" in told(graph)
