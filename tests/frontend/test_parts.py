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


def stacked(tmp_path: Path, layers: int, width: int) -> tuple[Path, str, str, str, str]:
    """Layers whose states are rows of one tensor; the file, its inputs and its outputs."""
    net, rng = Net(), np.random.default_rng(0)
    u, states = net.input(["b", width]), net.input(["b", layers, width])
    h, following = u, []
    for k in range(layers):
        state = net.op("Gather", states, net.const(np.int64(k)), axis=1)
        drive = net.op("MatMul", h, net.const(rng.standard_normal((width, width)) / width**0.5))
        new = net.op("Add", net.op("Mul", state, net.const(rng.uniform(0.5, 0.9, width))), drive)
        following.append(net.op("Unsqueeze", new, net.ints(1)))
        h = net.op("Add", h, net.op("Tanh", new))
    together = net.op("Concat", *following, axis=1)
    given = net.model([(h, ["b", width]), (together, ["b", layers, width])])
    return save(given, tmp_path), u, states, h, together


def test_only_a_layers_part_of_the_states_is_loaded_and_stored(tmp_path: Path) -> None:
    """Six layers of 32 states each, in a scratchpad that does not hold them all at once."""
    layers, width, rng = 6, 32, np.random.default_rng(1)
    path, u, states, h, together = stacked(tmp_path, layers, width)
    program = compile_model(path, "epochcore", arch="epochcore-128{memory.scratchpad_words=256}", ideal=True)
    code = program.program.sections[0].code
    moved = [int(ins["words"]) for ins in code if ins.mnemonic in ("load", "store") and ins["steps"] == "one"]
    assert moved == [width] * (2 * layers)
    first = rng.standard_normal((2, layers, width)).astype(np.float32)
    for start in ({}, {states: first}):
        arrays = {u: rng.standard_normal((2, 7, width)).astype(np.float32), **start}
        found = program.run(arrays).outputs
        for name, array in reference(program.compilation.model, arrays).items():
            assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()
    assert set(found) == {h, together}


def on_targets(path: Path, states: dict[str, tuple[int, ...]], systems: int) -> None:
    """Both targets give what onnxruntime gives, at two lengths, from zeros and from given states."""
    model, rng = load_model(path), np.random.default_rng(5)
    assert set(model.states) == set(states) and len(model.systems) == systems
    (u,) = (port for port in model.inputs if port.name not in states)
    for target in ("cim", "epochcore"):
        program = compile_model(model, target, ideal=True)
        for length in (1, 8):
            x = rng.standard_normal((2, length, WIDTH)).astype(np.float32)
            given = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in states.items()}
            for arrays in ({u.name: x}, {u.name: x, **given}):
                found = program.run(arrays).outputs
                for name, array in reference(model, arrays).items():
                    assert found[name].shape == array.shape
                    assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


def _layer(net: Net, rng: np.random.Generator, h: str, state: str) -> tuple[str, str]:
    """The new state of a layer, and what the next layer reads."""
    drive = net.op("MatMul", h, net.const(rng.standard_normal((WIDTH, WIDTH))))
    new = net.op("Add", net.op("Mul", state, net.const(rng.uniform(0.5, 0.9, WIDTH))), drive)
    return new, net.op("Add", h, net.op("Tanh", new))


@pytest.mark.parametrize("named", ["b", "other", None])
@pytest.mark.parametrize("read", ["Gather", "Split"])
def test_layers_before_the_batch(tmp_path: Path, named: str | None, read: str) -> None:
    """`torch.stack(states)` gives (layers, batch, width), the batch dynamic, or of one size."""
    net, rng, layers = Net(), np.random.default_rng(6), 3
    u, states = net.input(["b" if named else 2, WIDTH]), net.input([layers, named or 2, WIDTH])
    pieces = net.op("Split", states, outputs=layers, axis=0, num_outputs=layers) if read == "Split" else []
    h, new = u, []
    for k in range(layers):
        state = (
            net.op("Squeeze", pieces[k], net.ints(0))
            if pieces
            else net.op("Gather", states, net.const(np.int64(k)), axis=0)
        )
        x, h = _layer(net, rng, h, state)
        new.append(net.op("Unsqueeze", x, net.ints(0)))
    together = net.op("Concat", *new, axis=0)
    dims: list[int | str] = [named or 2, WIDTH]
    path = save(net.model([(h, dims), (together, [layers, *dims])]), tmp_path)
    on_targets(path, {states: (layers, 2, WIDTH)}, layers)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("reread", [False, True])
def test_states_written_in_place(tmp_path: Path, axis: int, reread: bool) -> None:
    """`S[i] = x`, as torch's exporter says it: each layer writes to what the layer before has written."""
    net, rng, layers = Net(), np.random.default_rng(7), 3
    shape: list[int | str] = ["b", WIDTH]
    shape.insert(axis, layers)
    u, states = net.input(["b", WIDTH]), net.input(shape)
    h, written = u, states
    for k in range(layers):
        place = net.const(np.int64(k))
        x, h = _layer(net, rng, h, net.op("Gather", written if reread else states, place, axis=axis))
        update = net.op("Unsqueeze", x, net.ints(axis))
        places = net.op("Expand", place, net.op("Shape", update))
        written = net.op("ScatterElements", written, places, update, axis=axis)
        if reread:
            h = net.op("Add", h, net.op("Relu", net.op("Gather", written, place, axis=axis)))
    path = save(net.model([(h, ["b", WIDTH]), (net.op("Identity", written), shape)]), tmp_path)
    on_targets(path, {states: tuple(2 if d == "b" else int(d) for d in shape)}, layers)


def test_caches_and_states_of_all_layers(tmp_path: Path) -> None:
    """One flat vector: of each layer a window of its last inputs, which moves on, and its state."""
    net, rng, layers, taps = Net(), np.random.default_rng(8), 2, 3
    size = WIDTH * (taps + 1)
    u, states = net.input(["b", WIDTH]), net.input(["b", layers * size])
    h, new = u, []
    for k in range(layers):
        part = net.op("Slice", states, net.ints(k * size), net.ints((k + 1) * size), net.ints(1))
        window = net.op("Slice", part, net.ints(0), net.ints(WIDTH * taps), net.ints(1))
        window = net.op("Reshape", window, net.ints(-1, WIDTH, taps))
        window = net.op("Slice", window, net.ints(1), net.ints(taps), net.ints(2))
        window = net.op("Concat", window, net.op("Unsqueeze", h, net.ints(2)), axis=2)
        product = net.op("Mul", window, net.const(rng.standard_normal((WIDTH, taps))))
        a = net.op("Relu", net.op("ReduceSum", product, net.ints(2), keepdims=0))
        state = net.op("Slice", part, net.ints(WIDTH * taps), net.ints(size), net.ints(1))
        x, h = _layer(net, rng, a, state)
        new += [net.op("Flatten", window, axis=1), x]
    together = net.op("Concat", *new, axis=1)
    path = save(net.model([(h, ["b", WIDTH]), (together, ["b", layers * size])]), tmp_path)
    on_targets(path, {states: (2, layers * size)}, 2 * layers)


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
