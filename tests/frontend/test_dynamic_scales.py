"""Dynamic quantisation, whose scale is that of a whole tensor; and what onnxruntime's optimiser makes of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, lift, on_targets, refused
from tests.frontend.net import Net, save

WIDTH, LENGTH = 6, 20


def quantised(folder: Path, kind: QuantType, conv: bool) -> Path:
    net = Net()
    u = net.op("MatMul", net.input(["n", LENGTH, WIDTH]), net.const(RNG.standard_normal((WIDTH, WIDTH))))
    s = net.op("Mul", net.op("CumSum", u, net.const(np.int64(1))), net.const(np.float32(0.1)))
    if conv:
        turned = net.op("Transpose", s, perm=[0, 2, 1])
        mixed = net.op("Conv", turned, net.const(RNG.standard_normal((WIDTH, WIDTH, 3))), pads=[2, 0])
        s = net.op("Transpose", mixed, perm=[0, 2, 1])
    y = net.op("MatMul", net.op("Relu", s), net.const(RNG.standard_normal((WIDTH, WIDTH))))
    path = save(net.model([(y, ["n", LENGTH, WIDTH])], opset=17), folder, "float.onnx")
    quantize_dynamic(
        path, folder / "model.onnx", weight_type=kind, per_channel=kind == QuantType.QInt8, reduce_range=True
    )
    return folder / "model.onnx"


@pytest.mark.parametrize("kind", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("conv", [False, True])
def test_a_scale_of_the_whole_tensor(tmp_path: Path, kind: QuantType, conv: bool) -> None:
    path = quantised(tmp_path, kind, conv)
    refused(path, "DynamicQuantizeLinear", "one scale for all samples", "is not causal", "--drop-rounding")
    model = load_model(path, drop_rounding=True)
    (note,) = [note for note in model.notes if "left out" in note]
    told = float(note.split("off by ")[1].split()[0])
    arrays = {model.inputs[0].name: RNG.standard_normal((2, LENGTH, WIDTH)).astype(np.float32)}
    ((name, expected),) = reference(model, arrays).items()
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(arrays).outputs[name]
        off = float(np.abs(found - expected).max() / np.abs(expected).max())
        assert told / 5 < off < 5 * told < 0.2


@pytest.mark.parametrize(
    "build",
    [
        lambda n, s, u: n.op("FastGelu", s, n.const(RNG.standard_normal(WIDTH)), domain="com.microsoft"),
        lambda n, s, u: n.op("BiasGelu", s, n.const(RNG.standard_normal(WIDTH)), domain="com.microsoft"),
        lambda n, s, u: n.op("QuickGelu", s, domain="com.microsoft", alpha=1.702),
        lambda n, s, u: n.op(
            "SkipLayerNormalization", s, u, n.const(RNG.uniform(0.5, 1, WIDTH)), domain="com.microsoft"
        ),
    ],
)
def test_what_the_optimiser_makes(tmp_path: Path, build: Callable[[Net, str, str], str]) -> None:
    net = Net()
    u = net.op("MatMul", net.input(["n", "l", WIDTH]), net.const(RNG.standard_normal((WIDTH, WIDTH))))
    y = build(net, net.op("CumSum", u, net.const(np.int64(1))), u)
    model = lift(net, y, ["n", "l", WIDTH], tmp_path, (2, 20), (1, 31))
    assert kinds(model) == [LINEAR]
    on_targets(model, 2, 20)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("MultiHeadAttention", "attention mixes all steps"),
        ("GroupNorm", "for graphics cards alone"),
        ("DynamicQuantizeMatMul", "is not causal"),
        ("Nonesuch", "neither the ONNX standard nor this compiler"),
    ],
)
def test_its_other_ops_are_refused_for_what_they_are(tmp_path: Path, kind: str, reason: str) -> None:
    net = Net()
    s = net.op("CumSum", net.input(["n", "l", WIDTH]), net.const(np.int64(1)))
    y = net.op(kind, s, s, s, domain="com.microsoft")
    refused(save(net.model([(y, ["n", "l", WIDTH])]), tmp_path), f"com.microsoft::{kind}", reason)
