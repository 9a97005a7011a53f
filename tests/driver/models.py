"""Small models as exporters write them, and the same models spoilt, made with onnx.helper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model

H, N, CLASSES = 6, 4, 3
OPSET = 20


def _weights(seed: int = 0, *, decay: float = 0.9) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    spread = np.linspace(0.7, 1.0, N) if decay < 1 else np.ones(N)
    return {
        "W_in": rng.standard_normal((2, H)) / 2,
        "A": decay * spread,
        "B": rng.standard_normal((H, N)) / 3,
        "C": rng.standard_normal((N, H)) / 2,
        "D": rng.standard_normal(H) / 2,
        "W_out": rng.standard_normal((H, CLASSES)) / 2,
        "b_out": rng.standard_normal(CLASSES) / 2,
    }


def _float(name: str, *shape: Any) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any]) -> Path:
    shapes = {"axis1": np.array([1], np.int64), "n": np.array([N], np.int64)}
    bodies = [attribute.g for node in nodes for attribute in node.attribute if attribute.name == "body"]
    used = {name for node in (*nodes, *(n for body in bodies for n in body.node)) for name in node.input}
    constants = [numpy_helper.from_array(np.asarray(a, np.float32), name) for name, a in weights.items()]
    constants += [numpy_helper.from_array(a, name) for name, a in shapes.items()]
    graph = helper.make_graph(nodes, "main", inputs, outputs, [c for c in constants if c.name in used])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 10
    save_model(model, path)
    return path


def _scan_body() -> Any:
    nodes = [
        helper.make_node("Mul", ["A", "x"], ["ax"], name="body/Mul"),
        helper.make_node("Add", ["ax", "v"], ["x_next"], name="body/Add"),
        helper.make_node("Identity", ["x_next"], ["x_out"], name="body/Identity"),
    ]
    ins, outs = ("x", "v"), ("x_next", "x_out")
    return helper.make_graph(nodes, "body", [_float(i, "b", N) for i in ins], [_float(o, "b", N) for o in outs])


def scan_model(
    path: Path,
    weights: dict[str, Any] | None = None,
    *,
    length: int | str = "length",
    batch: int | str = "batch",
) -> Path:
    """u (batch, length, 2) -> linear -> Scan over a diagonal recurrence -> C, D -> mean -> logits (batch, 3)."""
    nodes = [
        helper.make_node("MatMul", ["u", "W_in"], ["h"], name="MatMul_in"),
        helper.make_node("MatMul", ["h", "B"], ["v"], name="MatMul_B"),
        helper.make_node("Transpose", ["v"], ["v_time"], perm=[1, 0, 2], name="Transpose_v"),
        helper.make_node("Shape", ["u"], ["batch"], start=0, end=1, name="Shape_b"),
        helper.make_node("Concat", ["batch", "n"], ["x_shape"], axis=0, name="Concat_x"),
        helper.make_node("ConstantOfShape", ["x_shape"], ["x0"], name="Zeros"),
        helper.make_node("Scan", ["x0", "v_time"], ["last", "xs"], num_scan_inputs=1, body=_scan_body(), name="Scan_1"),
        helper.make_node("Transpose", ["xs"], ["x_seq"], perm=[1, 0, 2], name="Transpose_x"),
        helper.make_node("MatMul", ["x_seq", "C"], ["cx"], name="MatMul_C"),
        helper.make_node("Mul", ["h", "D"], ["du"], name="Mul_D"),
        helper.make_node("Add", ["cx", "du"], ["y"], name="Add_y"),
        helper.make_node("Gelu", ["y"], ["g"], name="Gelu_y"),
        helper.make_node("ReduceMean", ["g", "axis1"], ["pooled"], keepdims=0, name="Mean_y"),
        helper.make_node("Gemm", ["pooled", "W_out", "b_out"], ["logits"], name="Gemm_out"),
    ]
    ins, outs = [_float("u", batch, length, 2)], [_float("logits", batch, CLASSES)]
    return _save(path, nodes, ins, outs, weights or _weights())


def step_model(path: Path) -> Path:
    """One step of the same recurrence: (u, x) -> (y, x_next)."""
    nodes = [
        helper.make_node("MatMul", ["u", "W_in"], ["h"], name="MatMul_in"),
        helper.make_node("MatMul", ["h", "B"], ["v"], name="MatMul_B"),
        helper.make_node("Mul", ["A", "x"], ["ax"], name="Mul_A"),
        helper.make_node("Add", ["ax", "v"], ["x_next"], name="Add_x"),
        helper.make_node("MatMul", ["x_next", "C"], ["cx"], name="MatMul_C"),
        helper.make_node("Tanh", ["cx"], ["y"], name="Tanh_y"),
    ]
    ins = [_float("u", "batch", 2), _float("x", "batch", N)]
    return _save(path, nodes, ins, [_float("y", "batch", H), _float("x_next", "batch", N)], _weights(1))


def nan_model(path: Path) -> Path:
    weights = _weights()
    weights["C"][1, 2] = np.nan
    return scan_model(path, weights)


def unstable_model(path: Path) -> Path:
    """A recurrence that grows: |Abar| = 1.02."""
    return scan_model(path, _weights(decay=1.02))


def unsupported_model(path: Path) -> Path:
    """A choice of one step and attention: no state-space systems."""
    nodes = [
        helper.make_node("MatMul", ["u", "W_in"], ["h"], name="MatMul_in"),
        helper.make_node("Hardmax", ["h"], ["s"], axis=1, name="Hardmax_over_time"),
        helper.make_node("MatMul", ["u", "W_in"], ["k"], name="MatMul_k"),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1], name="Transpose_k"),
        helper.make_node("MatMul", ["h", "kt"], ["scores"], name="MatMul_scores"),
        helper.make_node("Softmax", ["scores"], ["attention"], axis=-1, name="Softmax_attention"),
        helper.make_node("MatMul", ["attention", "s"], ["y"], name="MatMul_attend"),
        helper.make_node("ReduceMean", ["y", "axis1"], ["pooled"], keepdims=0, name="Mean_y"),
        helper.make_node("Gemm", ["pooled", "W_out", "b_out"], ["logits"], name="Gemm_out"),
    ]
    ins, outs = [_float("u", "batch", "length", 2)], [_float("logits", "batch", CLASSES)]
    return _save(path, nodes, ins, outs, _weights())


def no_ssm_model(path: Path) -> Path:
    """A dense network without any recurrence."""
    nodes = [
        helper.make_node("Gemm", ["u", "W_in", ""], ["h"], name="Gemm_in"),
        helper.make_node("Relu", ["h"], ["r"], name="Relu_h"),
        helper.make_node("Gemm", ["r", "W_out", "b_out"], ["logits"], name="Gemm_out"),
    ]
    return _save(path, nodes, [_float("u", "batch", 2)], [_float("logits", "batch", CLASSES)], _weights())


def sequences(batch: int = 5, length: int = 12, seed: int = 3) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs of the scan model and of the step model."""
    rng = np.random.default_rng(seed)
    return {"u": rng.standard_normal((batch, length, 2)).astype(np.float32)}
