"""The standard's recurrent networks: linear where the activation is affine, refused with the reason elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, lift, on_targets, refused
from tests.frontend.net import Net, save

INPUTS, STATES = 3, 4
AFFINE: dict[str, Any] = {"activations": ["Affine"], "activation_alpha": [0.9], "activation_beta": [0.1]}


def network(
    net: Net, x: str, directions: int = 1, initial: Any = None, ends: list[int] | None = None, **attrs: Any
) -> list[str]:
    """Time-major steps through an RNN: (all states, the last ones)."""
    weights = net.const(RNG.standard_normal((directions, STATES, INPUTS)))
    states = net.const(0.3 * RNG.standard_normal((directions, STATES, STATES)))
    bias = net.const(RNG.standard_normal((directions, 2 * STATES)))
    lens = "" if ends is None else net.const(np.asarray(ends, np.int32))
    first = "" if initial is None else net.const(initial)
    attrs = {k: v * directions if isinstance(v, list) else v for k, v in attrs.items()}
    operands = [net.op("Transpose", x, perm=[1, 0, 2]), weights, states, bias, lens, first]
    found: list[str] = net.op("RNN", *operands, outputs=2, hidden_size=STATES, **attrs)
    return found


def side_by_side(net: Net, y: str, directions: int) -> str:
    """(steps, directions, batch, states) as (batch, steps, directions * states)."""
    return str(net.op("Reshape", net.op("Transpose", y, perm=[2, 0, 1, 3]), net.ints(0, 0, directions * STATES)))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_affine_networks_are_linear_systems(tmp_path: Path, direction: str) -> None:
    net, count = Net(), 2 if direction == "bidirectional" else 1
    y, _ = network(net, net.input(["b", "t", INPUTS]), count, direction=direction, **AFFINE)
    model = lift(net, side_by_side(net, y, count), ["b", "t", count * STATES], tmp_path, (2, 12), (3, 7))
    assert kinds(model) == [LINEAR] * count
    assert sorted({s.reverse for s in model.systems}) == {"forward": [False], "reverse": [True]}.get(
        direction, [False, True]
    )
    on_targets(model, 2, 9)


def test_an_activation_without_a_shift(tmp_path: Path) -> None:
    net = Net()
    attrs = {name: AFFINE[name] for name in ("activations", "activation_alpha")}
    y, _ = network(net, net.input(["b", "t", INPUTS]), 2, direction="bidirectional", **attrs)
    model = lift(net, side_by_side(net, y, 2), ["b", "t", 2 * STATES], tmp_path, (2, 12), (3, 7))
    assert kinds(model) == [LINEAR] * 2


def test_last_states_from_trained_first_ones(tmp_path: Path) -> None:
    net = Net()
    first = np.repeat(RNG.standard_normal((1, 1, STATES)), 2, axis=1)
    _, last = network(net, net.input([2, 12, INPUTS]), initial=first, **AFFINE)
    y = net.op("Squeeze", last, net.ints(0))
    on_targets(lift(net, y, [2, STATES], tmp_path, (2, 12)), 2, 12)


@pytest.mark.parametrize(
    ("attrs", "reason"),
    [
        ({"activations": ["Tanh"]}, "a recurrent network with a nonlinear state"),
        ({}, "a recurrent network with a nonlinear state"),
        ({"activations": ["Affine"]}, "its activation has no activation_alpha"),
        ({**AFFINE, "clip": 0.5}, "it clips what enters its activation"),
        ({**AFFINE, "ends": [12, 5]}, "some of its sequences end before the others"),
    ],
)
def test_refused_with_the_reason(tmp_path: Path, attrs: dict[str, Any], reason: str) -> None:
    net = Net()
    y, _ = network(net, net.input([2, 12, INPUTS]), **attrs)
    refused(save(net.model([(side_by_side(net, y, 1), [2, 12, STATES])]), tmp_path), "RNN", reason)
