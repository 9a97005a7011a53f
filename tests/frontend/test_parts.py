"""One-step models that keep the states of all their layers in one tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.net import Net, save

WIDTH = 3


@pytest.mark.parametrize("read", ["Gather", "Slice", "Split"])
@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("complex_states", [False, True])
def test_layers_that_share_a_tensor(tmp_path: Path, read: str, layers: int, complex_states: bool) -> None:
    """What is between the layers is not linear, so the tensor as a whole is no linear state."""
    net, rng = Net(), np.random.default_rng(layers)
    shape = ["b", layers, WIDTH, 2] if complex_states else ["b", layers, WIDTH]
    u, states = net.input(["b", WIDTH]), net.input(shape)
    rank = len(shape)
    h, following = u, []
    pieces = net.op("Split", states, outputs=layers, axis=1, num_outputs=layers) if read == "Split" else []
    for k in range(layers):
        if read == "Gather":
            state = net.op("Gather", states, net.const(np.int64(k - layers)), axis=1)
        elif read == "Slice":
            state = net.op("Slice", states, net.ints(k), net.ints(k + 1), net.ints(1))
        else:
            state = pieces[k]
        drive = net.op("MatMul", h, net.const(rng.standard_normal((WIDTH, WIDTH))))
        if read != "Gather":
            drive = net.op("Unsqueeze", drive, net.ints(1))
        if complex_states:
            size, angle = rng.uniform(0.5, 0.9, WIDTH), rng.uniform(0.3, 2.0, WIDTH)
            re, im = (net.op("Gather", state, net.const(np.int64(p)), axis=-1) for p in (0, 1))
            a, b = net.const(size * np.cos(angle)), net.const(size * np.sin(angle))
            new_re = net.op("Add", net.op("Sub", net.op("Mul", a, re), net.op("Mul", b, im)), drive)
            new_im = net.op("Add", net.op("Mul", a, im), net.op("Mul", b, re))
            new = net.op("Concat", *(net.op("Unsqueeze", x, net.ints(-1)) for x in (new_re, new_im)), axis=-1)
            seen = new_re
        else:
            new = seen = net.op("Add", net.op("Mul", state, net.const(rng.uniform(0.5, 0.9, WIDTH))), drive)
        following.append(net.op("Unsqueeze", new, net.ints(1)) if read == "Gather" else new)
        seen = seen if read == "Gather" else net.op("Squeeze", seen, net.ints(1))
        h = net.op("Add", h, net.op("Tanh", seen))
    together = net.op("Concat", *following, axis=1)
    model = load_model(save(net.model([(h, ["b", WIDTH]), (together, shape)]), tmp_path))
    assert model.states == {states: together} and len(model.systems) == layers
    first = rng.standard_normal((2, *(int(d) for d in shape[1:]))).astype(np.float32)
    for start in ({}, {states: first}):
        arrays = {u: rng.standard_normal((2, 7, WIDTH)).astype(np.float32), **start}
        expected = reference(model, arrays)
        for target in ("cim", "epochcore"):
            found = compile_model(model, target, ideal=True).run(arrays).outputs
            assert found[together].shape == (2, layers, *([WIDTH, 2] if rank == 4 else [WIDTH]))
            for name, array in expected.items():
                assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


@pytest.mark.parametrize("batched", [False, True])
def test_one_step_without_a_batch(tmp_path: Path, batched: bool) -> None:
    """Numbers of one sample and step go in and out; a state may have a batch axis of one nevertheless."""
    net, rng = Net(), np.random.default_rng(4)
    shape = [1, WIDTH] if batched else [WIDTH]
    u, state = net.input(shape), net.input(shape)
    following = net.op("Add", net.op("Mul", state, net.const(rng.uniform(0.5, 0.9, WIDTH))), net.op("Relu", u))
    model = load_model(save(net.model([(net.op("Tanh", following), shape), (following, shape)]), tmp_path))
    arrays = {u: rng.standard_normal((3, 5, WIDTH)).astype(np.float32)}
    for start in ({}, {state: rng.standard_normal((3, WIDTH)).astype(np.float32)}):
        expected = reference(model, {**arrays, **start})
        assert expected[following].shape == (3, WIDTH)
        for target in ("cim", "epochcore"):
            found = compile_model(model, target, ideal=True).run({**arrays, **start}).outputs
            for name, array in expected.items():
                assert found[name].shape == array.shape
                assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()
