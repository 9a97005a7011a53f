"""Graphs that mean no good: a message, in bounded time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ssmc.frontend import load_model
from tests.frontend import disguise
from tests.frontend.checks import refused
from tests.frontend.net import Net, save, stepwise
from tests.frontend.test_disguises import random_system

pytestmark = pytest.mark.invalid_files
SYSTEM = random_system(1, 1, 3, 2, 2, True)


@pytest.mark.parametrize("branches,levels,said", [(1, 18, "nested too deeply"), (2, 13, "too many subgraphs")])
def test_nested_subgraphs_end_in_a_message(tmp_path: Path, branches: int, levels: int, said: str) -> None:
    leaf = Net()
    inner = leaf.subgraph([(leaf.op("Identity", leaf.const(np.ones(3))), [3])])
    plain = inner
    for _ in range(levels):
        net = Net()
        other = inner if branches == 2 else plain
        inner = net.subgraph([(net.op("If", net.const(np.asarray(True)), then_branch=inner, else_branch=other), [3])])
    net = Net()
    x = net.input(["b", "t", 3])
    y = net.op("Add", x, net.op("If", net.const(np.asarray(True)), then_branch=inner, else_branch=plain))
    refused(save(stepwise(net, y, 3), tmp_path), said)


def hostile(build: Callable[[Net, str], str], dims: Sequence[int | str] = ("b", "t", 3)) -> onnx.ModelProto:
    net = Net()
    return net.model([(build(net, net.input(dims)), ["b", "t", 3])])


def with_functions(*bodies: tuple[str, list[str]]) -> onnx.ModelProto:
    """A model that calls the first of these functions, each of which calls others one after the other."""
    model = hostile(lambda net, x: net.op(bodies[0][0], x, domain="local"))
    opsets = [helper.make_opsetid("local", 1), helper.make_opsetid("", 20)]
    for name, called in bodies:
        values = ["x", *(f"v{k}" for k in range(len(called) - 1)), "y"]
        nodes = [helper.make_node(c, [values[k]], [values[k + 1]], domain="local") for k, c in enumerate(called)]
        nodes = nodes or [helper.make_node("Neg", ["x"], ["y"])]
        model.functions.append(helper.make_function("local", name, ["x"], ["y"], nodes, opsets))
    model.opset_import.append(opsets[0])
    return model


def called_with(arguments: int, results: int) -> onnx.ModelProto:
    """A call of a function of one argument and one result with others."""
    model = with_functions(("F", []))
    call = next(n for n in model.graph.node if n.op_type == "F")
    call.input.extend([call.input[0]] * (arguments - 1))
    call.output.extend(f"more{k}" for k in range(results - 1))
    return model


def twice(kind: str) -> onnx.ModelProto:
    """A model that gives one name to two things of a kind."""
    model = hostile(lambda net, x: net.op("CumSum", net.op("Mul", x, net.const(np.ones(3))), net.const(np.int64(1))))
    graph = model.graph
    same = {"input": graph.input, "weight": graph.initializer, "result of a node": graph.node}
    if kind in same:
        same[kind].append(same[kind][0])
    else:
        graph.node[0].output[0] = graph.node[1].input[0] = graph.initializer[0].name
    return model


def of_opset(version: int) -> onnx.ModelProto:
    model = hostile(lambda net, x: net.op("CumSum", x, net.const(np.int64(1))))
    model.opset_import[0].version = version
    return model


def scan_without(attribute: str) -> onnx.ModelProto:
    model = disguise.as_scan(SYSTEM)
    node = next(n for n in model.graph.node if n.op_type == "Scan")
    kept = [a for a in node.attribute if a.name != attribute]
    del node.attribute[:]
    node.attribute.extend(kept)
    return model


def long_loop(net: Net, x: str, trips: int | None, reads: bool = False) -> str:
    body = Net()
    step, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
    state = body.input(None)
    new = body.op("Add", state, body.op("Gather", x, step, axis=1) if reads else body.const(np.ones(3)))
    on = body.op("Identity", going)
    graph = body.subgraph([(on, None), (new, None)], {on: TensorProto.BOOL})
    count = "" if trips is None else net.const(np.int64(trips))
    found = net.op("Loop", count, net.const(np.asarray(True)), net.const(np.zeros((1, 3))), body=graph)
    return str(net.op("Add", x, found))


def nested_loops(net: Net, x: str, levels: int, trips: int = 1000) -> str:
    def body(level: int) -> onnx.GraphProto:
        within = Net()
        within.input([], TensorProto.INT64)
        going, state = within.input([], TensorProto.BOOL), within.input(None)
        on = within.op("Identity", going)
        one = within.const(np.ones(3))
        new = loop(within, state, level - 1) if level else within.op("Add", state, one)
        return within.subgraph([(on, None), (new, None)], {on: TensorProto.BOOL})

    def loop(outside: Net, state: str, level: int) -> str:
        count = outside.const(np.int64(trips))
        return str(outside.op("Loop", count, outside.const(np.asarray(True)), state, body=body(level)))

    return str(net.op("Add", x, loop(net, net.const(np.zeros(3)), levels - 1)))


def stacking_loop(net: Net, x: str, trips: int, size: int) -> str:
    body = Net()
    body.input([], TensorProto.INT64)
    going = body.input([], TensorProto.BOOL)
    row, on = ones(body, size), body.op("Identity", going)
    graph = body.subgraph([(on, None), (row, None)], {on: TensorProto.BOOL})
    rows = net.op("Loop", net.const(np.int64(trips)), net.const(np.asarray(True)), body=graph)
    return str(net.op("Add", x, net.op("ReduceSum", rows)))


def busy_loop(net: Net, x: str, trips: int, nodes: int, size: int) -> str:
    """A loop of so many nodes, that make so many numbers each."""
    body = Net()
    body.input([], TensorProto.INT64)
    going, state = body.input([], TensorProto.BOOL), body.input(None)
    for _ in range(nodes):
        state = body.op("Mul", state, body.op("ReduceMean", ones(body, size), keepdims=0))
    on = body.op("Identity", going)
    graph = body.subgraph([(on, None), (state, None)], {on: TensorProto.BOOL})
    counts = net.const(np.int64(trips)), net.const(np.asarray(True))
    return str(net.op("Add", x, net.op("Loop", *counts, net.const(np.ones(3)), body=graph)))


def ones(net: Net, *shape: int) -> str:
    return str(net.op("ConstantOfShape", net.ints(*shape)))


def many_rows(net: Net) -> str:
    zeros = net.op("Cast", ones(net, 2**20), to=TensorProto.INT64)
    return str(net.op("Gather", ones(net, 2, 2**14), zeros))


HOSTILE: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "an input of 2^31 steps": (lambda: hostile(lambda n, x: n.op("Relu", x), (1, 2**31 - 1, 3)), "is too large"),
    "an input of 2^31 features": (lambda: hostile(lambda n, x: n.op("Relu", x), ("b", "t", 2**31)), "is too large"),
    "a weight expanded": (
        lambda: hostile(
            lambda n, x: n.op(
                "Add", x, n.op("ReduceSum", n.op("Expand", n.const(np.ones((1, 1))), n.ints(2**17, 2**17)))
            )
        ),
        "gives 17179869184 numbers",
    ),
    "a constant of 2^60 numbers": (
        lambda: hostile(lambda n, x: n.op("Add", x, n.op("ConstantOfShape", n.ints(2**30, 2**30)))),
        "gives 1152921504606846976 numbers",
    ),
    "data padded": (lambda: hostile(lambda n, x: n.op("Pad", x, n.ints(0, 0, 0, 0, 2**40, 0))), "'Pad' gives"),
    "rows taken a million times": (
        lambda: hostile(lambda n, x: n.op("Add", x, n.op("ReduceSum", many_rows(n)))),
        "'Gather' gives 17179869184 numbers",
    ),
    "an image of 4e12 pixels": (
        lambda: hostile(
            lambda n, x: n.op(
                "Add",
                x,
                n.op("ReduceSum", n.op("Resize", n.const(np.ones((1, 1, 2, 2))), "", n.const([1.0, 1.0, 1e6, 1e6]))),
            )
        ),
        "'Resize' gives",
    ),
    "a product of a column and a row": (
        lambda: hostile(
            lambda n, x: n.op("Add", x, n.op("ReduceSum", n.op("MatMul", ones(n, 2**17, 1), ones(n, 1, 2**17))))
        ),
        "'MatMul' gives 17179869184 numbers",
    ),
    "a product of six streams": (
        lambda: hostile(lambda n, x: n.op("Einsum", *[x] * 6, equation="abc,dec,fgc,hic,jkc,lmc->abdefghijklm")),
        "'Einsum' gives 1291467969 numbers",
    ),
    "no sequences": (
        lambda: hostile(lambda n, x: n.op("Relu", x), (0, "t", 3)),
        "is empty: it is declared as (0, t, 3)",
    ),
    "no steps": (lambda: hostile(lambda n, x: n.op("Relu", x), ("b", 0, 3)), "it is declared as (b, 0, 3)"),
    "a type that there is not": (
        lambda: hostile(lambda n, x: n.op("CumSum", n.op("Cast", x, to=999), n.const(np.int64(1)))),
        "the file is no valid model",
    ),
    "numbers that are not there": (
        lambda: hostile(lambda n, x: n.op("CumSum", n.op("Div", x, n.const(np.zeros(3))), n.const(np.int64(1)))),
        "gives NaN or infinity",
    ),
    "a shape that does not fit": (lambda: hostile(lambda n, x: n.op("Reshape", x, n.ints(7, 11))), "cannot run"),
    "axes that are not there": (lambda: hostile(lambda n, x: n.op("Transpose", x, perm=[0, 0, 5])), "cannot run"),
    "no operands": (lambda: hostile(lambda n, x: n.op("Relu")), "'Relu' lacks its operand 1, 'X'"),
    "channels that do not divide": (
        lambda: hostile(lambda n, x: n.op("Conv", x, n.const(np.ones((4, 7, 3))), group=3)),
        "'Conv' has group 3, which does not divide the 4 rows of its weights",
    ),
    "integers added to floats": (lambda: hostile(lambda n, x: n.op("Add", x, n.ints(1, 2, 3))), "int64"),
    "a function that calls itself": (lambda: with_functions(("F", ["F"])), "calls itself"),
    "functions that nobody calls but themselves": (
        lambda: with_functions(("F", []), ("A", ["B"]), ("B", ["A"])),
        "calls itself",
    ),
    "a function given more than it takes": (lambda: called_with(3, 1), "has 3 arguments"),
    "a function asked for more than it gives": (lambda: called_with(1, 2), "has 2 results"),
    "functions that double thirty times": (
        lambda: with_functions(*((f"F{k}", [f"F{k + 1}"] * 2 if k < 30 else []) for k in range(31))),
        "stand for 1073741824 nodes",
    ),
    "a scale that depends on all steps": (
        lambda: hostile(lambda n, x: n.op("DequantizeLinear", *n.op("DynamicQuantizeLinear", x, outputs=3))),
        "dynamic quantisation",
    ),
    "a loop of 2^21 trips": (lambda: hostile(lambda n, x: long_loop(n, x, 2**21)), "2097152 trips"),
    "a loop of 2^40 trips": (lambda: hostile(lambda n, x: long_loop(n, x, 2**40)), "does not end"),
    "a loop that never ends": (lambda: hostile(lambda n, x: long_loop(n, x, None)), "does not end"),
    "a loop longer than the sequence": (
        lambda: hostile(lambda n, x: long_loop(n, x, 2**40, reads=True)),
        "its end cannot be found",
    ),
    "a range of 2^40": (
        lambda: hostile(
            lambda n, x: n.op("Gather", x, n.op("Range", *(n.const(np.int64(k)) for k in (0, 2**40, 1))), axis=1)
        ),
        "gives 1099511627776 numbers",
    ),
    "a scan without a body": (lambda: scan_without("body"), "lacks the attribute 'body'"),
    "an unknown number of scanned inputs": (lambda: scan_without("num_scan_inputs"), "num_scan_inputs"),
    "one name for two inputs": (lambda: twice("input"), "to two values, one of them an input"),
    "one name for two weights": (lambda: twice("weight"), "to two values, one of them a weight"),
    "one name for two results": (lambda: twice("result of a node"), "to two values, one of them a result"),
    "one name for a weight and a result": (lambda: twice("both"), "to two values, one of them a result"),
    "a negative opset": (lambda: of_opset(-3), "opset 'ai.onnx' of version -3"),
    "more of the largest numbers than there are": (
        lambda: hostile(lambda n, x: n.op("TopK", x, n.ints(2**40), outputs=2, axis=2)[0]),
        "'TopK' gives",
    ),
    "steps that are spread": (
        lambda: hostile(
            lambda n, x: n.op(
                "ConvTranspose", n.op("Transpose", x, perm=[0, 2, 1]), n.const(np.ones((3, 3, 4))), strides=[2**26]
            )
        ),
        "'ConvTranspose' gives",
    ),
    "loops within loops": (lambda: hostile(lambda n, x: nested_loops(n, x, 4)), "around loops of 1000000000 trips"),
    "a loop that stacks 2^32 numbers": (
        lambda: hostile(lambda n, x: stacking_loop(n, x, 2**16, 2**16)),
        "'Loop' stacks 4294967296 numbers in 65536 trips",
    ),
    "a loop of few trips and many nodes": (
        lambda: hostile(lambda n, x: busy_loop(n, x, 100_000, 20, 1)),
        "a loop of 100000 trips in all, of 61 nodes each",
    ),
    "a loop of few trips and nodes and many numbers": (
        lambda: hostile(lambda n, x: busy_loop(n, x, 100_000, 1, 2**20)),
        "numbers in 100000 trips",
    ),
    "places of what is not zero": (
        lambda: hostile(lambda n, x: n.op("Add", x, n.op("ReduceSum", n.op("NonZero", n.op("Cos", ones(n, 2**25)))))),
        "'NonZero' may give 33554432 numbers",
    ),
    "no inputs": (lambda: (n := Net()).model([(n.op("Relu", n.const(np.ones((2, 3)))), [2, 3])]), "no inputs"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_models(name: str, tmp_path: Path) -> None:
    build, said = HOSTILE[name]
    before = time.process_time()
    refused(save(build(), tmp_path), said)
    assert time.process_time() - before < 10


def test_weights_that_are_inputs_and_names_of_outer_values_are_legal(tmp_path: Path) -> None:
    """A default value of an input, and a weight of a body that hides one outside."""
    inner = Net()
    inner.const(np.full(3, 2.0), "w")
    body = inner.subgraph([(inner.op("Neg", "w"), [3])])
    net = Net()
    x = net.input(["b", "t", 3])
    net.inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]))
    net.const(np.ones(3), "w")
    y = net.op(
        "Add", net.op("Mul", x, "w"), net.op("If", net.const(np.asarray(True)), then_branch=body, else_branch=body)
    )
    model = stepwise(net, net.op("CumSum", y, net.const(np.int64(1))), 3)
    assert all(proof.passed for proof in load_model(save(model, tmp_path), strict=False).proofs)
