"""Mamba (arXiv 2312.00752): as a sequence model whose recurrence is a Scan, and as one step with its states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from benchmarks.models.writer import Writer

VOCABULARY, WIDTH, LAYERS = 50280, 768, 24  # mamba-130m: 129 million parameters, the embedding is the decoder too
STATES, TAPS, EXPAND = 16, 4, 2


class _Mamba:
    """The parts that both forms share. Activations are (batch, time, width), or (batch, width) in one step."""

    def __init__(self, width: int) -> None:
        self.writer = Writer(seed=7)
        self.width, self.inner, self.rank = width, EXPAND * width, max(width // 16, 1)

    def norm(self, x: str) -> str:
        add, writer = self.writer.add, self.writer
        square = add("Pow", [x, writer.weight(2.0)])
        mean = add("Add", [add("ReduceMean", [square, writer.integers(-1)], keepdims=1), writer.weight(1e-5)])
        scaled = add("Mul", [x, add("Reciprocal", [add("Sqrt", [mean])])])
        return add("Mul", [scaled, writer.weight(np.ones(self.width))])

    def silu(self, x: str) -> str:
        return self.writer.add("Mul", [x, self.writer.add("Sigmoid", [x])])

    def selection(self, u: str) -> tuple[str, str, str]:
        """(delta, B, C) from the inner stream."""
        add, writer = self.writer.add, self.writer
        sizes = writer.integers(self.rank, STATES, STATES)
        projected = add("MatMul", [u, writer.normal(self.inner, self.rank + 2 * STATES)])
        step, b, c = writer.split("Split", [projected, sizes], 3, axis=-1)
        dt = np.exp(writer.rng.uniform(np.log(1e-3), np.log(1e-1), self.inner))
        bias = writer.weight(np.log(np.expm1(dt)))
        delta = add("Softplus", [add("Add", [add("MatMul", [step, writer.normal(self.rank, self.inner)]), bias])])
        return delta, b, c

    def decay(self) -> str:
        """A = -1 ... -N in every channel (S4D-Real)."""
        return self.writer.weight(np.broadcast_to(-np.arange(1.0, STATES + 1), (self.inner, STATES)))

    def filter(self) -> tuple[str, str]:
        return self.writer.normal(self.inner, 1, TAPS, scale=0.5), self.writer.normal(self.inner, scale=0.1)

    def leave(self, y: str, u: str, gate: str, residual: str) -> str:
        """The skip, the gate, the projection back, the residual."""
        add = self.writer.add
        y = add("Add", [y, add("Mul", [u, self.writer.weight(np.ones(self.inner))])])
        gated = add("Mul", [y, self.silu(gate)])
        return add("Add", [residual, add("MatMul", [gated, self.writer.normal(self.inner, self.width)])])

    def enter(self, x: str) -> tuple[str, str]:
        """(stream, gate) of a layer."""
        wide = self.writer.add("MatMul", [self.norm(x), self.writer.normal(self.width, 2 * self.inner)])
        first, second = self.writer.split("Split", [wide], 2, axis=-1, num_outputs=2)
        return first, second


def write_sequence(
    path: Path,
    *,
    width: int = WIDTH,
    layers: int = LAYERS,
    vocabulary: int = VOCABULARY,
    length: int | str = "time",
    external: bool = False,
) -> int:
    """The sequence model, tokens to logits; returns the bytes of its weights."""
    model = _Mamba(width)
    writer, add = model.writer, model.writer.add
    tokens = writer.input("tokens", ["batch", length], TensorProto.INT64)
    table = writer.normal(vocabulary, width, scale=0.02)
    x = add("Gather", [table, tokens], axis=0)
    for _ in range(layers):
        stream, gate = model.enter(x)
        weight, bias = model.filter()
        padded = add("Transpose", [stream], perm=[0, 2, 1])
        filtered = add("Conv", [padded, weight, bias], group=model.inner, pads=[TAPS - 1, 0], kernel_shape=[TAPS])
        u = model.silu(add("Transpose", [filtered], perm=[0, 2, 1]))
        delta, b, c = model.selection(u)
        y = _scanned(model, u, delta, b, c)
        x = model.leave(y, u, gate, x)
    logits = add("MatMul", [model.norm(x), add("Transpose", [table], perm=[1, 0])])
    writer.output(logits, "logits", ["batch", length, vocabulary])
    size = sum(len(tensor.raw_data) for tensor in writer.initializers)
    writer.save(path, external)
    return size


def _scanned(model: _Mamba, u: str, delta: str, b: str, c: str) -> str:
    """y (batch, time, inner): a Scan over time with the state (batch, inner, N)."""
    writer, add = model.writer, model.writer.add
    last, middle = writer.integers(-1), writer.integers(2)
    rate = add("Unsqueeze", [delta, last])
    decay = add("Exp", [add("Mul", [rate, model.decay()])])
    drive = add("Mul", [add("Mul", [rate, add("Unsqueeze", [b, middle])]), add("Unsqueeze", [u, last])])
    batch = add("Shape", [u], start=0, end=1)
    sizes = add("Concat", [batch, writer.integers(model.inner, STATES)], axis=0)
    zero = add("ConstantOfShape", [sizes], value=helper.make_tensor("value", 1, [1], [0.0]))
    names = ["state", "decay_k", "drive_k", "c_k"]
    nodes = [
        helper.make_node("Mul", ["decay_k", "state"], ["kept"]),
        helper.make_node("Add", ["kept", "drive_k"], ["next"]),
        helper.make_node("Unsqueeze", ["c_k", last], ["column"]),
        helper.make_node("MatMul", ["next", "column"], ["product"]),
        helper.make_node("Squeeze", ["product", last], ["y_k"]),
        helper.make_node("Identity", ["next"], ["state_out"]),
    ]
    states = ("batch", model.inner, STATES)
    dims: tuple[tuple[str | int, ...], ...] = (states, states, states, ("batch", STATES))
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in zip(names, dims, strict=True)]
    outputs = [
        helper.make_tensor_value_info("state_out", TensorProto.FLOAT, states),
        helper.make_tensor_value_info("y_k", TensorProto.FLOAT, ["batch", model.inner]),
    ]
    return writer.split(
        "Scan",
        [zero, decay, drive, c],
        2,
        body=helper.make_graph(nodes, "step", inputs, outputs),
        num_scan_inputs=3,
        scan_input_axes=[1, 1, 1],
        scan_output_axes=[1],
    )[1]


def write_step(path: Path, *, width: int = WIDTH, layers: int = LAYERS, vocabulary: int = VOCABULARY) -> int:
    """One step: a token and the states of all layers in, logits and the next states out."""
    model = _Mamba(width)
    writer, add = model.writer, model.writer.add
    tokens = writer.input("token", ["batch"], TensorProto.INT64)
    table = writer.normal(vocabulary, width, scale=0.02)
    x = add("Gather", [table, tokens], axis=0)
    last, middle = writer.integers(-1), writer.integers(1)
    carried: list[tuple[str, str, list[int | str]]] = []
    for layer in range(layers):
        state = writer.input(f"h{layer}", ["batch", model.inner, STATES])
        cache = writer.input(f"c{layer}", ["batch", model.inner, TAPS - 1])
        stream, gate = model.enter(x)
        window = add("Concat", [cache, add("Unsqueeze", [stream, last])], axis=2)
        weight, bias = model.filter()
        filtered = add("Conv", [window, weight, bias], group=model.inner, kernel_shape=[TAPS])
        u = model.silu(add("Squeeze", [filtered, last]))
        delta, b, c = model.selection(u)
        rate = add("Unsqueeze", [delta, last])
        decay = add("Exp", [add("Mul", [rate, model.decay()])])
        drive = add("Mul", [add("Mul", [rate, add("Unsqueeze", [b, middle])]), add("Unsqueeze", [u, last])])
        state = add("Add", [add("Mul", [decay, state]), drive])
        y = add("Squeeze", [add("MatMul", [state, add("Unsqueeze", [c, last])]), last])
        x = model.leave(y, u, gate, x)
        kept = add("Slice", [window, middle, writer.integers(TAPS), writer.integers(2)])
        carried.append((state, f"h{layer}_out", ["batch", model.inner, STATES]))
        carried.append((kept, f"c{layer}_out", ["batch", model.inner, TAPS - 1]))
    logits = add("MatMul", [model.norm(x), add("Transpose", [table], perm=[1, 0])])
    writer.output(logits, "logits", ["batch", vocabulary])
    for value, name, dims in carried:
        writer.output(value, name, dims)
    writer.save(path)
    return sum(len(tensor.raw_data) for tensor in writer.initializers)
