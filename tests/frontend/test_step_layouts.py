"""One-step models as people keep their states: caches of a token shift, rings, several tensors of several layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from ssmc.driver import compile_model
from ssmc.frontend import load_model
from tests.frontend.checks import refused
from tests.frontend.net import Net, save

WIDTH, SLOTS, STEPS = 3, 4, 20


def step_by_step(path: Path, states: dict[str, str], arrays: dict[str, Any]) -> dict[str, Any]:
    """What onnxruntime gives, the states carried by hand; streams (batch, time, ...), positions (1, time, 1)."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    carried = {name: arrays[name] for name in states}
    rows: dict[str, list[Any]] = {name: [] for name in names}
    for k in range(STEPS):
        streams = {n: a[0, k] if a.dtype == np.int64 else a[:, k] for n, a in arrays.items() if n not in states}
        found = dict(zip(names, session.run(None, {**streams, **carried}), strict=True))
        carried = {name: found[target] for name, target in states.items()}
        for name, array in found.items():
            rows[name].append(array)
    last = set(states.values())
    return {name: row[-1] if name in last else np.stack(row, axis=1) for name, row in rows.items()}


def holds(path: Path, states: dict[str, str], arrays: dict[str, Any]) -> None:
    """The states are paired so, and both targets give what onnxruntime gives."""
    model = load_model(path)
    assert model.states == states
    expected = step_by_step(path, states, arrays)
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(arrays).outputs
        for name, array in expected.items():
            assert np.abs(found[name].reshape(array.shape) - array).max() <= 1e-5 * np.abs(array).max()


def weight(net: Net, rng: np.random.Generator, *shape: int) -> str:
    return net.const(rng.standard_normal(shape) * 0.5)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_caches_of_a_token_shift(layers: int, reverse: bool, tmp_path: Path) -> None:
    """RWKV's: the next value of a cache is what this step was given, behind a norm; nothing of the cache is in it."""
    net, rng = Net(), np.random.default_rng(layers)
    x = u = net.input(["b", WIDTH])
    states: dict[str, str] = {}
    for _ in range(layers):
        shift, state, other = (net.input(["b", WIDTH]) for _ in range(3))
        now = net.op("Mul", x, net.op("Sigmoid", x))
        mixed = net.op("Add", now, net.op("Mul", shift, weight(net, rng, WIDTH)))
        kept = net.op("Mul", state, net.const(rng.uniform(0.5, 0.9, WIDTH)))
        new = net.op("Add", kept, net.op("MatMul", mixed, weight(net, rng, WIDTH, WIDTH)))
        x = net.op("Add", x, net.op("Tanh", new))
        after = net.op("Tanh", x)
        both = net.op("Tanh", net.op("Add", after, other))
        x = net.op("Add", x, net.op("MatMul", both, weight(net, rng, WIDTH, WIDTH)))
        states |= {shift: now, state: new, other: after}
    outputs = [*states.values(), x]
    path = save(net.model([(y, ["b", WIDTH]) for y in (outputs if reverse else outputs[-1:] + outputs[:-1])]), tmp_path)
    arrays = {u: rng.standard_normal((2, STEPS, WIDTH)).astype(np.float32)}
    holds(path, states, arrays | {name: rng.standard_normal((2, WIDTH)).astype(np.float32) for name in states})


def test_an_output_that_forgets_an_input_is_no_state_alone(tmp_path: Path) -> None:
    """Nothing else says that the file is one step."""
    net = Net()
    a, b = net.input(["b", WIDTH]), net.input(["b", WIDTH])
    y, z = net.op("Tanh", net.op("Add", a, b)), net.op("Tanh", a)
    refused(save(net.model([(y, ["b", WIDTH]), (z, ["b", WIDTH])]), tmp_path), "no state-space system was found")


def test_two_tensors_of_all_layers_of_one_shape(tmp_path: Path) -> None:
    """A cache and a state a layer, each kept with those of the other layers: what a layer hands to the next is linear
    in its state, but is not its next value."""
    net, rng, layers = Net(), np.random.default_rng(1), 2
    x = u = net.input([2, WIDTH])
    caches, states = (net.input([layers, 2, WIDTH, SLOTS]) for _ in range(2))
    kept: list[list[str]] = [[], []]
    for k in range(layers):
        cache, state = (net.op("Gather", y, net.const(np.int64(k)), axis=0) for y in (caches, states))
        window = net.op("Concat", cache, net.op("Unsqueeze", x, net.ints(-1)), axis=2)
        seen = net.op("ReduceSum", net.op("Mul", window, weight(net, rng, WIDTH, SLOTS + 1)), net.ints(-1), keepdims=0)
        v = net.op("Mul", seen, net.op("Sigmoid", seen))
        decay = net.op("Sigmoid", net.op("MatMul", v, weight(net, rng, WIDTH, SLOTS)))
        held = net.op("Mul", state, net.op("Unsqueeze", decay, net.ints(1)))
        new = net.op("Add", held, net.op("Unsqueeze", v, net.ints(-1)))
        x = net.op("Add", x, net.op("ReduceSum", new, net.ints(-1), keepdims=0))
        moved = net.op("Slice", window, net.ints(1), net.ints(SLOTS + 1), net.ints(2))
        for rows, y in zip(kept, (moved, new), strict=True):
            rows.append(net.op("Unsqueeze", y, net.ints(0)))
    together = [net.op("Concat", *rows, axis=0) for rows in kept]
    shapes = [(y, [layers, 2, WIDTH, SLOTS]) for y in together]
    path = save(net.model([(x, [2, WIDTH]), *shapes]), tmp_path)
    arrays = {name: rng.standard_normal((layers, 2, WIDTH, SLOTS)).astype(np.float32) for name in (caches, states)}
    arrays[u] = rng.standard_normal((2, STEPS, WIDTH)).astype(np.float32)
    holds(path, dict(zip((caches, states), together, strict=True)), arrays)


def at_position(form: str, place: str, tmp_path: Path) -> tuple[Path, dict[str, str], str, str]:
    """A step that writes what it is given into a cache (batch, width, slots), at a place that a position tells."""
    net, rng = Net(), np.random.default_rng(2)
    u, position, cache = net.input([2, WIDTH]), net.input([1], TensorProto.INT64), net.input([2, WIDTH, SLOTS])
    fresh = net.op("MatMul", u, weight(net, rng, WIDTH, WIDTH))
    if place == "ring":
        at, old = net.op("Mod", position, net.ints(SLOTS)), cache
    else:  # as in Hugging Face's first caches: until it is full, it is filled from the left
        at = net.op("Min", position, net.ints(SLOTS - 1))
        parts = [net.op("Slice", cache, net.ints(a), net.ints(b), net.ints(2)) for a, b in ((1, SLOTS), (0, 1))]
        old = net.op("Concat", *parts, axis=2)
    if form == "elements":
        sizes = net.op("Concat", net.op("Shape", cache, end=2), net.ints(1), axis=0)
        places = net.op("Expand", net.op("Unsqueeze", at, net.ints(0, 1)), sizes)
        new = net.op("ScatterElements", old, places, net.op("Unsqueeze", fresh, net.ints(2)), axis=2)
    else:
        turned = net.op("Transpose", old, perm=[2, 0, 1])
        rows = net.op("Unsqueeze", fresh, net.ints(0))
        new = net.op("ScatterND", turned, net.op("Unsqueeze", at, net.ints(-1)), rows)
        new = net.op("Transpose", new, perm=[1, 2, 0])
    y = net.op("Tanh", net.op("ReduceSum", net.op("Mul", new, weight(net, rng, SLOTS)), net.ints(-1), keepdims=0))
    path = save(net.model([(y, [2, WIDTH]), (new, [2, WIDTH, SLOTS])]), tmp_path)
    return path, {cache: new}, u, position


@pytest.mark.parametrize("form", ["elements", "rows"])
def test_a_ring_is_written_at_the_position(form: str, tmp_path: Path) -> None:
    path, states, u, position = at_position(form, "ring", tmp_path)
    rng = np.random.default_rng(3)
    arrays = {name: rng.standard_normal((2, WIDTH, SLOTS)).astype(np.float32) for name in states}
    arrays[u] = rng.standard_normal((2, STEPS, WIDTH)).astype(np.float32)
    arrays[position] = np.arange(STEPS).reshape(1, STEPS, 1)
    model = load_model(path)
    assert [system.kind for system in model.systems] == ["selective"]
    expected = step_by_step(path, states, arrays)
    streams = {u: arrays[u][None], **{name: arrays[name][None] for name in states}}
    streams[u] = np.moveaxis(arrays[u], 1, 0)[None]
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run({**streams, position: arrays[position]}).outputs
        for name, array in expected.items():
            array = array[None] if name in states.values() else np.moveaxis(array, 1, 0)[None]
            assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


@pytest.mark.parametrize("form", ["elements", "rows"])
def test_a_shift_that_ends_where_a_position_tells_is_refused(form: str, tmp_path: Path) -> None:
    """At its first steps only the file does something else, and random positions hardly meet these."""
    path, *_ = at_position(form, "clamp", tmp_path)
    refused(path, "the states are mixed by a matrix that depends on the data")


def test_beams_before_the_batch(tmp_path: Path) -> None:
    """The one dynamic axis of all inputs is the second: in one step it is the batch, not time."""
    net, rng, beams = Net(), np.random.default_rng(4), 2
    u, state = net.input([beams, "n", WIDTH]), net.input([beams, "n", SLOTS])
    kept = net.op("Mul", state, net.const(rng.uniform(0.5, 0.9, SLOTS)))
    new = net.op("Add", kept, net.op("MatMul", u, weight(net, rng, WIDTH, SLOTS)))
    y = net.op("Tanh", net.op("MatMul", new, weight(net, rng, SLOTS, WIDTH)))
    path = save(net.model([(y, [beams, "n", WIDTH]), (new, [beams, "n", SLOTS])]), tmp_path)
    first = rng.standard_normal((beams, 5, SLOTS)).astype(np.float32)
    holds(path, {state: new}, {u: rng.standard_normal((beams, STEPS, 5, WIDTH)).astype(np.float32), state: first})


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_parts_of_a_complex_state_in_any_order(order: tuple[int, ...], mixed: bool, tmp_path: Path) -> None:
    """Each part reads both; that a complex number multiplies them tells which is which, not the order of the file."""
    net, rng = Net(), np.random.default_rng(5)
    u, re, im = (net.input(["b", SLOTS]) for _ in range(3))
    a, b = (net.const(rng.standard_normal((SLOTS, SLOTS) if mixed else SLOTS) * 0.4) for _ in range(2))
    by, wide = "MatMul" if mixed else "Mul", ["b", SLOTS]
    kept, turned = (
        net.op("Sub", net.op(by, re, a), net.op(by, im, b)),
        net.op("Add", net.op(by, im, a), net.op(by, re, b)),
    )
    new_re = net.op("Add", kept, net.op("MatMul", u, weight(net, rng, SLOTS, SLOTS)))
    new_im = net.op("Add", turned, net.op("MatMul", u, weight(net, rng, SLOTS, SLOTS)))
    y = net.op("Tanh", net.op("MatMul", net.op("Add", new_re, new_im), weight(net, rng, SLOTS, SLOTS)))
    outputs = [(y, wide), (new_re, wide), (new_im, wide)]
    path = save(net.model([outputs[k] for k in order]), tmp_path)
    arrays = {name: rng.standard_normal((2, SLOTS)).astype(np.float32) for name in (re, im)}
    holds(path, {re: new_re, im: new_im}, arrays | {u: rng.standard_normal((2, STEPS, SLOTS)).astype(np.float32)})


@pytest.mark.parametrize("data_first", [False, True])
def test_what_reads_the_next_state_is_not_the_next_value_of_the_data(data_first: bool, tmp_path: Path) -> None:
    """The output is of the data's shape and linear in it, number by number: read so, both inputs could be the state."""
    net, rng = Net(), np.random.default_rng(6)
    if data_first:
        u, state = net.input(["b", WIDTH]), net.input(["b", WIDTH, SLOTS])
    else:
        state, u = net.input(["b", WIDTH, SLOTS]), net.input(["b", WIDTH])
    drive = net.op("Mul", net.op("Unsqueeze", u, net.ints(-1)), weight(net, rng, WIDTH, SLOTS))
    kept = net.op("Mul", state, net.op("Add", drive, net.const(rng.uniform(0.2, 0.6, (WIDTH, SLOTS)))))
    new = net.op("Add", kept, drive)
    y = net.op("ReduceSum", net.op("Mul", new, weight(net, rng, WIDTH, SLOTS)), net.ints(-1), keepdims=0)
    path = save(net.model([(new, ["b", WIDTH, SLOTS]), (y, ["b", WIDTH])]), tmp_path)
    arrays = {state: rng.standard_normal((2, WIDTH, SLOTS)).astype(np.float32)}
    holds(path, {state: new}, arrays | {u: 0.3 * rng.standard_normal((2, STEPS, WIDTH)).astype(np.float32)})
