"""Sums of integer products that onnxruntime gets wrong on some processors: told, and no reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantFormat

from ssmc.diagnostics import UserError
from ssmc.driver import compile_model
from ssmc.frontend import load_model
from ssmc.frontend.proofs import proving, saturation
from ssmc.verification import verify
from tests.frontend.net import Net, save
from tests.frontend.test_rounding import WIDTH, one_step, quantised


def integers(folder: Path) -> tuple[Path, str]:
    path, u, state = one_step(folder)
    shapes = {u: (2, WIDTH), state: (2, WIDTH)}
    return quantised(path, shapes, 3.0, quant_format=QuantFormat.QOperator, reduce_range=True), u


def test_a_reference_that_saturates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, u = integers(tmp_path)
    right = proving._run

    def wrong(case: Any, arrays: Any) -> Any:
        return {name: 0.5 * array for name, array in right(case, arrays).items()}

    monkeypatch.setattr(proving, "_run", wrong)
    monkeypatch.setattr(saturation, "saturates", lambda: False)
    with pytest.raises(UserError, match="not the model in the file"):
        load_model(path)
    monkeypatch.setattr(saturation, "saturates", lambda: True)
    model = load_model(path)
    assert any("saturate on this processor" in note for note in model.notes)
    assert all(proof.against == "the file in float64" for proof in model.proofs)
    data = {u: np.random.default_rng(2).standard_normal((2, 9, WIDTH)).astype(np.float32)}
    assert compile_model(model, "cim", ideal=True).run(data).outputs
    right_or_not = verify(model, "epochcore", data, ideal=True, tolerance=0.0)
    assert right_or_not.passed or "no reference" in right_or_not.note


def test_only_files_with_integer_products_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saturation, "saturates", lambda: True)
    assert saturation.told_of(onnx.load(integers(tmp_path)[0]))
    assert not saturation.told_of(onnx.load(one_step(tmp_path)[0]))


@pytest.mark.parametrize("target", ["cim", "epochcore"])
def test_quantised_and_dequantised_products_do_not_saturate(tmp_path: Path, target: str) -> None:
    """Unsigned activations of all 8 bits by signed weights of all 8, in QDQ form: the reference runs the file's own
    nodes, which compute in float32, and makes no integer product of them."""
    net, state, found = Net(), "", []
    x = net.input(["b", 12, 4])
    for k in range(12):
        u = net.op("Gather", x, net.const(np.int64(k)), axis=1)
        state = net.op("Add", net.op("Mul", net.const(np.linspace(0.5, 0.9, 4)), state), u) if state else u
        found.append(net.op("Unsqueeze", state, net.ints(1)))
    scale, zero = net.const(0.01), net.const(np.uint8(0))
    y = net.op("QuantizeLinear", net.op("Concat", *found, axis=1), scale, zero)
    weight = net.op("DequantizeLinear", net.const(np.full((4, 4), 127, np.int8)), scale, net.const(np.int8(0)))
    y = net.op("MatMul", net.op("DequantizeLinear", y, scale, zero), weight)
    path = save(net.model([(y, ["b", 12, 4])], opset=13), tmp_path)
    data = {x: 3 + np.abs(np.random.default_rng(4).standard_normal((3, 12, 4))).astype(np.float32)}
    assert verify(path, target, data, ideal=True).passed
