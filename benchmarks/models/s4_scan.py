"""S4 of Long Range Arena as an ONNX file whose recurrences are `Scan`, both directions, weights at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.models.lra import CLASSES, Model
from benchmarks.models.writer import Writer


def write(m: Model, path: Path, seed: int = 0) -> Path:
    """Batch 1, any length: encoder, blocks, mean over time, decoder."""
    w, h = Writer(seed), m.channels
    x = _add(w, "MatMul", w.input("x", (1, "t", 1)), w.normal(1, h))
    for _ in range(m.layers):
        y = _add(w, "Mul", x, w.normal(h, scale=1.0))  # D
        for backward in (False, True)[: m.directions]:
            y = _add(w, "Add", y, _scan(w, m, x, backward))
        y = _add(w, "Add", _add(w, "MatMul", _add(w, "Gelu", y), w.normal(h, 2 * h)), w.normal(2 * h, scale=0.1))
        value, gate = w.split("Split", [y], 2, axis=-1, num_outputs=2)
        gated = _add(w, "Mul", value, _add(w, "Sigmoid", gate))
        x = _add(w, "Mul", _add(w, "Add", x, gated), w.weight(w.rng.uniform(0.9, 1.1, h)))
    mean = w.add("ReduceMean", [x, w.integers(1)], keepdims=0)
    w.output(_add(w, "MatMul", mean, w.normal(h, CLASSES)), "logits", (1, CLASSES))
    w.save(path)
    return path


def _add(w: Writer, op: str, *operands: str) -> str:
    return w.add(op, operands)


def _scan(w: Writer, m: Model, u: str, backward: bool) -> str:
    """x <- a x + b u, Re(c x) summed over the states; backward it reads before it absorbs a step."""
    h, n = m.channels, m.states
    size, angle = np.exp(-np.exp(w.rng.uniform(-9, -2, (h, n)))), w.rng.uniform(-1.5, 1.5, (h, n))
    zero = w.weight(np.zeros((1, h, n)))
    own = {"ar": size * np.cos(angle), "ai": size * np.sin(angle)}
    own |= {name: w.rng.standard_normal((h, n)) for name in ("br", "bi")}
    own |= {name: w.rng.standard_normal((h, n)) / n for name in ("cr", "ci")}
    held = {name: w.weight(array) for name, array in own.items()}
    read = ("re", "im") if backward else ("re_next", "im_next")
    lines = [
        ("Unsqueeze", ["u", w.integers(2)], "wide"),
        ("Mul", [held["ar"], "re"], "p0"),
        ("Mul", [held["ai"], "im"], "p1"),
        ("Mul", [held["ar"], "im"], "p2"),
        ("Mul", [held["ai"], "re"], "p3"),
        ("Mul", [held["br"], "wide"], "v0"),
        ("Mul", [held["bi"], "wide"], "v1"),
        ("Sub", ["p0", "p1"], "s0"),
        ("Add", ["p2", "p3"], "s1"),
        ("Add", ["s0", "v0"], "re_next"),
        ("Add", ["s1", "v1"], "im_next"),
        ("Mul", [held["cr"], read[0]], "r0"),
        ("Mul", [held["ci"], read[1]], "r1"),
        ("Sub", ["r0", "r1"], "r"),
    ]
    nodes = [helper.make_node(op, operands, [out]) for op, operands, out in lines]
    nodes.append(helper.make_node("ReduceSum", ["r", w.integers(2)], ["y"], keepdims=0))
    state, row = (1, h, n), (1, h)

    def info(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    inputs = [info("re", state), info("im", state), info("u", row)]
    body = helper.make_graph(nodes, "step", inputs, [info("re_next", state), info("im_next", state), info("y", row)])
    axes = {"scan_input_axes": [1], "scan_output_axes": [1]}
    ways = {f"scan_{end}_directions": [int(backward)] for end in ("input", "output")}
    return w.split("Scan", [zero, zero, u], 3, body=body, num_scan_inputs=1, **axes, **ways)[2]
