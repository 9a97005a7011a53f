"""Loops as jax2onnx writes `jax.lax.scan`: parameters and the sequence are carried, zeros take a computed shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto

from tests.frontend.blocks import DYNAMIC, RNG
from tests.frontend.checks import LINEAR, kinds, lift, on_targets
from tests.frontend.net import Net

DTYPES = {"going": TensorProto.BOOL}


def scanned(net: Net, u: str, parameters: list[np.ndarray], zeros: list[str], body: Net, outputs: list[str]) -> str:
    """A Loop over the first axis of `u`; `body` reads inputs as carried: trip, condition, parameters, states, `u`."""
    trips = net.op("Gather", net.op("Shape", u), net.const(np.int64(0)), axis=0)
    names = [net.const(p) for p in parameters]
    graph = body.subgraph([(name, None) for name in outputs], {outputs[0]: TensorProto.BOOL})
    count = len(outputs) - 1
    found = net.op("Loop", trips, net.const(np.asarray(True)), *names, *zeros, u, outputs=count, body=graph)
    return str(found[-1])


def carried(body: Net, parameters: int, states: int) -> tuple[str, list[str], list[str], str, list[str]]:
    """Inputs of a body: this step of the sequence, parameters, states, the sequence; and what it hands on at first."""
    trip = body.input([], TensorProto.INT64)
    going = body.input([], TensorProto.BOOL)
    held = [body.input(None) for _ in range(parameters)]
    state = [body.input(None) for _ in range(states)]
    sequence = body.input(None)
    handed = [body.op("Identity", name) for name in (going, *held)]
    return body.op("Gather", sequence, trip, axis=0), held, state, body.op("Identity", sequence), handed


def wide(body: Net, like: str, x: str, width: int) -> str:
    """`x` (batch, width) with a last axis of its own, in a shape that is read off a state."""
    batch = body.op("Gather", body.op("Shape", like), body.ints(0), axis=0)
    return str(body.op("Reshape", x, body.op("Concat", batch, body.ints(width, 1), axis=0)))


def test_parameters_that_a_loop_carries_are_what_they_are(tmp_path: Path) -> None:
    """Complex poles as two parameters and two states, which share their zeros."""
    width, poles = 3, 4
    angle, size = RNG.uniform(0.1, 1.5, (width, poles)), RNG.uniform(0.7, 0.95, (width, poles))
    c = RNG.standard_normal((2, width, poles))
    net = Net()
    u = net.op("Transpose", net.input(["n", "t", width]), perm=[1, 0, 2])
    batch = net.op("Gather", net.op("Shape", u), net.ints(1), axis=0)
    zeros = net.op("Expand", net.const(np.zeros(())), net.op("Concat", batch, net.ints(width, poles), axis=0))
    body = Net()
    x, (re, im, cr, ci), (sr, si), sequence, handed = carried(body, 4, 2)
    inner = body.op("Sub", body.op("Mul", re, sr), body.op("Mul", im, si))
    nr = body.op("Add", inner, wide(body, inner, x, width))
    ni = body.op("Add", body.op("Mul", re, si), body.op("Mul", im, sr))
    read = body.op("Sub", body.op("Mul", cr, nr), body.op("Mul", ci, ni))
    y = body.op("ReduceSum", read, body.ints(2), keepdims=0)
    states = [body.op("Cast", s, to=TensorProto.FLOAT) for s in (nr, ni)]
    parameters = [size * np.cos(angle), size * np.sin(angle), c[0], c[1]]
    found = scanned(net, u, parameters, [zeros, zeros], body, [*handed, *states, sequence, y])
    model = lift(net, net.op("Transpose", found, perm=[1, 0, 2]), ["n", "t", width], tmp_path, *DYNAMIC)
    assert kinds(model) == [LINEAR]
    on_targets(model, 2, 17)


def test_spikes_that_are_carried_are_cast_once_more(tmp_path: Path) -> None:
    """Neurons of (v, s) whose next values a loop casts to what they are before it hands them on."""
    steps, width = 9, 5
    net, body = Net(), Net()
    u = net.input([steps, "n", 4])
    batch = net.op("Gather", net.op("Shape", u), net.ints(1), axis=0)
    zeros = net.op("Expand", net.const(np.zeros(())), net.op("Concat", batch, net.ints(width), axis=0))
    x, (weights,), (v, s), sequence, handed = carried(body, 1, 2)
    one = body.const(np.ones(()))
    held = body.op("Mul", body.op("Mul", body.const(np.asarray(0.9)), v), body.op("Sub", one, s))
    new = body.op("Add", held, body.op("Gemm", x, weights, body.const(np.zeros(()))))
    fired = body.op("Cast", body.op("GreaterOrEqual", new, one), to=TensorProto.FLOAT)
    again = [body.op("Cast", value, to=TensorProto.FLOAT) for value in (new, fired)]
    last = body.op("Cast", again[1], to=TensorProto.FLOAT)
    y = scanned(net, u, [RNG.standard_normal((4, width))], [zeros, zeros], body, [*handed, *again, sequence, last])
    model = lift(net, y, [steps, "n", width], tmp_path, (2, steps), (3, steps))
    assert kinds(model) == ["integrate and fire"]
