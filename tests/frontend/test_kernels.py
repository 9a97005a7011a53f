"""The short numpy rules of frequent ONNX ops against the reference implementation of the standard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.defs import onnx_opset_version
from onnx.reference import ReferenceEvaluator

from ssmc.frontend.source.kernels import KERNELS
from tests.frontend.net import Net

rng = np.random.default_rng(0)
X = rng.standard_normal((2, 6, 5))
POSITIVE = np.abs(X) + 0.1
W = rng.standard_normal((5, 4))
WRITES: list[dict[str, Any]] = [{}, *({"reduction": kind} for kind in ("add", "mul", "min", "max"))]

CASES: list[tuple[str, list[Any], dict[str, Any], int]] = [
    *(
        (kind, [X], {}, 1)
        for kind in [
            "Neg",
            "Abs",
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
            "Mish",
        ]
    ),
    *((kind, [POSITIVE], {}, 1) for kind in ["Sqrt", "Log", "Reciprocal", "Floor", "Ceil", "Round"]),
    *(
        (kind, [X, X[:, :1]], {}, 1)
        for kind in ["Add", "Sub", "Mul", "Div", "Max", "Min", "Greater", "LessOrEqual", "Equal"]
    ),
    ("Pow", [POSITIVE, np.asarray(1.5)], {}, 1),
    ("Where", [X > 0, X, -X], {}, 1),
    ("Clip", [X, np.asarray(-0.5), np.asarray(0.5)], {}, 1),
    ("Gelu", [X], {}, 1),
    ("Gelu", [X], {"approximate": "tanh"}, 1),
    ("Expand", [X[:, :1], np.asarray([2, 6, 5])], {}, 1),
    ("Reshape", [X, np.asarray([0, -1])], {}, 1),
    ("Flatten", [X], {"axis": 2}, 1),
    ("Transpose", [X], {"perm": [2, 0, 1]}, 1),
    ("Unsqueeze", [X, np.asarray([0, -1])], {}, 1),
    ("Squeeze", [X[:, :1], np.asarray([1])], {}, 1),
    ("Concat", [X, X], {"axis": -1}, 1),
    ("Slice", [X, np.asarray([5]), np.asarray([-100]), np.asarray([1]), np.asarray([-2])], {}, 1),
    ("Slice", [X, np.asarray([1, -4]), np.asarray([9, -1]), np.asarray([1, 2])], {}, 1),
    *(
        ("ScatterElements", [X, rng.integers(-4, 4, (2, 3, 5)), W[0, 0] * X[:, :3]], {"axis": 1, **reduction}, 1)
        for reduction in WRITES
    ),
    *(
        (
            "ScatterND",
            [X, rng.integers(-2, 2, (3, 4, width)), rng.standard_normal((3, 4, *X.shape[width:]))],
            reduction,
            1,
        )
        for reduction in WRITES
        for width in (1, 2, 3)
    ),
    ("Split", [X, np.asarray([2, 1, 3])], {"axis": 1}, 3),
    ("Split", [X], {"axis": 2, "num_outputs": 2}, 2),
    ("Gather", [X, np.asarray([[0, -1]])], {"axis": 1}, 1),
    ("Pad", [X, np.asarray([0, 2, 0, 0, 3, 1]), np.asarray(0.5)], {}, 1),
    ("Pad", [X, np.asarray([1, 2]), np.asarray(0.0), np.asarray([1])], {}, 1),
    ("MatMul", [X, W], {}, 1),
    ("DFT", [X[..., None], np.asarray(8), np.asarray(1)], {"onesided": 1}, 1),
    ("DFT", [X[..., None], np.asarray(5), np.asarray(1)], {}, 1),
    ("DFT", [X[..., :2], np.asarray(6), np.asarray(1)], {"inverse": 1}, 1),
    ("DFT", [X[..., :2], np.asarray(11), np.asarray(1)], {"inverse": 1, "onesided": 1}, 1),
    ("DFT", [X[..., :2], np.asarray(10), np.asarray(-2)], {"inverse": 1, "onesided": 1}, 1),
    ("Gemm", [X[0], W, W[:1]], {"alpha": 0.5, "beta": 2.0}, 1),
    ("Gemm", [X[0].T, W.T, np.ones(4)], {"transA": 1, "transB": 1}, 1),
    ("Einsum", [X, W], {"equation": "btf,fo->bot"}, 1),
    ("Conv", [X, rng.standard_normal((4, 6, 3)), np.ones(4)], {"pads": [2, 0]}, 1),
    ("Conv", [X, rng.standard_normal((6, 1, 2))], {"group": 6, "strides": [2], "dilations": [2]}, 1),
    ("Conv", [rng.standard_normal((1, 2, 60)), rng.standard_normal((2, 1, 40))], {"group": 2, "pads": [39, 0]}, 1),
    *(
        (kind, [X, np.asarray([1])], {"keepdims": 0}, 1)
        for kind in ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"]
    ),
    ("ReduceSum", [X], {"noop_with_empty_axes": 1}, 1),
    ("LayerNormalization", [X, np.ones(5), np.zeros(5)], {"axis": -1}, 1),
    ("BatchNormalization", [X, *(np.abs(rng.standard_normal((4, 6))))], {}, 1),
    ("QuantizeLinear", [X, np.asarray(0.05), np.asarray(3, np.uint8)], {"output_dtype": 2}, 1),
    (
        "DequantizeLinear",
        [np.arange(12, dtype=np.int8).reshape(3, 4), np.ones(4), np.zeros(4, np.int8)],
        {"axis": 1},
        1,
    ),
    ("ConstantOfShape", [np.asarray([2, 3])], {}, 1),
    ("Cast", [X], {"to": 7}, 1),
]


@pytest.mark.parametrize("kind,operands,attrs,results", CASES, ids=[f"{c[0]}{i}" for i, c in enumerate(CASES)])
def test_kernel(kind: str, operands: list[Any], attrs: dict[str, Any], results: int) -> None:
    net = Net()
    names = [f"x{i}" for i in range(len(operands))]
    outputs = [f"y{i}" for i in range(results)]
    node = helper.make_node(kind, names, outputs, **attrs)
    dtypes = [helper.np_dtype_to_tensor_dtype(np.asarray(a).dtype) for a in operands]
    infos = [helper.make_tensor_value_info(n, t, np.shape(a)) for n, t, a in zip(names, dtypes, operands, strict=True)]
    graph = helper.make_graph([node], "one", infos, [helper.make_tensor_value_info(o, 1, None) for o in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    expected = ReferenceEvaluator(model).run(None, dict(zip(names, operands, strict=True)))
    found = KERNELS[kind](operands, attrs, results)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert np.shape(mine) == np.shape(theirs)
        np.testing.assert_allclose(np.asarray(mine, np.float64), np.asarray(theirs, np.float64), rtol=1e-6, atol=1e-6)
    assert net.nodes == []


def test_standard_attention_against_the_standard() -> None:
    q, k, v = (rng.standard_normal((2, 7, 6)) for _ in range(3))
    decay = -np.abs(rng.standard_normal((2, 7, 2)))
    attrs = {"kv_num_heads": 2, "q_num_heads": 2, "update_rule": "gated", "scale": 0.5}
    node = helper.make_node("LinearAttention", ["q", "k", "v", "", "g"], ["y", "s"], **attrs)
    infos = [helper.make_tensor_value_info(n, 11, None) for n in "qkvg"]
    graph = helper.make_graph([node], "one", infos, [helper.make_tensor_value_info(n, 11, None) for n in "ys"])
    if onnx_opset_version() < 27:
        pytest.skip("this onnx does not know opset 27")
    evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 27)]))
    expected = evaluator.run(None, {"q": q, "k": k, "v": v, "g": decay})
    found = KERNELS["LinearAttention"]([q, k, v, None, decay], attrs, 2)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)  # which computes it in float32


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
@pytest.mark.parametrize("past", [False, True])
def test_standard_attention_head_by_head(rule: str, past: bool) -> None:
    """Its formula, one head and one step at a time; two heads of queries share each of keys and values."""
    batch, steps, heads, shared, keys, values = 2, 5, 2, 2, 3, 4
    q = rng.standard_normal((batch, steps, heads * shared * keys))
    k, v = (rng.standard_normal((batch, steps, heads * n)) for n in (keys, values))
    decay, beta = -rng.uniform(0.1, 2.0, (batch, steps, heads)), rng.uniform(0.2, 0.9, (batch, steps, heads))
    start = rng.standard_normal((batch, heads, keys, values)) if past else np.zeros((batch, heads, keys, values))
    attrs = {"kv_num_heads": heads, "q_num_heads": heads * shared, "update_rule": rule.encode(), "scale": 0.3}
    operands = [q, k, v, start if past else None, decay if "gated" in rule else None, beta if "delta" in rule else None]
    found, state = KERNELS["LinearAttention"](operands, attrs, 2)
    for b, h in np.ndindex(batch, heads):
        s = start[b, h].copy()
        for t in range(steps):
            key, value = k[b, t, h * keys : (h + 1) * keys], v[b, t, h * values : (h + 1) * values]
            s *= np.exp(decay[b, t, h]) if "gated" in rule else 1.0
            s += np.outer(key, beta[b, t, h] * (value - s.T @ key) if "delta" in rule else value)
            for reader in range(h * shared, (h + 1) * shared):
                y = 0.3 * q[b, t, reader * keys : (reader + 1) * keys] @ s
                np.testing.assert_allclose(found[b, t, reader * values : (reader + 1) * values], y, rtol=1e-10)
        np.testing.assert_allclose(state[b, h], s, rtol=1e-10)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("kind", "operands", "attributes"),
    [
        ("ReduceMean", [np.asarray([2])], {"keepdims": 0}),
        ("GlobalAveragePool", [], {}),
        ("GroupNormalization", [np.ones(6), np.ones(6)], {"num_groups": 2}),
        ("MeanVarianceNormalization", [], {"axes": [0, 2]}),
    ],
)
def test_means_of_nothing_are_no_warning(kind: str, operands: list[Any], attributes: dict[str, Any]) -> None:
    """As in windows that a short sequence does not fill."""
    (found,) = KERNELS[kind]([X[:, :, :0], *operands], attributes, 1)
    assert np.isnan(found).all() and len(found) == 2
