"""Types tell the truth about values, and arrays pass between the user's axes and the graph's."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, StreamType, Tensor, Value, interpret
from ssmc.ir.layout import from_graph, to_graph
from ssmc.ir.types import ConstantType, SequenceType
from tests.ir.cases import graphs, inputs


@settings(max_examples=60, deadline=None)
@given(graph=graphs(), batch=st.integers(1, 3), steps=st.integers(2, 7))
def test_values_have_the_shape_and_element_of_their_type(graph: Graph, batch: int, steps: int) -> None:
    values = interpret(graph, inputs(graph, batch, steps), keep=True)
    for node in graph.nodes():
        for value in graph.results(node.name):
            kind, array = graph.type(value), values[str(value)]
            if isinstance(kind, StreamType):
                outer: tuple[int, ...] = (batch, int(steps * kind.rate))
                assert abs(array.shape[1] - steps * kind.rate) < 1
                outer = array.shape[:2]
            else:
                outer = (batch,) if isinstance(kind, SequenceType) else ()
            assert array.shape == (*outer, *kind.shape), (node.name, kind)
            assert np.iscomplexobj(array) == (kind.element == "complex"), (node.name, kind)


@settings(max_examples=30, deadline=None)
@given(graph=graphs(), data=st.data())
def test_values_that_are_named_are_kept(graph: Graph, data: st.DataObject) -> None:
    given = inputs(graph)
    every = interpret(graph, given, keep=True)
    names = data.draw(st.sets(st.sampled_from(sorted(every))))
    kept = interpret(graph, given, keep=names)
    assert kept.keys() == interpret(graph, given).keys() | names
    for name, array in kept.items():
        np.testing.assert_array_equal(array, every[name])


@settings(max_examples=30, deadline=None)
@given(graph=graphs())
def test_sequences_of_a_batch_do_not_touch(graph: Graph) -> None:
    together = inputs(graph, batch=3)
    whole = interpret(graph, together)["y"]
    for i in range(3):
        alone = interpret(graph, {name: array[i : i + 1] for name, array in together.items()})["y"]
        np.testing.assert_allclose(alone[0], whole[i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("axes", ["".join(p) for p in permutations("btf")] + ["t1f", "tf", "1t1bf", "bt"])
def test_layout_round_trip(axes: str) -> None:
    sizes = {"b": 2, "t": 5, "f": 3, "1": 1}
    array = np.arange(np.prod([sizes[a] for a in axes])).reshape([sizes[a] for a in axes])
    kind = StreamType((3,) if "f" in axes else ())
    inner = to_graph(array, axes, kind)
    assert inner.shape == (2 if "b" in axes else 1, 5, *kind.shape)
    np.testing.assert_array_equal(from_graph(inner, axes), array)


def test_constants_are_read_only_and_compare_by_content() -> None:
    a, b = Tensor(np.ones(3, np.float32)), Tensor([1.0, 1.0, 1.0])
    assert a == b and hash(a) == hash(b) and a != Tensor([1.0, 1.0, 2.0]) and a != Tensor([[1.0, 1.0, 1.0]])
    with pytest.raises(ValueError, match="read-only"):
        a.array[0] = 2


def test_missing_input_and_failing_op_are_named() -> None:
    graph = Graph()
    u = graph.add("input", [], {"name": "u", "type": StreamType((2,)), "axes": "btf"})
    index = graph.add("input", [], {"name": "i", "type": StreamType((), "index"), "axes": "bt"})
    row = graph.add("embed", [index], {"table": Tensor(np.eye(2))}, name="rows", provenance=["Gather_5"])
    graph.add("output", [graph.add("binary", [u, row], {"fn": "add"})], {"name": "y"})
    with pytest.raises(UserError, match="the input 'i' is missing"):
        interpret(graph, {"u": np.zeros((1, 2, 2))})
    with pytest.raises(UserError, match=r"node 'rows' \(from Gather_5\)"):
        interpret(graph, {"u": np.zeros((1, 2, 2)), "i": np.full((1, 2), 7)})


@pytest.mark.filterwarnings("error")
def test_the_mean_of_no_steps_is_no_number() -> None:
    graph = Graph()
    u = graph.add("input", [], {"name": "u", "type": StreamType((2,)), "axes": "btf"})
    graph.add("output", [graph.add("pool", [u], {"kind": "mean"})], {"name": "y"})
    graph.add("output", [graph.add("pool", [u, u], {"kind": "weighted_mean"})], {"name": "z"})
    found = interpret(graph, {"u": np.zeros((1, 0, 2))})
    assert np.isnan(found["y"]).all() and np.isnan(found["z"]).all()


def test_graph_editing() -> None:
    graph = Graph()
    u = graph.add("input", [], {"name": "u", "type": StreamType((2,)), "axes": "btf"})
    a = graph.add("unary", [u], {"fn": "neg"}, provenance=["Neg"])
    b = graph.add("unary", [a], {"fn": "exp"})
    graph.add("output", [b], {"name": "y"})
    copy = graph.copy()
    graph.replace_uses(a, u)
    assert graph.users(a) == [] and graph.prune() == [a.node] and b.node in graph
    assert a.node in copy and copy.operands(b.node) == [a]
    with pytest.raises(ValueError, match="still used"):
        copy.remove(a.node)
    copy.set_op(b.node, copy.op(b.node).with_attrs(fn="log"))
    assert copy.op(b.node)["fn"] == "log" and graph.op(b.node)["fn"] == "exp"
    copy.connect(a.node, 0, Value(b.node))
    with pytest.raises(ValueError, match="cycle"):
        copy.order()
    assert isinstance(graph.type(graph.add("constant", [], {"value": Tensor([1, 2])})), ConstantType)


def test_rounded_states_one_number_at_a_time() -> None:
    """Python's own `round` is half to even, too."""
    a, scale, x = 0.75, 0.25, 0.0
    rows = np.array([[scale, scale], [0.0, 0.0], [2.0, 2.0], [-6.0, -6.0], [9.0, 9.0]])
    v = np.array([1.0, -0.5, 0.375, 4.0, -0.125, -4.0, 0.625])
    graph = Graph()
    u = graph.add("input", [], {"name": "v", "type": StreamType((2,)), "axes": "btf", "role": "data"})
    attrs = {"decay": Tensor(np.array([a, -a])), "sum_grid": Tensor(rows), "product_grid": Tensor(rows)}
    graph.add("output", [graph.add("rounded", [u], attrs)], {"name": "y"})
    found = interpret(graph, {"v": np.stack([v, -v], -1)[None]})["y"][0]

    def on_grid(value: float) -> float:
        return scale * (min(max(round(value / scale), -6), 9) - 2.0)

    for column, (decay, sign) in enumerate(((a, 1.0), (-a, -1.0))):
        x = 0.0
        for k, drive in enumerate(v):
            x = on_grid(on_grid(decay * x) + sign * drive)
            assert found[k, column] == x
