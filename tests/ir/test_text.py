"""The text form: what is printed is read back, to an equal graph, and mistakes are shown at their place."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from onnx import helper

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, StreamType, Tensor, TensorType, Value, interpret
from ssmc.ir.parse import parse
from ssmc.ir.table import table
from ssmc.ir.text import constants, print_graph
from ssmc.statespace import StateSpace
from tests.ir.cases import SSM, TILE, graphs, inputs


def facts(graph: Graph) -> Any:
    """Everything a graph says, as plain comparable values, without going through its text."""

    def plain(value: Any) -> Any:
        if isinstance(value, StateSpace):
            return {name: plain(item) for name, item in vars(value).items()}
        if isinstance(value, np.ndarray):
            return (str(value.dtype), value.shape, value.tobytes())
        if isinstance(value, Tensor):
            return (plain(value.array), value.quantization)
        if isinstance(value, Graph):
            return facts(value)
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return (type(value), value)

    nodes = [graph.node(name) for name in graph.order()]
    return (
        graph.name,
        graph.attributes,
        [(n.name, n.op.name, plain(dict(n.op.attrs)), n.types, n.provenance, n.place) for n in nodes],
        [graph.operands(n.name) for n in nodes],
    )


def test_cases_cover_the_table() -> None:
    made = {*SSM, *TILE, "input", "output", "real", "imag", "concat", "transpose", "broadcast", "spread"}
    assert made == set(table())


@settings(max_examples=60, deadline=None)
@given(graph=graphs())
def test_printing_and_parsing_are_inverse(graph: Graph) -> None:
    text = print_graph(graph)
    back = parse(text, constants(graph))
    assert facts(back) == facts(graph)
    assert print_graph(back) == text
    assert len(text.splitlines()) == len(graph) + 2  # one line a node
    given = inputs(graph)
    np.testing.assert_array_equal(interpret(back, given)["y"], interpret(graph, given)["y"])


def test_onnx_level_with_regions() -> None:
    body = Graph("body")
    s = body.add("input", [], {"name": "s", "type": TensorType(("batch size", 2), "double")})
    double = TensorType((None, 2), "double")
    y = body.add(
        "onnx.Add", [s, s], {"node": helper.make_node("Add", ["a", "b"], ["c"]), "version": 14}, types=(double,)
    )
    body.add("output", [y], {"name": "c"})
    graph = Graph("main", {"form": "step", "states": {"s": "s_out"}})
    x = graph.add("input", [], {"name": "x", "type": TensorType(None, "float")})
    node = helper.make_node("Scan", ["x"], ["y", "z"], num_scan_inputs=1, body=helper.make_graph([], "b" * 200, [], []))
    attrs = {"node": node, "version": 9, "regions": {"body": body}}
    types = (TensorType((), "double"), StreamType((3,), "complex", Fraction(1, 8)))
    scan = graph.add("onnx.Scan", [x], attrs, types=types, provenance=["Scan"])
    graph.add("output", [Value(scan.node, 1)], {"name": "out"})
    text = print_graph(graph)
    back = parse(text, constants(graph))
    assert facts(back) == facts(graph)
    assert back.op("onnx_Scan" if "onnx_Scan" in back else scan.node)["node"] == node
    assert "stream<3 complex @1/8>" in text and 'tensor<"batch size",2;double>' in text


TEXT = """graph @model {form = "sequence"} {
  %u = input() {name = "u", type = stream<2>, axes = "btf"} : stream<2>
  %l = linear(%u) {weight = tensor<2x2 f64 [1.0, 0.0, 0.0, 2.0]>} : stream<2> loc("MatMul_3")
  %y = output(%l) {name = "y", axes = "btf"} : stream<2>
}"""


def test_canonical_text_is_a_fixed_point() -> None:
    graph = parse(TEXT)
    assert print_graph(graph) == TEXT
    assert interpret(graph, {"u": np.array([[[1.0, 1.0]]])})["y"].tolist() == [[[1.0, 2.0]]]


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "says"),
    [
        ("linear(", "lineer(", 3, 8, ["no op is called 'lineer'", "did you mean 'linear'?"]),
        ("(%l)", "(%ll)", 4, 15, ["%ll is not defined", "did you mean '%l'?"]),
        ("(%l)", "(%l:1)", 4, 15, ["%l:1 is not defined"]),
        ("= linear", "linear", 3, 6, ["unexpected 'linear'", "expected ',' or '='"]),
        ('"btf"} : stream<2>', '"btf"} : stream<3>', 2, 8, ["the type is stream<3>, but the op gives stream<2>"]),
        ("[1.0, 0.0, 0.0, 2.0]", "[1.0, 0.0, 2.0]", 3, 40, ["3 numbers do not make a tensor of shape (2, 2)"]),
        ("[1.0, 0.0, 0.0, 2.0]", "#0123456789abcdef", 3, 44, ["nothing is known under #0123456789abcdef"]),
        ("weight = ", "wait = ", 3, 8, ["op 'linear' has no attribute 'wait'", "weight"]),
        ("2x2 f64", "2x2 f16", 3, 40, ["'f16' is not an element type"]),
        ("%y = output", "%l = output", 4, 3, ["%l is defined twice"]),
        ("(%l)", "(%l, %u)", 4, 8, ["takes x; given 2 operands"]),
        ("linear(%u)", "linear(_)", 3, 8, ["needs its operand 'x'"]),
        (" : stream<2>\n}", " : stream<2>\n", 4, 57, ["unexpected end"]),
        ('loc("MatMul_3")', "loc(MatMul_3)", 3, 83, ["expected a quoted string"]),
    ],
)  # fmt: skip
def test_mistakes_are_shown_at_their_place(old: str, new: str, line: int, column: int, says: list[str]) -> None:
    assert old in TEXT
    broken = TEXT.replace(old, new, 1)
    with pytest.raises(UserError) as caught:
        parse(broken, file="model.ir")
    message = str(caught.value)
    assert message.startswith(f"model.ir:{line}:{column}: ")
    for part in says:
        assert part in message
    if line <= len(broken.splitlines()):
        shown, caret = message.splitlines()[1:3]
        assert shown[4:] == broken.splitlines()[line - 1]
        assert caret.index("^") - 4 == column - 1


def test_hash_of_a_tensor_of_another_shape_is_refused() -> None:
    other = Tensor(np.arange(9.0))
    broken = TEXT.replace("[1.0, 0.0, 0.0, 2.0]", f"#{other.digest}")
    with pytest.raises(UserError, match="not a tensor of shape"):
        parse(broken, {other.digest: other})
