"""Numbers of each step's own inside a recurrence: positions, gains and decays by step, looked up in tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.frontend.blocks import decaying
from tests.frontend.checks import lift, on_targets, refused
from tests.frontend.net import Net, save

LENGTH, STATES = 12, 4
RNG = np.random.default_rng(4)
DECAY = np.linspace(0.4, 0.9, STATES)
TABLE = RNG.uniform(0.5, 1.5, (LENGTH, STATES))


def step(net: Net, kind: str, before: str, u: str, number: str) -> tuple[str, str]:
    """(next state, output) of one step, which has a row of numbers of its own."""
    decay = net.const(DECAY)
    if kind == "into the drive":
        u = net.op("Tanh", net.op("Add", u, number))
    if kind == "decay":
        decay = net.op("Mul", decay, net.op("Sub", net.const(1.0), net.op("Mul", net.const(0.3), number)))
    after = net.op("Add", net.op("Mul", decay, before), u)
    if kind == "out of the state":
        return after, net.op("Sigmoid", net.op("Div", after, number))
    return after, net.op("Sub", after, number) if kind == "read before" else after


KINDS = ("into the drive", "decay", "out of the state", "read before")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_unrolled_steps(tmp_path: Path, kind: str, backward: bool) -> None:
    net = Net()
    x = net.input(["b", LENGTH, STATES], name="x")
    state, outputs = net.op("Mul", net.op("Gather", x, net.const(np.int64(0)), axis=1), net.const(0.0)), {}
    for t in reversed(range(LENGTH)) if backward else range(LENGTH):
        u = net.op("Gather", x, net.const(np.int64(t)), axis=1)
        state, outputs[t] = step(net, kind, state, u, net.const(TABLE[t]))
    y = net.op("Concat", *(net.op("Unsqueeze", outputs[t], net.ints(1)) for t in range(LENGTH)), axis=1)
    model = lift(net, y, ["b", LENGTH, STATES], tmp_path, (2, LENGTH))
    assert [s.disguise for s in model.systems] == ["unrolled steps"]
    on_targets(model, 2, LENGTH)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_a_table_that_is_scanned(tmp_path: Path, kind: str, backward: bool) -> None:
    net = Net()
    x = net.input(["b", LENGTH, STATES], name="x")
    y = scanned(net, kind, x, net.const(TABLE[:, None]), backward)
    model = lift(net, y, ["b", LENGTH, STATES], tmp_path, (2, LENGTH))
    assert [s.disguise for s in model.systems] == ["Scan"]
    on_targets(model, 2, LENGTH)


def test_a_table_of_which_one_row_is_unlike_the_others(tmp_path: Path) -> None:
    table = np.repeat(TABLE[:1, None], LENGTH, 0)
    table[4, 0, 1], table[9, 0, 2] = 0.1, 0.2
    net = Net()
    y = scanned(net, "decay", net.input(["b", LENGTH, STATES], name="x"), net.const(table), backward=False)
    model = lift(net, y, ["b", LENGTH, STATES], tmp_path, (2, LENGTH))
    assert [s.kind for s in model.systems] == ["selective"]


def test_a_constant_that_is_scanned_but_never_changes(tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", LENGTH, STATES], name="x")
    y = scanned(net, "decay", x, net.const(np.repeat(TABLE[:1, None], LENGTH, 0)), backward=False)
    model = lift(net, y, ["b", LENGTH, STATES], tmp_path, (2, LENGTH))
    assert [s.kind for s in model.systems] == ["linear time-invariant"]


def scanned(net: Net, kind: str, x: str, table: str, backward: bool) -> Any:
    """A Scan over (time, batch, states) and a table (time, 1, states); gives (batch, time, states)."""
    inner = Net()
    before = inner.input(None, name="before")
    u, number = inner.input(None, name="u"), inner.input(None, name="number")
    after, y = step(inner, kind, before, u, number)
    body = inner.subgraph([(after, None), (inner.op("Identity", y), None)])
    zeros = net.op("Mul", net.op("Gather", x, net.const(np.int64(0)), axis=1), net.const(0.0))
    _, y = net.op(
        "Scan", zeros, net.op("Transpose", x, perm=[1, 0, 2]), table, outputs=2, body=body, num_scan_inputs=2,
        scan_input_directions=[int(backward)] * 2, scan_output_directions=[int(backward)],
    )  # fmt: skip
    return net.op("Transpose", y, perm=[1, 0, 2])


def test_a_value_given_twice_is_refused(tmp_path: Path) -> None:
    """Outputs are told apart by their names: none may be lost without a word."""
    net, inner = Net(), Net()
    x = net.input(["b", LENGTH, STATES], name="x")
    after, _ = step(inner, "decay", inner.input(None), inner.input(None), inner.const(TABLE[0]))
    body = inner.subgraph([(after, None), (after, None)])
    zeros = net.op("Mul", net.op("Gather", x, net.const(np.int64(0)), axis=1), net.const(0.0))
    _, y = net.op("Scan", zeros, net.op("Transpose", x, perm=[1, 0, 2]), outputs=2, body=body, num_scan_inputs=1)
    refused(save(net.model([(y, [LENGTH, "b", STATES])]), tmp_path), f"'{after}' as two of its outputs", "Identity")


def test_a_table_is_looked_up_once_a_step(tmp_path: Path) -> None:
    """However many streams are multiplied with its rows: all of them have the same steps."""
    net = Net()
    x = net.input(["b", LENGTH, STATES], name="x")
    table, y = net.const(TABLE), x
    for _ in range(3):
        y = net.op("Tanh", net.op("Mul", y, table))
    model = lift(net, decaying(net, y, STATES), ["b", LENGTH, STATES], tmp_path, (2, LENGTH))
    assert len(list(model.graph.nodes("embed"))) == 1
    on_targets(model, 2, LENGTH)
