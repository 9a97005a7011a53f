"""Sizes that an exporter wrote into a file that declares them dynamic: the message says which, and in which node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.frontend import load_model
from tests.frontend.blocks import RNG, decaying, dense
from tests.frontend.checks import refused
from tests.frontend.net import Net, save

Build = Callable[[Net, str], tuple[str, str]]  # the output, and that of the node to be named


def heads(*shape: int) -> Build:
    def build(net: Net, x: str) -> tuple[str, str]:
        split = net.op("Reshape", dense(net, x, 3, 8), net.ints(*shape))
        scaled = net.op("Mul", split, net.const(RNG.standard_normal((2, 4))))
        return decaying(net, net.op("Reshape", scaled, net.ints(0, 0, 8)), 8), split

    return build


def flattened(net: Net, x: str) -> tuple[str, str]:
    """A linear layer on batch and time as one axis, and back with the traced batch."""
    flat = dense(net, net.op("Reshape", x, net.ints(-1, 3)), 3, 8)
    back = net.op("Reshape", flat, net.ints(1, -1, 8))
    return decaying(net, back, 8), back


def positions(net: Net, x: str) -> tuple[str, str]:
    shifted = net.op("Add", dense(net, x, 3, 8), net.const(RNG.standard_normal((1, 24, 8))))
    return decaying(net, shifted, 8), shifted


def started(net: Net, x: str) -> tuple[str, str]:
    """A Scan whose state starts from zeros of one sample."""
    body = Net()
    state, v = body.input(None), body.input(None)
    following = body.op("Add", body.op("Mul", state, body.const(np.full(8, 0.5))), v)
    graph = body.subgraph([(following, None), (body.op("Identity", following), None)])
    attrs = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    last, y = net.op("Scan", net.const(np.zeros((1, 8))), dense(net, x, 3, 8), outputs=2, body=graph, **attrs)
    return y, last


def unrolled(net: Net, x: str) -> tuple[str, str]:
    """Steps one by one; the twelfth is the first that a sequence of eleven steps lacks."""
    leak, v, state = net.const(np.full(8, 0.5)), dense(net, x, 3, 8), ""
    taken, steps = [], []
    for k in range(24):
        taken.append(net.op("Gather", v, net.const(np.int64(k)), axis=1))
        state = net.op("Add", net.op("Mul", state, leak), taken[k]) if state else taken[k]
        steps.append(net.op("Unsqueeze", state, net.ints(1)))
    return net.op("Concat", *steps, axis=1), taken[11]


def looped(net: Net, x: str) -> tuple[str, str]:
    """A Loop that makes as many trips as there were steps, from zeros for as many samples."""
    body, v = Net(), dense(net, x, 3, 8)
    step, going, state = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL), body.input(None)
    leaked = body.op("Mul", state, body.const(np.full(8, 0.5)))
    following = body.op("Add", leaked, body.op("Gather", v, step, axis=1))
    end, shown = body.op("Identity", going), body.op("Identity", following)
    graph = body.subgraph([(end, None), (following, None), (shown, None)], {end: TensorProto.BOOL})
    start = net.op("Identity", net.const(np.zeros((2, 8))))
    last, y = net.op("Loop", net.const(np.int64(7)), net.const(np.asarray(True)), start, outputs=2, body=graph)
    return net.op("Transpose", y, perm=[1, 0, 2]), last


CASES: dict[str, tuple[Build, str]] = {
    "one sample": (heads(1, -1, 2, 4), "the batch 1"),
    "two samples": (heads(2, -1, 2, 4), "the batch 2"),
    "the length": (heads(0, 24, 2, 4), "the length 24"),
    "both": (heads(1, 24, 2, 4), "the batch 1 and the length 24"),
    "flattened": (flattened, "the batch 1"),
    "positions": (positions, "the length 24"),
    "started": (started, "the batch 1"),
    "unrolled": (unrolled, "the length 24"),
    "looped": (looped, "the batch 2 and the length 7"),
}


@pytest.mark.parametrize("form", CASES)
def test_a_traced_size_is_named_with_its_node(tmp_path: Path, form: str) -> None:
    build, said = CASES[form]
    net = Net()
    y, node = build(net, net.input(["n", "t", 3]))
    path = save(net.model([(y, ["n", "t", 8])]), tmp_path)
    refused(path, f"it holds {said}, which the file declares dynamic", f"({node})'", "fixed sizes")


def test_a_file_that_runs_at_any_size_is_not_suspected(tmp_path: Path) -> None:
    """Refused for what it does; and listed where that is asked for."""
    net = Net()
    x = net.input(["n", "t", 3])
    scores = net.op("Softmax", net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1])), axis=-1)
    path = save(net.model([(net.op("MatMul", scores, x), ["n", "t", 3])]), tmp_path)
    assert "declares dynamic" not in refused(path, "attention")


def test_a_traced_size_is_listed(tmp_path: Path) -> None:
    net = Net()
    y, node = flattened(net, net.input(["n", "t", 3]))
    (refusal,) = load_model(save(net.model([(y, ["n", "t", 8])]), tmp_path), strict=False).unsupported
    assert refusal.op == "Reshape" and node in refusal.node and "the batch 1" in refusal.reason


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize(("which", "shape"), [("batch", ["n", 6, 3]), ("length", ["n", "t", 3])])
def test_a_loop_that_was_unrolled_over_a_dynamic_axis(
    tmp_path: Path, which: str, shape: list[str | int], sliced: bool
) -> None:
    """The first steps are written one by one into zeros of the length that is given: the file runs at any."""
    net = Net()
    x = net.input(shape)
    axis, turned = shape.index("t") if "t" in shape else 0, [1, 0, 2] if "t" in shape else [0, 1, 2]
    y, nodes = net.op("Transpose", net.op("Mul", x, net.const(np.zeros(1))), perm=turned), []
    state = net.const(np.zeros((1, 3)))
    for t in range(5):
        if sliced:
            nodes.append(net.op("Slice", x, net.ints(t), net.ints(t + 1), net.ints(axis)))
            step = net.op("Squeeze", nodes[-1], net.ints(axis))
        else:
            nodes.append(net.op("Gather", x, net.const(np.array(t)), axis=axis))
            step = nodes[-1]
        state = net.op("Add", net.op("Mul", state, net.const(np.array([0.9, 0.5, -0.3]))), step)
        y = net.op("ScatterND", y, net.const(np.array([[t]])), net.op("Unsqueeze", state, net.ints(0)))
    path = save(net.model([(net.op("Transpose", y, perm=turned), shape)]), tmp_path)
    refused(path, f"({nodes[0]})': the first of 5", f"declares the {which} dynamic")
    (refusal,) = load_model(path, strict=False).unsupported
    assert refusal.op == ("Slice" if sliced else "Gather")


def test_a_file_that_runs_at_some_lengths_only(tmp_path: Path) -> None:
    """Windows of 13 steps: it runs at 13 and at 26, and at no length at which files are studied."""
    net = Net()
    x = net.input(["n", "t", 3])
    windows = net.op("Reshape", x, net.ints(0, -1, 13, 3))
    y = net.op(
        "Reshape", net.op("Softmax", net.op("CumSum", windows, net.const(np.int64(1))), axis=2), net.ints(0, -1, 3)
    )
    path = save(net.model([(y, ["n", "t", 3])]), tmp_path)
    refused(path, "does not run at 448 steps", f"({windows})'", "at a fixed length")
