"""Models that amplify roundings: where onnxruntime's float32 is far from float64, float64 judges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ssmc.frontend import exact_reference, load_model, reference
from ssmc.verification import REFERENCE_LIMIT, compare, verify
from tests.frontend.net import Net, save

STEPS = 6


def normalised(folder: Path) -> Path:
    """A moving average of eight channels around 1000, and a norm over each two of them (GroupNorm of four groups)."""
    net = Net()
    x = net.input(["b", STEPS, 8])
    state, found = "", []
    for k in range(STEPS):
        u = net.op("Mul", net.op("Gather", x, net.const(np.int64(k)), axis=1), net.const(0.5))
        state = net.op("Add", net.op("Mul", net.const(0.5), state), u) if state else u
        found.append(net.op("Unsqueeze", state, net.ints(1)))
    pairs = net.op("Reshape", net.op("Concat", *found, axis=1), net.ints(0, STEPS, 4, 2))
    centred = net.op("Sub", pairs, net.op("ReduceMean", pairs, axes=[3], keepdims=1))
    variance = net.op("ReduceMean", net.op("Mul", centred, centred), axes=[3], keepdims=1)
    y = net.op("Div", centred, net.op("Sqrt", net.op("Add", variance, net.const(0.01))))
    return save(net.model([(net.op("Reshape", y, net.ints(0, STEPS, 8)), ["b", STEPS, 8])]), folder)


@pytest.mark.parametrize("target", ["cim", "epochcore"])
def test_a_program_nearer_to_float64_passes(tmp_path: Path, target: str) -> None:
    path = normalised(tmp_path)
    model = load_model(path)
    x = 1000 + 0.3 * np.random.default_rng(1).standard_normal((40, STEPS, 8))
    arrays = {model.inputs[0].name: x.astype(np.float32)}
    exact, theirs = exact_reference(model, arrays), reference(model, arrays)
    assert exact is not None
    ((name, truth),) = exact.items()
    kept = 0.5 ** (np.arange(STEPS)[:, None] - np.arange(STEPS) + 1) * np.tri(STEPS)
    pairs = np.einsum("ts,bsf->btf", kept, arrays[model.inputs[0].name].astype(np.float64)).reshape(40, STEPS, 4, 2)
    centred = pairs - pairs.mean(axis=3, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=3, keepdims=True) + np.float32(0.01))
    assert np.allclose(truth, expected.reshape(truth.shape), rtol=1e-9, atol=1e-9)
    assert compare(truth, theirs[name]).relative > REFERENCE_LIMIT
    found = verify(model, target, arrays, ideal=True)
    assert found.passed and "judged against the file's own nodes in float64" in found.note


def test_a_program_that_is_further_off_does_not_pass(tmp_path: Path) -> None:
    """The file's decay is another one than when it was lifted: what judges is the file."""
    model = load_model(normalised(tmp_path))
    file = onnx.load(model.path)
    for weight in file.graph.initializer:
        if numpy_helper.to_array(weight).shape == () and numpy_helper.to_array(weight) == np.float32(0.5):
            weight.CopyFrom(numpy_helper.from_array(np.float32(0.4), weight.name))
    onnx.save(file, model.path)
    x = 1000 + 0.3 * np.random.default_rng(1).standard_normal((40, STEPS, 8))
    assert not verify(model, "cim", {model.inputs[0].name: x.astype(np.float32)}, ideal=True).passed
