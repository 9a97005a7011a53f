"""One-step models of many layers or outputs: what their states are is found in time that grows with their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssmc.frontend import load_model
from ssmc.frontend.source import evaluate
from ssmc.frontend.source.listing import Listing
from tests.frontend.net import Net, save

WIDTH, STATES = 3, 4


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many nodes were run, counted at its end."""
    counts: list[int] = []
    plain = evaluate.run_quietly

    def counted(*args: Any) -> Any:
        counts[-1] += 1
        return plain(*args)

    monkeypatch.setattr(evaluate, "run_quietly", counted)
    return counts


def _layers(folder: Path, layers: int, rotating: bool) -> Path:
    """Real or complex states (as two inputs) a layer, behind a nonlinear stage; all of one shape."""
    net, rng = Net(), np.random.default_rng(layers)
    x = h = net.input(["b", WIDTH])
    outputs, carried = [], []
    for _ in range(layers):
        parts = [net.input(["b", STATES]) for _ in range(1 + rotating)]
        drive = net.op("MatMul", h, net.const(rng.standard_normal((WIDTH, STATES))))
        size, angle = rng.uniform(0.5, 0.9, STATES), rng.uniform(0.3, 2.0, STATES)
        if rotating:
            re, im = parts
            a, b = net.const(size * np.cos(angle)), net.const(size * np.sin(angle))
            new = [
                net.op("Add", net.op("Sub", net.op("Mul", a, re), net.op("Mul", b, im)), drive),
                net.op("Add", net.op("Mul", a, im), net.op("Mul", b, re)),
            ]
        else:
            new = [net.op("Add", net.op("Mul", parts[0], net.const(size)), drive)]
        carried += new
        read = net.op("MatMul", new[0], net.const(rng.standard_normal((STATES, WIDTH))))
        h = net.op("Add", h, net.op("Tanh", read))
        outputs += [(value, ["b", STATES]) for value in new]
    assert x
    return save(net.model([(h, ["b", WIDTH]), *outputs]), folder)


@pytest.mark.parametrize("rotating", [False, True])
def test_nodes_run_grow_with_the_layers(tmp_path: Path, runs: list[int], rotating: bool) -> None:
    for layers in (6, 12):
        runs.append(0)
        model = load_model(_layers(tmp_path, layers, rotating))
        assert len(model.states) == layers * (1 + rotating)
        assert len(model.systems) == layers
    assert runs[1] < 2.2 * runs[0]


def test_running_maxima_of_many_layers(tmp_path: Path, runs: list[int]) -> None:
    """RWKV-4: what a maximum is for is looked for in its own layer."""
    for layers in (4, 8):
        runs.append(0)
        model = load_model(_maxima(tmp_path, layers))
        assert len(model.states) == 3 * layers and len(model.systems) == 3 * layers
    assert runs[1] < 2.3 * runs[0]


def _maxima(folder: Path, layers: int) -> Path:
    net, rng = Net(), np.random.default_rng(layers)
    h = net.input(["b", WIDTH])
    outputs = []
    for _ in range(layers):
        top, bottom, m = (net.input(["b", WIDTH]) for _ in range(3))
        u = net.op("Tanh", h)
        k, v = (net.op("MatMul", u, net.const(rng.standard_normal((WIDTH, WIDTH)))) for _ in range(2))
        faded = net.op("Add", m, net.const(-rng.uniform(0.1, 1.0, WIDTH)))
        new = net.op("Max", faded, k)
        old, now = (net.op("Exp", net.op("Sub", x, new)) for x in (faded, k))
        sums = [net.op("Add", net.op("Mul", old, x), net.op("Mul", now, y)) for x, y in ((top, v), (bottom, one(net)))]
        h = net.op("Add", h, net.op("Div", *sums))
        outputs += [(value, ["b", WIDTH]) for value in (*sums, new)]
    return save(
        net.model([(net.op("MatMul", h, net.const(rng.standard_normal((WIDTH, 2)))), ["b", 2]), *outputs]), folder
    )


def one(net: Net) -> str:
    return net.const(np.ones(WIDTH))


def test_spikes_are_looked_for_among_what_outputs_are_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs that are all 0 or 1 could be spikes of one another: none is walked to for each of the others."""
    walks: list[int] = []
    plain = Listing.influenced

    def counted(self: Listing, sources: Any) -> Any:
        walks.append(1)
        return plain(self, sources)

    monkeypatch.setattr(Listing, "influenced", counted)
    net = Net()
    x, state = net.input(["b", WIDTH]), net.input(["b", WIDTH])
    new = net.op("Add", net.op("Mul", state, net.const(np.full(WIDTH, 0.5))), x)
    many = 20
    signs = [net.op("Tanh", net.op("Mul", new, net.const(np.full(WIDTH, 1e3 * (k + 1))))) for k in range(many)]
    squares = [net.op("Mul", y, y) for y in signs]
    model = load_model(save(net.model([(y, ["b", WIDTH]) for y in (*squares, new)]), tmp_path))
    assert model.states == {state: new}
    assert len(walks) < 6 * many


def test_data_that_moves_every_output_is_data(tmp_path: Path) -> None:
    """All inputs could be states, and one is not: the state stands last, whatever else could be paired then."""
    net = Net()
    x, state = net.input(["b", WIDTH]), net.input(["b", WIDTH])
    y = new = net.op("Add", net.op("Mul", state, net.const(np.full(WIDTH, 0.5))), x)
    for _ in range(40):  # the output forgets the state, but for rounding
        y = net.op("Tanh", net.op("Add", y, x))
    model = load_model(save(net.model([(y, ["b", WIDTH]), (new, ["b", WIDTH])]), tmp_path))
    assert model.states == {state: new}
