"""Loops inside of loops, each of them short: what all make together is bounded before they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from ssmc.frontend.source.announced import TooLarge
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.importer import import_model
from ssmc.frontend.source.listing import list_calls
from ssmc.frontend.source.proto import ModelFile
from tests.frontend.checks import refused
from tests.frontend.net import Net, save

MANY, WIDTH = 60_000, 2


def added(x: str, count: str, inner: Net, dims: Sequence[int] | None = (WIDTH,)) -> None:
    """A loop of so many trips in the body `inner`, that halves x."""
    body = Net()
    body.input([], TensorProto.INT64)
    going, state = body.input([], TensorProto.BOOL), body.input(dims)
    on, more = body.op("Identity", going), body.op("Mul", state, body.const(np.full(WIDTH, 0.5)))
    graph = body.subgraph([(on, []), (more, dims)], {on: TensorProto.BOOL})
    inner.nodes.append(helper.make_node("Loop", [count, "", x], [f"{x}.looped"], body=graph))


def scanned(net: Net, x: str, count: str) -> str:
    body = Net()
    state, u = body.input([WIDTH]), body.input([WIDTH])
    seen = body.op("Add", u, body.op("Mul", state, body.const(np.full(WIDTH, 0.5))))
    added(seen, count, body)
    graph = body.subgraph([(f"{seen}.looped", [WIDTH]), (body.op("Identity", seen), [WIDTH])])
    return str(net.op("Scan", net.const(np.zeros(WIDTH)), x, outputs=2, body=graph, num_scan_inputs=1)[1])


def looped(net: Net, x: str, count: str) -> str:
    body = Net()
    step, going, state = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL), body.input([WIDTH])
    seen = body.op("Add", body.op("Gather", x, step, axis=0), state)
    added(seen, count, body)
    on = body.op("Identity", going)
    outputs = [(on, []), (f"{seen}.looped", [WIDTH]), (body.op("Identity", seen), [WIDTH])]
    graph = body.subgraph(outputs, {on: TensorProto.BOOL})
    trips = net.op("Squeeze", net.op("Shape", x, end=1))
    return str(net.op("Loop", trips, "", net.const(np.zeros(WIDTH)), outputs=2, body=graph)[1])


@pytest.mark.parametrize("outer", [scanned, looped])
@pytest.mark.parametrize("told", ["by a weight", "by a size"])
def test_short_loops_around_short_loops(outer: Callable[[Net, str, str], str], told: str) -> None:
    """Sixteen steps around 60 000 trips that the body captures: neither is many, all together are."""
    net = Net()
    x = net.input([16, WIDTH])
    count = net.const(np.int64(MANY))
    if told == "by a size":  # no constant of the file
        rows = net.op("ConstantOfShape", net.op("Mul", net.op("Shape", x, start=1), net.ints(MANY // WIDTH)))
        count = net.op("Squeeze", net.op("Shape", rows))
    model = net.model([(outer(net, x, count), [16, WIDTH])])
    listing = list_calls(import_model(ModelFile(model, {}), "a test"))
    given = {value: np.ones((16, WIDTH)) for value in listing.inputs.values()}
    with pytest.raises(TooLarge, match=f"{MANY} trips.* in all"):
        evaluate(listing, given, listing.outputs.values())


@pytest.mark.parametrize(
    "trips,said", [(8000, "8000 trips in a body that runs 32 times"), (300, "a loop within each step")]
)
@pytest.mark.parametrize("told", ["by a weight", "by the data"])
@pytest.mark.invalid_files
def test_a_body_is_bounded_before_it_is_looked_into(tmp_path: Path, trips: int, said: str, told: str) -> None:
    """Sixteen steps of 8000 trips may be run once; what finds their states would run each of them many times."""
    net, body = Net(), Net()
    x = net.input(["b", 16, WIDTH])
    count = net.const(np.int64(trips))
    if told == "by the data":
        none = net.op("ReduceSum", net.op("Mul", x, net.const(np.zeros(1))), keepdims=0)
        count = net.op("Add", count, net.op("Cast", none, to=TensorProto.INT64))
    state, u = body.input(None), body.input(None)
    seen = body.op("Add", u, body.op("Mul", state, body.const(np.full(WIDTH, 0.5))))
    added(seen, count, body, None)
    graph = body.subgraph([(f"{seen}.looped", None), (body.op("Identity", seen), None)])
    zero = net.op("ReduceSum", net.op("Mul", x, net.const(np.zeros(1))), net.ints(1), keepdims=0)
    axes = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    y = net.op("Scan", zero, x, outputs=2, body=graph, **axes)[1]
    refused(save(net.model([(y, ["b", 16, WIDTH])]), tmp_path), said)
