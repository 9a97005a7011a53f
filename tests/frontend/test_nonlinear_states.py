"""One-step models whose states are not linear in themselves: LSTM and GRU cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend import load_model
from tests.frontend.blocks import RNG
from tests.frontend.checks import refused
from tests.frontend.net import Net, save

WIDTH = 5


def lstm_cell(folder: Path) -> tuple[Path, str, str, str]:
    """c' = f c + i g and h' = o tanh(c'), the gates of x and h: the file, h, c and c'."""
    net = Net()
    x, h, c = net.input(["b", 3]), net.input(["b", WIDTH]), net.input(["b", WIDTH])
    read = net.op("Gemm", x, net.const(RNG.standard_normal((3, 4 * WIDTH))), net.const(RNG.standard_normal(4 * WIDTH)))
    both = net.op("Add", read, net.op("MatMul", h, net.const(RNG.standard_normal((WIDTH, 4 * WIDTH)))))
    i, f, g, o = net.op("Split", both, net.ints(*[WIDTH] * 4), axis=1, outputs=4)
    i, f, o = (net.op("Sigmoid", gate) for gate in (i, f, o))
    cell = net.op("Add", net.op("Mul", f, c), net.op("Mul", i, net.op("Tanh", g)))
    new = net.op("Mul", o, net.op("Tanh", cell))
    y = net.op("MatMul", new, net.const(RNG.standard_normal((WIDTH, 2))))
    outputs = [(y, ["b", 2]), (new, ["b", WIDTH]), (cell, ["b", WIDTH])]
    return save(net.model(outputs), folder), h, c, cell  # type: ignore[arg-type]


def test_a_hidden_state_is_no_data(tmp_path: Path) -> None:
    path, h, *_ = lstm_cell(tmp_path)
    refused(path, f"state '{h}'", "not a linear function of it", "LSTM", "--state IN=OUT")
    assert [item.node for item in load_model(path, strict=False).unsupported] == [h]


def test_unless_that_is_said(tmp_path: Path) -> None:
    path, h, c, cell = lstm_cell(tmp_path)
    model = load_model(path, states={c: cell})
    assert model.states == {c: cell} and [s.kind for s in model.systems] == ["selective"]
    assert any(f"'{h}'" in note for note in model.notes)


@pytest.mark.parametrize("bound", [50.0, 5e4])
def test_a_state_that_is_clipped_far_out_is_not_linear(tmp_path: Path, bound: float) -> None:
    """However far from where random inputs take it: other inputs may."""
    net = Net()
    x, h = net.input(["b", 3]), net.input(["b", 3])
    free = net.op("Add", net.op("Mul", h, net.const(np.array([0.9, 0.5, 0.2]))), x)
    new = net.op("Clip", free, net.const(np.asarray(-bound)), net.const(np.asarray(bound)))
    y = net.op("MatMul", new, net.const(np.ones((3, 2))))
    path = save(net.model([(y, ["b", 2]), (new, ["b", 3])]), tmp_path)
    refused(path, "its state has a threshold")


def test_a_cell_of_one_sequence_is_not_read_along_its_features(tmp_path: Path) -> None:
    """A GRU of batch one, whose features could be taken for steps."""
    net = Net()
    x, h = net.input([1, 3]), net.input([1, WIDTH])
    wide = net.op("Gemm", x, net.const(RNG.standard_normal((3, WIDTH))), net.const(RNG.standard_normal(WIDTH)))
    z = net.op("Sigmoid", net.op("Add", wide, net.op("MatMul", h, net.const(RNG.standard_normal((WIDTH, WIDTH))))))
    n = net.op("Tanh", net.op("Add", wide, net.op("Mul", z, h)))
    one = net.op("Sub", net.const(np.float32(1)), z)
    new = net.op("Add", net.op("Mul", one, n), net.op("Mul", z, h))
    y = net.op("MatMul", new, net.const(RNG.standard_normal((WIDTH, 2))))
    path = save(net.model([(y, [1, 2]), (new, [1, WIDTH])]), tmp_path)
    refused(path, "is not a linear function of it, as in LSTM and GRU")


@pytest.mark.parametrize("decay", [0.9, 1.1])
def test_a_state_that_is_limited_far_out_is_noted_with_the_bound(tmp_path: Path, decay: float) -> None:
    body = Net()
    s, u = body.input([2]), body.input([2])
    summed = body.op("Add", body.op("Mul", s, body.const(np.full(2, decay))), u)
    new = body.op("Clip", summed, body.const(-1e8), body.const(1e8))
    graph = body.subgraph([(new, [2]), (body.op("Identity", new), [2])])
    net = Net()
    start, x = net.const(np.zeros(2)), net.input(["t", 2])
    _, y = net.op("Scan", start, x, outputs=2, body=graph, num_scan_inputs=1)
    (note,) = load_model(save(net.model([(y, ["t", 2])]), tmp_path)).notes
    assert f"right as long as |x| <= {'1.0e+08' if decay < 1 else '9.1e+07'}" in note
