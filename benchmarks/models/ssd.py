"""Mamba-2 (arXiv 2405.21060): as a sequence model whose recurrence is the block decomposition SSD of its listing 1, and
as one step with its states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from benchmarks.models.writer import Writer

VOCABULARY, WIDTH, LAYERS = 50288, 768, 24  # mamba2-130m: 129 million parameters, the embedding is the decoder too
STATES, TAPS, EXPAND, HEAD = 128, 4, 2, 64


def write_chunked(
    path: Path, *, length: int, chunk: int, width: int = WIDTH, layers: int = LAYERS, vocabulary: int = VOCABULARY
) -> int:
    """Tokens to logits at one length, a multiple of the chunk; returns the bytes of the weights."""
    writer = Writer(seed=11)
    add = writer.add
    tokens = writer.input("tokens", ["batch", length], TensorProto.INT64)
    table = writer.normal(vocabulary, width, scale=0.02)
    x = add("Gather", [table, tokens], axis=0)
    for _ in range(layers):
        x = add("Add", [x, _mixed(writer, _norm(writer, x, width), width, length, chunk)])
    logits = add("MatMul", [_norm(writer, x, width), add("Transpose", [table], perm=[1, 0])])
    writer.output(logits, "logits", ["batch", length, vocabulary])
    size = sum(len(tensor.raw_data) for tensor in writer.initializers)
    writer.save(path)
    return size


def _norm(writer: Writer, x: str, width: int) -> str:
    mean = writer.add("ReduceMean", [writer.add("Mul", [x, x]), writer.integers(-1)], keepdims=1)
    root = writer.add("Sqrt", [writer.add("Add", [mean, writer.weight(1e-5)])])
    return writer.add("Mul", [writer.add("Div", [x, root]), writer.weight(np.ones(width))])


def _silu(writer: Writer, x: str) -> str:
    return writer.add("Mul", [x, writer.add("Sigmoid", [x])])


def write_step(path: Path, *, width: int = WIDTH, layers: int = LAYERS, vocabulary: int = VOCABULARY) -> int:
    """One step: a token, the states and the last inputs of all filters in, logits and what they become out."""
    writer = Writer(seed=13)
    add, inner = writer.add, EXPAND * width
    heads, mixed = inner // HEAD, inner + 2 * STATES
    tokens = writer.input("token", ["batch"], TensorProto.INT64)
    table = writer.normal(vocabulary, width, scale=0.02)
    x = add("Gather", [table, tokens], axis=0)
    carried: list[tuple[str, str, list[int | str]]] = []
    for layer in range(layers):
        sizes: tuple[list[int | str], list[int | str]] = ["batch", heads, HEAD, STATES], ["batch", mixed, TAPS - 1]
        state, cache = writer.input(f"h{layer}", sizes[0]), writer.input(f"c{layer}", sizes[1])
        gate, stream, dt = _projected(writer, _norm(writer, x, width), width)
        window = add("Concat", [cache, add("Unsqueeze", [stream, writer.integers(-1)])], axis=2)
        filtered = add("Conv", [window, *_taps(writer, mixed)], group=mixed, kernel_shape=[TAPS])
        u, b, c = _parts(writer, add("Squeeze", [filtered, writer.integers(-1)]), inner)
        u = add("Reshape", [u, writer.integers(0, heads, HEAD)])
        drive, logs = _selected(writer, u, dt, heads, last=2)
        decay = add("Exp", [add("Unsqueeze", [logs, writer.integers(2, 3)])])
        outer = add(
            "Mul", [add("Unsqueeze", [drive, writer.integers(3)]), add("Unsqueeze", [b, writer.integers(1, 2)])]
        )
        state = add("Add", [add("Mul", [decay, state]), outer])
        y = add("Einsum", [state, c], equation="bhpn,bn->bhp")
        x = add("Add", [x, _left(writer, y, u, gate, width, [0, inner])])
        kept = add("Slice", [window, writer.integers(1), writer.integers(TAPS), writer.integers(2)])
        carried += [(state, f"h{layer}_out", sizes[0]), (kept, f"c{layer}_out", sizes[1])]
    logits = add("MatMul", [_norm(writer, x, width), add("Transpose", [table], perm=[1, 0])])
    writer.output(logits, "logits", ["batch", vocabulary])
    for value, name, dims in carried:
        writer.output(value, name, dims)
    writer.save(path)
    return sum(len(tensor.raw_data) for tensor in writer.initializers)


def _mixed(writer: Writer, x: str, width: int, length: int, chunk: int) -> str:
    """One mixer: projection, short convolution, SSD, the skip, the gated norm, projection."""
    add, inner = writer.add, EXPAND * width
    heads, mixed = inner // HEAD, inner + 2 * STATES
    gate, stream, dt = _projected(writer, x, width)
    turned = add("Transpose", [stream], perm=[0, 2, 1])
    taps = _taps(writer, mixed)
    filtered = add("Conv", [turned, *taps], group=mixed, pads=[TAPS - 1, 0], kernel_shape=[TAPS])
    u, b, c = _parts(writer, add("Transpose", [filtered], perm=[0, 2, 1]), inner)
    u = add("Reshape", [u, writer.integers(0, 0, heads, HEAD)])
    drive, logs = _selected(writer, u, dt, heads, last=3)
    y = _blocks(writer, logs, b, c, drive, length // chunk, chunk, heads)
    return _left(writer, y, u, gate, width, [0, 0, inner])


def _projected(writer: Writer, x: str, width: int) -> list[str]:
    """The gate, what the filter takes, and the step's operand, of one projection."""
    inner = EXPAND * width
    heads, mixed = inner // HEAD, inner + 2 * STATES
    projected = writer.add("MatMul", [x, writer.normal(width, inner + mixed + heads)])
    return writer.split("Split", [projected, writer.integers(inner, mixed, heads)], 3, axis=-1)


def _taps(writer: Writer, mixed: int) -> tuple[str, str]:
    return writer.normal(mixed, 1, TAPS, scale=0.5), writer.normal(mixed, scale=0.1)


def _parts(writer: Writer, filtered: str, inner: int) -> list[str]:
    """u, b, c."""
    return writer.split("Split", [_silu(writer, filtered), writer.integers(inner, STATES, STATES)], 3, axis=-1)


def _selected(writer: Writer, u: str, dt: str, heads: int, last: int) -> tuple[str, str]:
    """What u (..., heads, HEAD) drives the states with, and the logarithms of their decays, a number a head; `last` is
    u's last axis."""
    add = writer.add
    bias = np.log(np.expm1(np.exp(writer.rng.uniform(np.log(1e-3), np.log(1e-1), heads))))
    delta = add("Softplus", [add("Add", [dt, writer.weight(bias)])])
    drive = add("Mul", [u, add("Unsqueeze", [delta, writer.integers(last)])])
    return drive, add("Mul", [delta, writer.weight(-writer.rng.uniform(1, 16, heads))])


def _left(writer: Writer, y: str, u: str, gate: str, width: int, shape: list[int]) -> str:
    """The skip, the gated norm, the projection back."""
    add, inner = writer.add, EXPAND * width
    y = add("Add", [y, add("Mul", [u, writer.weight(np.ones((inner // HEAD, 1)))])])
    y = add("Reshape", [y, writer.integers(*shape)])
    gated = _norm(writer, add("Mul", [y, _silu(writer, gate)]), inner)
    return add("MatMul", [gated, writer.normal(inner, width)])


def _blocks(writer: Writer, logs: str, b: str, c: str, drive: str, count: int, chunk: int, heads: int) -> str:
    """y (batch, time, heads, HEAD) of h <- exp(logs) h + b drive, c h: inside of chunks, and from chunk to chunk."""
    add = writer.add
    b, c = (add("Reshape", [x, writer.integers(0, count, chunk, STATES)]) for x in (b, c))
    drive = add("Reshape", [drive, writer.integers(0, count, chunk, heads, HEAD)])
    logs = add("Transpose", [add("Reshape", [logs, writer.integers(0, count, chunk, heads)])], perm=[0, 3, 1, 2])
    total = add("CumSum", [logs, writer.scalar(-1)])
    scores = add("Einsum", [c, b], equation="bcln,bcsn->bcls")
    inside = add("Mul", [add("Unsqueeze", [scores, writer.integers(1)]), _segments(writer, logs, chunk)])
    y = add("Einsum", [inside, drive], equation="bhcls,bcshp->bclhp")
    if count > 1:
        end = add("Slice", [total, writer.integers(chunk - 1), writer.integers(chunk), writer.integers(3)])
        left = add("Exp", [add("Sub", [end, total])])
        states = add("Einsum", [b, left, drive], equation="bcln,bhcl,bclhp->bchpn")
        padded = add("Pad", [add("Squeeze", [end, writer.integers(3)]), writer.integers(0, 0, 1, 0, 0, 0)])
        states = add("Pad", [states, writer.integers(0, 1, *[0] * 8)])
        between = _segments(writer, padded, count + 1)
        before = add("Einsum", [between, states], equation="bhzc,bchpn->bzhpn")
        before = add("Slice", [before, writer.integers(0), writer.integers(count), writer.integers(1)])
        seen = add("Einsum", [c, before, add("Exp", [total])], equation="bcln,bchpn,bhcl->bclhp")
        y = add("Add", [y, seen])
    return add("Reshape", [y, writer.integers(0, count * chunk, heads, HEAD)])


def _segments(writer: Writer, logs: str, size: int) -> str:
    """exp of the sums of logs (..., size) from after step s to step l, (..., l, s); zero where s comes after l."""
    steps = np.arange(size)

    def mask(array: np.ndarray[Any, Any]) -> str:
        return writer.add("Constant", [], value=numpy_helper.from_array(array))

    tall = writer.add("Unsqueeze", [logs, writer.integers(-1)])
    wide = writer.add("Where", [mask(steps[:, None] <= steps), writer.weight(0.0), tall])
    sums = writer.add("CumSum", [wide, writer.scalar(-2)])
    after = writer.add("Where", [mask(steps[:, None] < steps), writer.weight(-np.inf), sums])
    return writer.add("Exp", [after])
