"""What the tests of the frontend do with a model: lift it and compare it with onnxruntime, or see it refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ssmc.diagnostics import UserError
from ssmc.driver import compile_model
from ssmc.frontend import Model, load_model, reference
from ssmc.frontend.proofs.proof import run_graph
from ssmc.frontend.proofs.reference import user_shape
from tests.frontend.blocks import RNG
from tests.frontend.net import Net, save

LINEAR = "linear time-invariant"


def lift(net: Net, y: str, dims: Sequence[int | str], folder: Path, *sizes: tuple[int, int]) -> Model:
    """Load the model and compare it with onnxruntime at each (batch, length)."""
    model = load_model(save(net.model([(y, dims)]), folder))
    for batch, length in sizes or ((2, 24),):
        arrays = {}
        for port in model.inputs:
            named = {"b": batch, "t": length}
            shape = [named.get(a, d) for a, d in zip(port.axes, user_shape(port), strict=True)]
            arrays[port.name] = RNG.uniform(0.1, 1.0, [int(d) for d in shape]).astype(np.float32)
        expected = reference(model, arrays)
        found = run_graph(model.graph, model.inputs, model.outputs, arrays)
        for name, array in expected.items():
            assert np.abs(found[name] - array).max() <= 1e-4 * np.abs(array).max()
    return model


def kinds(model: Model) -> list[str]:
    return [system.kind for system in model.systems]


def on_targets(model: Model, batch: int, length: int) -> None:
    """Both targets give what onnxruntime gives."""
    (port,) = model.inputs
    u = RNG.standard_normal((batch, length, port.type.shape[0])).astype(np.float32)
    arrays = {port.name: u if port.axes == "btf" else u.transpose(0, 2, 1)}
    expected = reference(model, arrays)
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(arrays).outputs
        for name, array in expected.items():
            assert found[name].shape == array.shape
            assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


def refused(path: Path, *parts: str) -> str:
    with pytest.raises(UserError) as caught:
        load_model(path)
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    assert "Traceback" not in message and "\n    File" not in message
    return message
