"""Loops as jax2onnx writes `fori_loop` with `.at[].set` and `.at[].add`: scattered writes, a number each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.frontend import Model, load_model
from tests.frontend.checks import LINEAR, kinds, on_targets
from tests.frontend.net import Net, save

BATCH, STEPS, WIDTH = 2, 11, 4
RNG = np.random.default_rng(17)


def scattered(net: Net, into: str, shape: tuple[int, ...], axis: int, at: str, new: str, reduction: str) -> str:
    """`new` written at index `at` of an axis: numbers in one row, with all their indices, those in range chosen."""
    count = int(np.prod(shape)) // shape[axis]
    window = [1 if k == axis else size for k, size in enumerate(shape)]
    offsets = np.stack([a.reshape(-1) for a in np.indices(window)], axis=1)
    row = net.op("Reshape", net.op("Cast", at, to=TensorProto.INT64), net.ints(1, 1))
    low = net.op("GreaterOrEqual", row, net.const(np.int64(0)))
    fits = net.op("And", low, net.op("LessOrEqual", row, net.const(np.int64(shape[axis] - 1))))
    valid = net.op("Squeeze", net.op("Transpose", net.op("NonZero", net.op("Squeeze", fits, net.ints(1))), perm=[1, 0]))
    valid = net.op("Reshape", valid, net.ints(1))
    updates = net.op("Gather", net.op("Reshape", new, net.ints(1, count)), valid, axis=0)
    place = np.zeros((1, len(shape)), np.int64)
    place[0, axis] = 1
    base = net.op("Mul", net.op("Gather", row, valid, axis=0), net.const(place))
    indices = net.op("Add", base, net.const(offsets))
    return str(net.op("ScatterND", into, indices, net.op("Reshape", updates, net.ints(count)), reduction=reduction))


def looped(net: Net, carried: list[str], body: Net, outputs: list[str]) -> list[str]:
    graph = body.subgraph([(name, None) for name in outputs], {outputs[0]: TensorProto.BOOL})
    trips, going = net.const(np.int64(STEPS)), net.const(np.asarray(True))
    return list(net.op("Loop", trips, going, *carried, outputs=len(carried), body=graph))


def inside(carried: int) -> tuple[Net, str, str, list[str]]:
    """A body: its trip, its condition, what it carries."""
    body = Net()
    trip, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
    return body, trip, body.op("Identity", going), [body.input(None) for _ in range(carried)]


def stepped(body: Net, state: str, sequence: str, trip: str) -> str:
    u = body.op("Gather", sequence, trip, axis=1)
    return str(body.op("Add", body.op("Mul", state, body.const(RNG.uniform(0.4, 0.9, WIDTH))), u))


def lifted(net: Net, y: str, folder: Path) -> Model:
    return load_model(save(net.model([(y, [BATCH, STEPS, WIDTH])]), folder))


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_steps_that_are_written_or_added(reduction: str, tmp_path: Path) -> None:
    """What is added goes on top of what was there: the input itself."""
    net = Net()
    u = net.input([BATCH, STEPS, WIDTH])
    there = net.op("Tanh", u) if reduction == "add" else net.const(np.zeros((BATCH, STEPS, WIDTH)))
    body, trip, going, (state, sequence, buffer) = inside(3)
    following = stepped(body, state, sequence, trip)
    wide = body.op("MatMul", following, body.const(RNG.standard_normal((WIDTH, WIDTH))))
    after = scattered(body, buffer, (BATCH, STEPS, WIDTH), 1, trip, wide, reduction)
    zeros = net.const(np.zeros((BATCH, WIDTH)))
    found = looped(net, [zeros, u, there], body, [going, following, body.op("Identity", sequence), after])
    model = lifted(net, found[2], tmp_path)
    assert kinds(model) == [LINEAR]
    on_targets(model, BATCH, STEPS)


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_parts_of_a_state_that_are_written(reduction: str, tmp_path: Path) -> None:
    """Real and imaginary part in the last axis of one state: turned together, then each written by itself."""
    net = Net()
    u = net.input([BATCH, STEPS, WIDTH])
    body, trip, going, (state, sequence, buffer) = inside(3)
    angle = RNG.uniform(0.2, 1.5, WIDTH)
    p, q = (body.const(0.9 * wave(angle)) for wave in (np.cos, np.sin))
    re, im = (body.op("Gather", state, body.const(np.int64(k)), axis=2) for k in (0, 1))
    turned = [
        body.op("Sub", body.op("Mul", p, re), body.op("Mul", q, im)),
        body.op("Add", body.op("Mul", q, re), body.op("Mul", p, im)),
    ]
    step = body.op("Gather", sequence, trip, axis=1)
    given = [body.op("Mul", step, body.const(RNG.standard_normal(WIDTH))) for _ in range(2)]
    following, parts = state, given
    if reduction == "add":
        following = body.op("Concat", *(body.op("Unsqueeze", part, body.ints(2)) for part in turned), axis=2)
    else:
        parts = [body.op("Add", *both) for both in zip(turned, given, strict=True)]
    for k, part in enumerate(parts):
        place = body.const(np.int64(k))
        following = scattered(body, following, (BATCH, WIDTH, 2), 2, place, part, reduction)
    read = body.op("Squeeze", body.op("Slice", following, body.ints(1), body.ints(2), body.ints(2)), body.ints(2))
    after = scattered(body, buffer, (BATCH, STEPS, WIDTH), 1, trip, read, "none")
    zeros = [net.const(np.zeros(shape)) for shape in ((BATCH, WIDTH, 2), (BATCH, STEPS, WIDTH))]
    found = looped(net, [zeros[0], u, zeros[1]], body, [going, following, body.op("Identity", sequence), after])
    model = lifted(net, found[2], tmp_path)
    assert kinds(model) == [LINEAR]
    assert model.systems[0].is_complex
    on_targets(model, BATCH, STEPS)
