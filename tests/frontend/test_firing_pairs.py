"""One-step models of neurons whose current is as wide as their potential: which of both is the state."""

from __future__ import annotations

import shlex
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.checks import refused
from tests.frontend.net import Net, save

DIMS = ["b", WIDTH := 4]


def neuron(how: str, dense: bool, order: tuple[bool, bool], seed: int) -> tuple[Net, list[str], str, str]:
    """The outputs of a step in some order of the file, its potential and the next one."""
    net, rng = Net(), np.random.default_rng(seed)
    u, v = (net.input(DIMS) for _ in range(2)) if order[0] else reversed([net.input(DIMS) for _ in range(2)])
    one = net.const(np.ones(WIDTH))

    def fired(x: str) -> str:
        return net.op("Cast", net.op("Greater", x, one), to=TensorProto.FLOAT)

    x = net.op("MatMul", u, net.const(rng.standard_normal((WIDTH, WIDTH)))) if dense else u
    charged = net.op("Add", net.op("Mul", v, net.const(np.full(WIDTH, 0.9))), x)
    if how == "of the step before":
        new = net.op("Sub", charged, fired(v))
        spikes = fired(new)
    elif how == "subtract":
        spikes = fired(charged)
        new = net.op("Sub", charged, spikes)
    else:
        new = net.op("Where", net.op("Greater", charged, one), net.const(np.zeros(WIDTH)), charged)
        spikes = net.op("MatMul", fired(charged), net.const(rng.standard_normal((WIDTH, WIDTH))))
    return net, [spikes, new] if order[1] else [new, spikes], v, new


@pytest.mark.parametrize("how", ["of the step before", "subtract", "zero"])
def test_the_potential_is_the_state_though_it_is_linear_in_the_current(tmp_path: Path, how: str) -> None:
    """In any order of the file, wherever the neurons stand at the point that is looked at."""
    for first, second, seed in product((True, False), (True, False), range(2)):
        net, outputs, v, new = neuron(how, True, (first, second), seed)
        model = load_model(save(net.model([(y, DIMS) for y in outputs]), tmp_path))
        assert model.states == {v: new}


def test_a_neuron_alone(tmp_path: Path) -> None:
    """The current goes to each potential as it is."""
    net, outputs, v, new = neuron("of the step before", False, (True, True), 0)
    model = load_model(save(net.model([(y, DIMS) for y in outputs]), tmp_path))
    assert model.states == {v: new} and [s.kind for s in model.systems] == ["integrate and fire"]
    rng = np.random.default_rng(1)
    arrays = {
        port.name: rng.uniform(-0.5, 1.5, (2, WIDTH) if port.name == v else (2, 9, WIDTH)).astype(np.float32)
        for port in model.inputs
    }
    expected = reference(model, arrays)
    assert expected[outputs[0]].any() and not expected[outputs[0]].all()
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(arrays).outputs
        for name, array in expected.items():
            assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


def test_a_clipped_current_is_data(tmp_path: Path) -> None:
    """A threshold without a jump fires nothing: the mixed states are the states."""
    net, rng = Net(), np.random.default_rng(0)
    u, x = net.input(DIMS), net.input(DIMS)
    above = net.op("Greater", u, net.const(np.zeros(WIDTH)))
    drive = net.op("Where", above, u, net.const(np.zeros(WIDTH)))
    new = net.op("Add", net.op("MatMul", x, net.const(0.3 * rng.standard_normal((WIDTH, WIDTH)))), drive)
    model = load_model(save(net.model([(net.op("Tanh", new), DIMS), (new, DIMS)]), tmp_path))
    assert model.states == {x: new}


def test_states_of_one_shape_are_told_with_the_options_that_pair_them(tmp_path: Path) -> None:
    """Two dense states that feed each other: the note's options, as a shell reads them, give the same model."""
    net, rng = Net(), np.random.default_rng(3)
    u, a, b = (net.input(DIMS, name=name) for name in ("u", "a (1)", "b"))
    mixed = [
        [net.op("MatMul", x, net.const(0.3 * rng.standard_normal((WIDTH, WIDTH)))) for x in (a, b, u)] for _ in range(2)
    ]
    new = [net.op("Add", net.op("Add", *one[:2]), one[2]) for one in mixed]
    y = net.op("Tanh", net.op("Add", *new))
    path = save(net.model([(value, DIMS) for value in (y, *new)]), tmp_path)
    model = load_model(path)
    (note,) = [note for note in model.notes if "--state" in note]
    words = shlex.split(note[note.index("--state") :])
    pairs = dict(word.split("=") for word in words if word != "--state")
    assert pairs == dict(model.states) == load_model(path, states=pairs).states


def test_a_nonlinear_step_of_one_sample_is_told_as_that(tmp_path: Path) -> None:
    """Neither axis is time, though a file of fixed sizes may be read along both."""
    net, rng = Net(), np.random.default_rng(5)
    u, h = net.input([1, WIDTH]), net.input([1, WIDTH])
    into, back = (net.op("MatMul", x, net.const(rng.standard_normal((WIDTH, WIDTH)))) for x in (u, h))
    gate = net.op("Sigmoid", into)
    other = net.op("Mul", net.op("Sub", net.const(np.ones(WIDTH)), gate), net.op("Tanh", net.op("Add", into, back)))
    new = net.op("Add", net.op("Mul", gate, h), other)
    path = save(net.model([(net.op("Relu", new), [1, WIDTH]), (new, [1, WIDTH])]), tmp_path)
    refused(path, f"state '{h}': its next value '{new}' is not a linear function of it, as in LSTM and GRU")
