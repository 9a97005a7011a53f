"""Embeddings of words, positions and segments that onnxruntime's optimiser fuses with the norm behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.net import Net, save

LENGTH, WIDTH, WORDS, TAPS = 12, 8, 9, 12
RNG = np.random.default_rng(4)


@pytest.mark.parametrize("segments", [False, True])
def test_fused_embeddings_in_front_of_a_system(segments: bool, tmp_path: Path) -> None:
    net = Net()
    x = net.input([2, LENGTH], TensorProto.INT32)
    tables = [net.const(RNG.standard_normal((rows, WIDTH))) for rows in (WORDS, LENGTH + 4, 3)]
    norm = [net.const(RNG.uniform(0.5, 1.5, WIDTH)), net.const(RNG.standard_normal(WIDTH))]
    kinds = net.const(np.tile(np.arange(LENGTH, dtype=np.int32) % 3, (2, 1))) if segments else ""
    operands = [x, kinds, tables[0], tables[1], tables[2] if segments else "", *norm]
    found = net.op("EmbedLayerNormalization", *operands, outputs=2, domain="com.microsoft", epsilon=1e-5)
    u = net.op("Pad", net.op("Transpose", found[0], perm=[0, 2, 1]), net.ints(0, 0, TAPS - 1, 0, 0, 0))
    taps = net.const(RNG.uniform(0.5, 0.9, (WIDTH, 1, 1)) ** np.arange(TAPS)[::-1])
    y = net.op("Tanh", net.op("Transpose", net.op("Conv", u, taps, group=WIDTH), perm=[0, 2, 1]))
    model = load_model(save(net.model([(y, [2, LENGTH, WIDTH])], opset=17), tmp_path))
    assert [system.states for system in model.systems] == [1]
    arrays = {x: RNG.integers(0, WORDS, (2, LENGTH))}
    expected = reference(model, arrays)[y]
    for target in ("cim", "epochcore"):
        given = compile_model(model, target, ideal=True).run(arrays).outputs[y]
        assert np.abs(given - expected).max() <= 1e-5 * np.abs(expected).max()
