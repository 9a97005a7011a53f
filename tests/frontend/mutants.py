"""Models that are another model by one to three changes: most still run, and then mean something else."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.frontend.mutate import graphs

UNARY = ["Relu", "Tanh", "Sigmoid", "Exp", "Neg", "Abs", "Sqrt", "Floor", "Round", "Sign", "Softplus", "Sin"]
UNARY += ["Reciprocal", "Identity", "HardSwish", "Elu"]
BINARY = ["Add", "Sub", "Mul", "Div", "Max", "Min"]
ALIKE = [
    UNARY,
    BINARY,
    ["Greater", "Less", "GreaterOrEqual", "LessOrEqual"],
    ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2"],
]
ADDED: dict[str, dict[str, Any]] = {
    "CumSum": {"reverse": 1, "exclusive": 1},
    "Gemm": {"alpha": 0.5, "beta": 0.5},
    "Scan": {"scan_input_directions": [1], "scan_output_directions": [1]},
    "DFT": {"inverse": 1},
}


def _swap_kind(graph: onnx.GraphProto, rng: random.Random) -> None:
    found = [(node, kinds) for node in graph.node for kinds in ALIKE if node.op_type in kinds]
    if found:
        node, kinds = rng.choice(found)
        node.op_type = rng.choice(kinds)


def _swap_operands(graph: onnx.GraphProto, rng: random.Random) -> None:
    found = [node for node in graph.node if len(node.input) > 1]
    if found:
        node = rng.choice(found)
        i, j = rng.sample(range(len(node.input)), 2)
        node.input[i], node.input[j] = node.input[j], node.input[i]


def _place(graph: onnx.GraphProto, rng: random.Random) -> tuple[int, int, list[str]]:
    """A node, one of its operands, and what is known in front of it."""
    k = rng.randrange(len(graph.node))
    known = [i.name for i in graph.input] + [t.name for t in graph.initializer]
    known += [name for node in list(graph.node)[:k] for name in node.output if name]
    return k, rng.randrange(max(len(graph.node[k].input), 1)), known


def _rewire(graph: onnx.GraphProto, rng: random.Random) -> None:
    k, i, known = _place(graph, rng)
    if graph.node[k].input and known:
        graph.node[k].input[i] = rng.choice(known[-12:])


def _insert(graph: onnx.GraphProto, rng: random.Random) -> None:
    """A node in front of an operand: of it alone, or of it and another value."""
    k, i, known = _place(graph, rng)
    node = graph.node[k]
    if not node.input or not node.input[i]:
        return
    two = known and rng.random() < 0.5
    operands = [node.input[i], rng.choice(known)] if two else [node.input[i]]
    new = helper.make_node(rng.choice(BINARY if two else UNARY), operands, [f"inserted{rng.randrange(10**9)}"])
    node.input[i] = new.output[0]
    nodes = [*list(graph.node)[:k], new, *list(graph.node)[k:]]
    del graph.node[:]
    graph.node.extend(nodes)


def _bypass(graph: onnx.GraphProto, rng: random.Random) -> None:
    k, i, _ = _place(graph, rng)
    node = graph.node[k]
    if node.input and node.input[i] and node.output:
        node.CopyFrom(helper.make_node("Identity", [node.input[i]], [node.output[0]]))


def _weight(graph: onnx.GraphProto, rng: random.Random) -> None:
    if not graph.initializer:
        return
    weight = rng.choice(graph.initializer)
    array = numpy_helper.to_array(weight).copy()
    flat = array.reshape(-1)
    if not flat.size:
        return
    at = rng.randrange(flat.size)
    if array.dtype.kind == "f":
        match rng.randrange(4):
            case 0:
                flat[at] = rng.choice([0, -flat[at], 2 * flat[at], flat[at] + 1])
            case 1:
                array *= rng.choice([-1, 0.5, 2])
            case 2:
                rng.shuffle(order := flat.tolist())
                flat[:] = order
            case _ if array.ndim == 2 and array.shape[0] == array.shape[1]:
                array = array.T.copy()
    elif array.dtype.kind == "i":
        flat[at] += rng.choice([1, -1, 2])
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))


def _attribute(graph: onnx.GraphProto, rng: random.Random) -> None:
    numbers = (AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.INTS)
    found = [a for node in graph.node for a in node.attribute if a.type in numbers]
    if not found:
        return
    attribute = rng.choice(found)
    if attribute.type == AttributeProto.INT:
        attribute.i = rng.choice([attribute.i + 1, attribute.i - 1, -1, 0, 1])
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f *= rng.choice([0.5, 2.0, 100.0])
    else:
        rng.shuffle(order := list(attribute.ints))
        del attribute.ints[:]
        attribute.ints.extend(order)


def _add_attribute(graph: onnx.GraphProto, rng: random.Random) -> None:
    found = [node for node in graph.node if node.op_type in ADDED]
    if found:
        node = rng.choice(found)
        name = rng.choice(sorted(ADDED[node.op_type]))
        if all(a.name != name for a in node.attribute):
            node.attribute.append(helper.make_attribute(name, ADDED[node.op_type][name]))


def _other_output(graph: onnx.GraphProto, rng: random.Random) -> None:
    made = [name for node in graph.node for name in node.output if name]
    if made and graph.output:
        graph.output[rng.randrange(len(graph.output))].name = rng.choice(made)


CHANGES: list[Callable[[onnx.GraphProto, random.Random], None]] = [
    *[_swap_kind, _swap_kind, _swap_operands, _rewire, _rewire, _insert, _insert, _insert, _bypass],
    *[_weight, _weight, _weight, _attribute, _attribute, _add_attribute, _add_attribute, _other_output],
]


def mutant(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """A copy with one to three changes; what it declares of its values' shapes is left out."""
    rng, copy = random.Random(seed), onnx.ModelProto()
    copy.CopyFrom(model)
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3])):
        rng.choice(CHANGES)(rng.choice([graph for graph in graphs(copy) if graph.node]), rng)
    for depth, graph in enumerate(graphs(copy)):
        del graph.value_info[:]
        for value in [*graph.output, *(graph.input if depth else [])]:
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:  # a loop's counter keeps its own
                value.type.tensor_type.ClearField("shape")
    return copy
