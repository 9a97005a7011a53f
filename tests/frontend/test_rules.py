"""Every translation rule: one node on a stream, in any order of axes, is what onnxruntime says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.frontend import Model, load_model
from ssmc.frontend.findings import Refusal
from ssmc.frontend.proofs.proof import run_graph
from ssmc.frontend.rules.table import RULES
from tests.frontend.net import Net, save

FEATURES = 6
rng = np.random.default_rng(2)
Build = Callable[[Net, str], str]


def weight(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


def one(kind: str, **attrs: object) -> Build:
    return lambda net, x: net.op(kind, x, **attrs)


def two(kind: str, *arrays: np.ndarray, first: bool = False, **attrs: object) -> Build:
    def build(net: Net, x: str) -> str:
        others = [net.const(a) for a in arrays]
        return net.op(kind, *([*others, x] if first else [x, *others]), **attrs)

    return build


def fused(kind: str, *arrays: np.ndarray, **attrs: object) -> Callable[..., str]:
    """An op of com.microsoft on streams and weights."""
    return lambda net, *x: net.op(kind, *x, *(net.const(a) for a in arrays), domain="com.microsoft", **attrs)


def norm(kind: str, **attrs: object) -> Build:
    return lambda net, x: net.op(kind, x, net.const(weight(FEATURES)), net.const(weight(FEATURES)), **attrs)


def channels_first(build: Build) -> Build:
    """The node on (batch, features, time)."""

    def whole(net: Net, x: str) -> str:
        return net.op("Transpose", build(net, net.op("Transpose", x, perm=[0, 2, 1])), perm=[0, 2, 1])

    return whole


def batch_norm(net: Net, x: str) -> str:
    parameters = [net.const(weight(FEATURES)) for _ in range(3)] + [net.const(np.abs(weight(FEATURES)) + 0.1)]
    return net.op("BatchNormalization", x, *parameters)


def quantized(net: Net, x: str) -> str:
    scale, zero = net.const(np.asarray(0.013)), net.const(np.asarray(3, np.int8))
    return net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero), scale, zero)


def attention_within_features(net: Net, x: str) -> str:
    """A product of two streams over their features: (2, 3) with (3, 2)."""
    a = net.op("Reshape", x, net.ints(0, 0, 2, 3))
    b = net.op("Transpose", a, perm=[0, 1, 3, 2])
    return net.op("Reshape", net.op("MatMul", a, b), net.ints(0, 0, 4))


def pooled(build: Build) -> Build:
    return lambda net, x: net.op("Unsqueeze", build(net, x), net.ints(1))


SIMPLE = [
    "Neg",
    "Abs",
    "Sign",
    "Exp",
    "Sin",
    "Cos",
    "Tanh",
    "Erf",
    "Sigmoid",
    "Relu",
    "Softplus",
    "Softsign",
    "HardSwish",
    "Floor",
    "Ceil",
    "Round",
    "Gelu",
    "LeakyRelu",
    "Elu",
    "Selu",
    "HardSigmoid",
    "Mish",
    "Identity",
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "Softmax",
    "LogSoftmax",
]

CASES: dict[str, Build] = {
    **{kind: one(kind) for kind in SIMPLE if not kind.startswith("Reduce")},
    "Gelu tanh": one("Gelu", approximate="tanh"),
    "Elu 0.5": one("Elu", alpha=0.5),
    **{
        f"{kind} constant": two(kind, weight(FEATURES))
        for kind in ["Add", "Sub", "Mul", "Div", "Max", "Min", "Greater", "LessOrEqual"]
    },
    **{f"constant {kind}": two(kind, np.abs(weight(1, FEATURES)), first=True) for kind in ["Sub", "Div", "Less"]},
    "Pow 2": two("Pow", np.asarray(2.0)),
    "Pow 3": two("Pow", np.asarray(3.0)),
    "PRelu": two("PRelu", weight(FEATURES)),
    "Clip": two("Clip", np.asarray(-0.4), np.asarray(0.4)),
    "Where": lambda net, x: net.op(
        "Where", net.op("Greater", x, net.const(np.asarray(0.1))), x, net.const(weight(FEATURES))
    ),
    "Not": lambda net, x: net.op("Cast", net.op("Not", net.op("Cast", net.op("Relu", x), to=9)), to=1),
    "Cast to integers": lambda net, x: net.op(
        "Cast", net.op("Cast", net.op("Mul", x, net.const(np.asarray(5.0))), to=7), to=1
    ),
    "MatMul": two("MatMul", weight(FEATURES, 4)),
    "MatMul from the left": channels_first(two("MatMul", weight(4, FEATURES), first=True)),
    "MatMul of two streams": attention_within_features,
    "Einsum": two("Einsum", weight(FEATURES, 3), equation="btf,fo->bto"),
    "Einsum batched": lambda net, x: net.op(
        "Einsum", net.op("Reshape", x, net.ints(0, 0, 2, 3)), net.const(weight(2, 3, 4)), equation="bthi,hio->btho"
    ),
    "Conv of one tap": channels_first(two("Conv", weight(4, FEATURES, 1), weight(4))),
    "Conv of one tap in groups": channels_first(two("Conv", weight(4, FEATURES // 2, 1), group=2)),
    "LayerNormalization": norm("LayerNormalization"),
    "BatchNormalization": channels_first(batch_norm),
    "quantised": quantized,
    "Transpose": lambda net, x: net.op("Transpose", net.op("Transpose", x, perm=[2, 1, 0]), perm=[2, 1, 0]),
    "Reshape": lambda net, x: net.op("Reshape", net.op("Reshape", x, net.ints(0, 0, 2, 3)), net.ints(0, 0, -1)),
    "Transpose of features": lambda net, x: net.op(
        "Reshape",
        net.op("Transpose", net.op("Reshape", x, net.ints(0, 0, 2, 3)), perm=[0, 3, 1, 2]),
        net.ints(0, 3, -1, 2),
    ),
    "Unsqueeze": lambda net, x: net.op("Squeeze", net.op("Unsqueeze", x, net.ints(1, -1)), net.ints(1, -1)),
    "Concat": lambda net, x: net.op("Concat", x, net.op("Neg", x), x, axis=-1),
    "Split": lambda net, x: net.op("Mul", *net.op("Split", x, axis=-1, outputs=2, num_outputs=2)),
    "Slice": lambda net, x: net.op("Slice", x, net.ints(5), net.ints(-100), net.ints(2), net.ints(-2)),
    "Gather": lambda net, x: net.op("Gather", x, net.ints(3, 0, -1), axis=2),
    "Gather one": lambda net, x: net.op("Unsqueeze", net.op("Gather", x, net.const(np.int64(2)), axis=2), net.ints(2)),
    "Expand": lambda net, x: net.op(
        "Expand", net.op("Slice", x, net.ints(0), net.ints(1), net.ints(2)), net.ints(1, 1, 4)
    ),
    "Tile": lambda net, x: net.op("Tile", x, net.ints(1, 1, 2)),
    "Pad": lambda net, x: net.op("Pad", x, net.ints(0, 0, 1, 0, 0, 2), net.const(np.asarray(0.5))),
    "ReduceMean": lambda net, x: net.op("ReduceMean", x, net.ints(2)),
    "ReduceL2": lambda net, x: net.op("ReduceL2", x, net.ints(-1)),
    "ReduceMax": lambda net, x: net.op("ReduceMax", x, net.ints(2)),
    "backwards": lambda net, x: net.op("Slice", x, net.ints(-1), net.ints(-(1 << 62)), net.ints(1), net.ints(-1)),
    "every third step": lambda net, x: net.op("Slice", x, net.ints(0), net.ints(1 << 40), net.ints(1), net.ints(3)),
    "mean over time": pooled(lambda net, x: net.op("ReduceMean", x, net.ints(1), keepdims=0)),
    "sum over time": pooled(lambda net, x: net.op("ReduceSum", x, net.ints(1), keepdims=0)),
    "maximum over time": pooled(lambda net, x: net.op("ReduceMax", x, net.ints(1), keepdims=0)),
    "last step": pooled(lambda net, x: net.op("Gather", x, net.const(np.int64(-1)), axis=1)),
    "first step": pooled(lambda net, x: net.op("Gather", x, net.const(np.int64(0)), axis=1)),
    "GlobalAveragePool": lambda net, x: net.op("GlobalAveragePool", net.op("Transpose", x, perm=[0, 2, 1])),
    "Flatten": pooled(lambda net, x: net.op("Flatten", net.op("ReduceMean", x, net.ints(1)))),
    "If of a constant": lambda net, x: net.op(
        "If", net.const(np.asarray(False)), then_branch=_branch(x, "Neg"), else_branch=_branch(x, "Tanh")
    ),
    "sequence value meets stream": pooled(
        lambda net, x: net.op(
            "ReduceMean",
            net.op("Sub", net.op("Neg", x), net.op("ReduceMean", x, net.ints(1))),
            net.ints(1),
            keepdims=0,
        )
    ),
    # what onnxruntime makes of a model that it optimises
    "FusedMatMul": fused("FusedMatMul", weight(4, FEATURES), transB=1, alpha=0.5),
    "FusedConv": channels_first(fused("FusedConv", weight(4, FEATURES, 1), weight(4), activation="Relu")),
    "FusedConv Clip": channels_first(
        fused("FusedConv", weight(4, FEATURES, 1), activation="Clip", activation_params=[-0.4, 0.7])
    ),
    "BiasGelu": fused("BiasGelu", weight(FEATURES)),
    "FastGelu": fused("FastGelu", weight(FEATURES)),
    "FastGelu without a bias": fused("FastGelu"),
    "QuickGelu": fused("QuickGelu", alpha=1.3),
    "SkipLayerNormalization": lambda net, x: fused("SkipLayerNormalization", *(weight(FEATURES) for _ in range(3)))(
        net, x, net.op("Neg", net.op("Relu", x))
    ),
    "SkipSimplifiedLayerNormalization": lambda net, x: fused("SkipSimplifiedLayerNormalization", weight(FEATURES))(
        net, x, net.op("Exp", x)
    ),
}


def _branch(x: str, kind: str):  # type: ignore[no-untyped-def]
    net = Net()
    return net.subgraph([(net.op(kind, x), None)])


def refused(model: Model) -> list[Refusal]:
    """What could not be translated; that there is no system in these models is left out."""
    return [refusal for refusal in model.unsupported if refusal.op != "model"]


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str, tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", "t", FEATURES])
    y = net.op("Cast", CASES[name](net, x), to=TensorProto.FLOAT)  # what comparisons give is boolean
    path = save(net.model([(y, ["b", "u", "o"])]), tmp_path)
    model = load_model(path, strict=False)
    assert not refused(model)
    assert model.proofs and all(proof.passed for proof in model.proofs)
    assert {port.axes for port in model.inputs} == {"btf"}
    assert (
        max(p.error for p in model.proofs if p.against != "onnxruntime") < 1e-7
    )  # constants of the standard are float32


def test_positions_added(tmp_path: Path) -> None:
    """A table over time (fixed length) is looked up by a counter."""
    net = Net()
    x = net.input(["b", 9, 4])
    y = net.op("Tanh", net.op("Add", x, net.const(weight(9, 4))))
    model = load_model(save(net.model([(y, ["b", 9, 4])]), tmp_path), strict=False)
    assert not refused(model) and all(proof.passed for proof in model.proofs)


def test_embedding(tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", "t"], 7)
    y = net.op("MatMul", net.op("Gather", net.const(weight(9, 4)), x), net.const(weight(4, 3)))
    model = load_model(save(net.model([(y, ["b", "t", 3])]), tmp_path), strict=False)
    assert not refused(model) and all(proof.passed for proof in model.proofs)
    assert model.inputs[0].axes == "bt" and model.inputs[0].type.element == "index"


def test_spelled_out_activations_get_their_names(tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", "t", FEATURES])
    erf = net.op("Erf", net.op("Div", x, net.const(np.sqrt(2.0))))
    gelu = net.op("Mul", net.op("Mul", x, net.op("Add", erf, net.const(np.ones(())))), net.const(np.asarray(0.5)))
    silu = net.op("Mul", gelu, net.op("Sigmoid", gelu))
    gate = net.op("Mul", net.op("Neg", x), net.op("Sigmoid", silu))
    model = load_model(save(net.model([(gate, ["b", "t", FEATURES])]), tmp_path), strict=False)
    assert set(model.other_ops) == {"unary neg", "unary gelu", "unary silu", "gate sigmoid"}


def test_a_limit_far_out_is_no_activation(tmp_path: Path) -> None:
    """min(max(x, 0), 255) is no relu, though it looks like one near zero."""
    net = Net()
    x = net.input(["b", "t", FEATURES])
    y = net.op("Min", net.op("Max", x, net.const(np.zeros(()))), net.const(np.asarray(255.0)))
    model = load_model(save(net.model([(y, ["b", "t", FEATURES])]), tmp_path), strict=False)
    assert set(model.other_ops) == {"binary max", "binary min"}


def test_a_gate_that_is_always_half_open(tmp_path: Path) -> None:
    net = Net()
    y = net.op("Swish", net.input(["b", "t", FEATURES]), alpha=0.0)
    model = load_model(save(net.model([(y, ["b", "t", FEATURES])], opset=24), tmp_path))
    x = np.random.default_rng(0).standard_normal((2, 5, FEATURES))
    (found,) = run_graph(model.graph, model.inputs, model.outputs, {model.inputs[0].name: x}).values()
    np.testing.assert_allclose(found, x / 2)


def test_every_rule_has_a_case() -> None:
    """Rules that are aliases of others, or that whole models test, are named here."""
    elsewhere = {
        "Sqrt",
        "Log",
        "Reciprocal",
        "Sum",
        "And",
        "Or",
        "Equal",
        "GreaterOrEqual",
        "Dropout",
        "CastLike",
        "ReverseSequence",
        "RNN",
        "Swish",
        "SwiGLU",
        "Gemm",
        "ReduceMin",
        "ReduceProd",
        "ReduceSumSquare",
        "ReduceL1",
        "Mean",
        "GlobalMaxPool",
        "AveragePool",  # event pooling, in test_unseen.py
        "MaxPool",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "Shape",
        "Size",
        "LinearAttention",
        "CausalConvWithState",
        *("ScatterElements", "ScatterND"),  # in test_writes.py
        "RotaryEmbedding",
        "MatMulNBits",  # in test_rounding.py
        *("ArgMax", "ArgMin", "ReduceLogSum", "ReduceLogSumExp", "CumSum", "OneHot"),  # in test_surroundings.py
        *("Celu", "ThresholdedRelu", "Shrink", "Mod", "Xor"),  # in test_surroundings.py
        *("Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"),  # in test_surroundings.py
        *("TopK", "GatherElements", "CumProd", "Compress", "BitShift", "LpPool"),  # in test_selection.py
        *("SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceAt"),  # in test_selection.py
        *("SequenceLength", "SplitToSequence"),  # in test_selection.py
        *("Optional", "OptionalGetElement", "OptionalHasElement", "GlobalLpPool"),  # in test_selection.py
        *("DepthToSpace", "SpaceToDepth"),  # in test_images.py
        "STFT",  # in test_frames.py
        "GatherND",  # in test_places.py and test_rings.py
        *("ConvTranspose", "Resize", "Upsample"),  # in test_rates.py
        *("Hardmax", "LpNormalization", "MeanVarianceNormalization", "IsNaN", "IsInf"),  # in test_surroundings.py
    }
    used: set[str] = set()
    for build in CASES.values():
        net = Net()
        build(net, net.input(["b", "t", FEATURES]))
        used |= {node.op_type for node in net.nodes}
    assert set(RULES) - used - elsewhere == set()
