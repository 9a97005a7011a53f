"""One step of a complex diagonal layer as onnxruntime's quantiser leaves it: real and imaginary parts are not alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnxruntime.quantization import QuantFormat, QuantType

from ssmc.driver import compile_model
from ssmc.frontend import load_model
from ssmc.ir.ops.rounded_sums import islands
from tests.frontend.net import Net, save
from tests.frontend.test_rounding import off, quantised

CHANNELS, STATES, STEPS = 3, 2, 24
SIGNED = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
SYMMETRIC = {**SIGNED, "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True}}


def one_step(folder: Path, batch: int | str) -> tuple[Path, str, dict[str, str]]:
    """S4D: what drives the states is added to the real parts alone, and only sums, not differences, are rounded."""
    net, rng = Net(), np.random.default_rng(4)
    u = net.input([batch, CHANNELS])
    re, im = (net.input([batch, CHANNELS, STATES]) for _ in range(2))
    size, angle = rng.uniform(0.6, 0.9, (CHANNELS, STATES)), rng.uniform(0.3, 1.5, (CHANNELS, STATES))
    a, b = net.const(size * np.cos(angle)), net.const(size * np.sin(angle))
    turned = net.op("Sub", net.op("Mul", a, re), net.op("Mul", b, im))
    new_re = net.op("Add", turned, net.op("Unsqueeze", u, net.ints(-1)))
    new_im = net.op("Add", net.op("Mul", b, re), net.op("Mul", a, im))
    weights = (net.const(rng.standard_normal((CHANNELS, STATES))) for _ in range(2))
    read = net.op("Add", *(net.op("Mul", x, c) for x, c in zip((new_re, new_im), weights, strict=True)))
    y = net.op(
        "Gemm", net.op("ReduceSum", read, net.ints(-1), keepdims=0), net.const(rng.standard_normal((CHANNELS, 2)))
    )
    dims = [batch, CHANNELS, STATES]
    path = save(net.model([(y, [batch, 2]), (new_re, dims), (new_im, dims)], opset=17), folder)
    return path, u, {re: new_re, im: new_im}


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_parts_rounded_before_they_are_put_together(tmp_path: Path, form: QuantFormat) -> None:
    """Halves of one tensor: each is rounded by its own scale, and then both by that of the whole."""
    net, rng = Net(), np.random.default_rng(6)
    u, state = net.input(["b", STATES]), net.input(["b", 2 * STATES])
    re, im = net.op("Split", state, outputs=2, axis=1)
    size, angle = rng.uniform(0.6, 0.9, STATES), rng.uniform(0.3, 1.5, STATES)
    a, b = net.const(size * np.cos(angle)), net.const(size * np.sin(angle))
    new_re = net.op("Add", net.op("Sub", net.op("Mul", a, re), net.op("Mul", b, im)), u)
    new_im = net.op("Add", net.op("Mul", b, re), net.op("Mul", a, im))
    new = net.op("Concat", new_re, new_im, axis=1)
    y = net.op("Gemm", new, net.const(rng.standard_normal((2 * STATES, 2))))
    path = save(net.model([(y, ["b", 2]), (new, ["b", 2 * STATES])], opset=17), tmp_path)
    path = quantised(path, {u: (2, STATES), state: (2, 2 * STATES)}, quant_format=form)
    model = load_model(path)
    (node,) = model.graph.nodes("rounded_sums")
    assert len(islands(node.op["grid"].shape[1], node.op["terms"].array)) == STATES
    data = rng.standard_normal((2, STEPS, STATES)).astype(np.float32)
    assert off(model, u, data, path) <= 1e-6


@pytest.mark.parametrize("batch", ["b", 2])
@pytest.mark.parametrize("options", [{}, SIGNED, SYMMETRIC])
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_it_gives_what_onnxruntime_gives(
    form: QuantFormat, options: dict[str, Any], batch: int | str, tmp_path: Path
) -> None:
    path, u, states = one_step(tmp_path, batch)
    shapes = {u: (2, CHANNELS), **dict.fromkeys(states, (2, CHANNELS, STATES))}
    # weights of 7 bits: sums of two products fit 16 bits, in which onnxruntime adds them on some processors
    path = quantised(path, shapes, quant_format=form, reduce_range=True, **options)
    model = load_model(path)
    assert model.states == states and [system.kind for system in model.systems] == ["rounded"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    stream = np.random.default_rng(5).standard_normal((2, STEPS, CHANNELS)).astype(np.float32)
    carried = {name: np.zeros(shapes[name], np.float32) for name in states}
    rows = []
    for k in range(STEPS):
        found = dict(zip(names, session.run(None, {u: stream[:, k], **carried}), strict=True))
        carried = {name: found[target] for name, target in states.items()}
        rows.append(found[names[0]])
    expected = {names[0]: np.stack(rows, axis=1), **{states[name]: array for name, array in carried.items()}}
    for target in ("cim", "epochcore"):
        outputs = compile_model(model, target, ideal=True).run({u: stream}).outputs
        for name, array in expected.items():
            assert np.abs(outputs[name] - array).max() <= 1e-6 * np.abs(array).max()
