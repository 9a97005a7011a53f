"""Ops whose meaning somebody else has fixed: held against onnxruntime and against slow obvious loops."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ssmc.ir import Graph, Piece, StreamType, Tensor, interpret
from ssmc.ir.functions import UNARY

ONNX_NAMES = {
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "sqrt": "Sqrt",
    "reciprocal": "Reciprocal",
    "exp": "Exp",
    "log": "Log",
    "sin": "Sin",
    "cos": "Cos",
    "tanh": "Tanh",
    "erf": "Erf",
    "sigmoid": "Sigmoid",
    "relu": "Relu",
    "gelu": "Gelu",
    "softplus": "Softplus",
    "elu": "Elu",
    "selu": "Selu",
    "hardsigmoid": "HardSigmoid",
    "hardswish": "HardSwish",
    "mish": "Mish",
    "softsign": "Softsign",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    **{name: name.capitalize() for name in ("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh")},
}
ATTRIBUTES = {"hardsigmoid": {"alpha": 1 / 6, "beta": 0.5}}
RANGES = {
    **dict.fromkeys(("sqrt", "log"), (0.1, 4.1)),
    **dict.fromkeys(("asin", "acos", "atanh"), (-0.99, 0.99)),
    "acosh": (1.01, 4.1),
    "tan": (-1.5, 1.5),
}


def onnxruntime_node(op_type: str, arrays: list[NDArray[np.float32]], **attributes: object) -> NDArray[np.float32]:
    names = [f"x{i}" for i in range(len(arrays))]
    node = helper.make_node(op_type, names, ["y"], **attributes)
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in zip(names, arrays, strict=True)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, dict(zip(names, arrays, strict=True)))[0]
    return result


def run(op: str, attrs: dict[str, object], *arrays: NDArray[np.float64]) -> NDArray[np.float64]:
    graph = Graph()
    values = [
        graph.add("input", attrs={"name": f"x{i}", "type": StreamType(a.shape[2:]), "axes": ""})
        for i, a in enumerate(arrays)
    ]
    graph.add("output", [graph.add(op, values, attrs)], {"name": "y"})
    return interpret(graph, {f"x{i}": a for i, a in enumerate(arrays)})["y"]


@pytest.mark.parametrize("fn", sorted(ONNX_NAMES))
def test_elementwise_functions(fn: str) -> None:
    x = np.linspace(*RANGES.get(fn, (-4.03, 4.1)), 60).astype(np.float32).reshape(1, 4, 15)
    expected = onnxruntime_node(ONNX_NAMES[fn], [x], **ATTRIBUTES.get(fn, {}))
    np.testing.assert_allclose(run("unary", {"fn": fn}, x.astype(np.float64)), expected, rtol=2e-5, atol=2e-6)


def test_tanh_gelu() -> None:
    x = np.linspace(-4, 4, 60).astype(np.float32).reshape(1, 4, 15)
    expected = onnxruntime_node("Gelu", [x], approximate="tanh")
    np.testing.assert_allclose(run("unary", {"fn": "gelu_tanh"}, x.astype(np.float64)), expected, rtol=2e-5, atol=2e-6)


def test_functions_made_of_others() -> None:
    x = np.linspace(-3, 3, 24).reshape(1, 2, 12)
    for fn, expected in {
        "identity": x,
        "square": x * x,
        "silu": x / (1 + np.exp(-x)),
        "heaviside": 1.0 * (x > 0),
        "heaviside_or_equal": 1.0 * (x >= 0),
    }.items():
        np.testing.assert_allclose(run("unary", {"fn": fn}, x), expected, rtol=1e-12)
    np.testing.assert_allclose(run("unary", {"fn": "rsqrt"}, np.abs(x)), np.abs(x) ** -0.5, rtol=1e-12)


def test_every_function_is_held_against_something() -> None:
    made_of_others = {"identity", "square", "silu", "heaviside", "heaviside_or_equal", "rsqrt", "gelu_tanh"}
    assert set(ONNX_NAMES) | made_of_others == set(UNARY)


def test_norms() -> None:
    rng = np.random.default_rng(0)
    x, scale, shift = rng.normal(size=(2, 5, 8)), rng.normal(size=8), rng.normal(size=8)
    arrays = [a.astype(np.float32) for a in (x, scale, shift)]
    expected = onnxruntime_node("LayerNormalization", arrays, axis=-1, epsilon=1e-3)
    attrs = {"kind": "layer", "epsilon": 1e-3, "scale": Tensor(scale), "shift": Tensor(shift)}
    np.testing.assert_allclose(run("norm", attrs, x), expected, rtol=1e-4, atol=1e-5)

    grouped = x.reshape(10, 8, 1).astype(np.float32)
    expected = onnxruntime_node("GroupNormalization", [grouped, *arrays[1:]], num_groups=2, epsilon=1e-3)
    got = run("norm", {**attrs, "groups": 2}, x)
    np.testing.assert_allclose(got, expected.reshape(2, 5, 8), rtol=1e-4, atol=1e-5)

    by_hand = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3) * scale
    np.testing.assert_allclose(run("norm", {"kind": "rms", "epsilon": 1e-3, "scale": Tensor(scale)}, x), by_hand)


@pytest.mark.parametrize(("log", "op_type"), [(False, "Softmax"), (True, "LogSoftmax")])
def test_softmax(log: bool, op_type: str) -> None:
    x = np.random.default_rng(1).normal(size=(2, 3, 7)) * 5
    expected = onnxruntime_node(op_type, [x.astype(np.float32)], axis=-1)
    np.testing.assert_allclose(run("softmax", {"log": log}, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_fir_is_a_convolution(reverse: bool) -> None:
    rng = np.random.default_rng(2)
    u, kernel = rng.normal(size=(2, 11, 3)), rng.normal(size=(3, 5))
    source = u[:, ::-1] if reverse else u
    expected = np.zeros_like(u)
    for k in range(11):
        for tap in range(min(k + 1, 5)):
            expected[:, k] += kernel[:, tap] * source[:, k - tap]
    expected = expected[:, ::-1] if reverse else expected
    np.testing.assert_allclose(run("fir", {"kernel": Tensor(kernel), "reverse": reverse}, u), expected, atol=1e-12)


def test_recurrence_step_by_step() -> None:
    rng = np.random.default_rng(3)
    a, v = rng.uniform(0, 1, (2, 9, 4)), rng.normal(size=(2, 9, 4))
    x, expected = np.zeros((2, 4)), []
    for k in range(9):
        x = a[:, k] * x + v[:, k]
        expected.append(x)
    np.testing.assert_allclose(run("recurrence", {}, a, v), np.stack(expected, 1), atol=1e-12)


def test_what_no_piece_covers_is_zero() -> None:
    rng = np.random.default_rng(4)
    x, weight = rng.normal(size=(2, 3, 6)), rng.normal(size=(6, 5))
    pieces = (Piece(0, 4, 0, 5), Piece(4, 6, 0, 3), Piece(4, 6, 3, 5))
    whole = run("tile.matmul", {"weight": Tensor(weight), "pieces": pieces}, x)
    np.testing.assert_allclose(whole, x @ weight, atol=1e-12)
    part = run("tile.matmul", {"weight": Tensor(weight), "pieces": pieces[:1]}, x)
    np.testing.assert_allclose(part, x[..., :4] @ weight[:4], atol=1e-12)
