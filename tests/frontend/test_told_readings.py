"""Of several readings that are refused, the one is told that takes the steps for steps; and files that nothing runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto

from ssmc.frontend.attempts.attempt import Attempt
from ssmc.frontend.findings import Findings, refusal
from ssmc.frontend.likeliest import likeliest
from ssmc.ir.graph import Graph
from tests.frontend.blocks import RNG
from tests.frontend.checks import refused
from tests.frontend.net import Net, save
from tests.frontend.test_jax import carried, scanned

STEPS, BATCH, WIDTH = 8, 2, 3


def bounded_loop(net: Net) -> str:
    """Steps of (time, batch, width), as `jax.lax.scan` over a function that is not linear in its state leaves them."""
    u = net.input([STEPS, BATCH, WIDTH])
    body = Net()
    x, (decay,), (state,), sequence, handed = carried(body, 1, 1)
    new = body.op("Tanh", body.op("Add", body.op("Mul", decay, state), x))
    zeros = net.const(np.zeros((BATCH, WIDTH)))
    outputs = [*handed, new, sequence, body.op("Identity", new)]
    return scanned(net, u, [RNG.uniform(0.5, 0.9, WIDTH)], [zeros], body, outputs)


def test_steps_that_a_loop_picks_are_not_features(tmp_path: Path) -> None:
    net = Net()
    y = bounded_loop(net)
    told = refused(save(net.model([(y, [STEPS, BATCH, WIDTH])]), tmp_path), "not a linear function of the state")
    assert "an axis that is not time" not in told


def test_steps_that_are_unrolled_are_no_samples(tmp_path: Path) -> None:
    """(time, features), no batch, and each step rounded by a scale of its own, as static quantisation leaves it."""
    net = Net()
    u, decay, zero = net.input([STEPS, WIDTH]), net.const(RNG.uniform(0.5, 0.9, WIDTH)), net.const(np.int8(0))
    state, steps = net.const(np.zeros(WIDTH)), []
    for step, size in enumerate(RNG.uniform(0.01, 0.02, STEPS)):
        scale = net.const(np.float32(size))
        x = net.op("Gather", u, net.const(np.int64(step)), axis=0)
        x = net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero), scale, zero)
        state = net.op("Add", net.op("Mul", decay, state), x)
        steps.append(net.op("Unsqueeze", state, net.ints(0)))
    y = net.op("Concat", *steps, axis=0)
    told = refused(save(net.model([(y, [STEPS, WIDTH])]), tmp_path), "8 steps are rounded by 8 different scales")
    assert "a part of the batch" not in told


def test_operands_of_two_types_are_told_first(tmp_path: Path) -> None:
    """As a converter to float16 leaves them."""
    net = Net()
    y = net.op("Mul", bounded_loop(net), net.op("Cast", net.const(np.ones(WIDTH)), to=TensorProto.FLOAT16))
    refused(save(net.model([(y, [STEPS, BATCH, WIDTH])]), tmp_path), "onnxruntime does not take the file", "float16")


def test_a_step_whose_states_are_refused_is_no_sequence_without_states() -> None:
    """Quantised Mamba, whose caches have a layer axis in front: along that, nothing mixes time."""
    step = Attempt("step", Graph("model"), findings=Findings(refusals=[refusal("n", "QuantizeLinear", "it rounds")]))
    for of_one_step in (True, False):
        assert likeliest([step, Attempt("sequence", Graph("model"))], lambda told=of_one_step: told) is step
