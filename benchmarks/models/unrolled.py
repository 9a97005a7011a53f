"""Recurrences unrolled step by step, in the patterns of the TorchScript exporter and of the dynamo exporter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper

from benchmarks.models.writer import Writer

BATCH = 2


def write_complex(path: Path, *, steps: int, channels: int = 32, states: int = 16, layers: int = 2) -> None:
    """S5: complex diagonal states as real and imaginary halves, dense B and C, as the TorchScript exporter writes it.

    15 ops and 9 Constant nodes a step and layer; the state starts from a constant.
    """
    writer = Writer(seed=5)
    x = writer.input("x", [BATCH, steps, channels])
    for _ in range(layers):
        decay = 0.95 * np.exp(1j * writer.rng.uniform(0, np.pi, states))
        ar, ai = writer.weight(decay.real), writer.weight(decay.imag)
        b, c = writer.normal(channels, 2 * states), writer.normal(2 * states, channels)
        d = writer.normal(channels, scale=1.0)
        state, rows = writer.weight(np.zeros((BATCH, 2 * states))), []
        for step in range(steps):
            u = writer.add("Gather", [x, writer.constant(np.array(step))], axis=1)
            moved = state if step == 0 else _rotated(writer, state, ar, ai, states)
            state = writer.add("Add", [moved, writer.add("MatMul", [u, b])])
            y = writer.add("Add", [writer.add("MatMul", [state, c]), writer.add("Mul", [d, u])])
            rows.append(writer.add("Unsqueeze", [y, writer.constant(np.array([1]))]))
        y = writer.add("Concat", rows, axis=1)
        x = writer.add("Add", [x, writer.add("Mul", [y, writer.add("Sigmoid", [y])])])
    writer.output(x, "y", [BATCH, steps, channels])
    writer.save(path)


def _rotated(writer: Writer, state: str, ar: str, ai: str, states: int) -> str:
    """The complex state times its decay."""

    def half(start: int, end: int) -> str:
        axis, first, last, step = (writer.constant(np.array([n])) for n in (1, start, end, 1))
        return writer.add("Slice", [state, first, last, axis, step])

    def product(a: str, b: str) -> str:
        return writer.add("Mul", [a, b])

    re, im = half(0, states), half(states, np.iinfo(np.int64).max)
    real = writer.add("Sub", [product(ar, re), product(ai, im)])
    imag = writer.add("Add", [product(ar, im), product(ai, re)])
    return writer.add("Concat", [real, imag], axis=-1)


def write_real(path: Path, *, steps: int, channels: int = 16, states: int = 8, layers: int = 2) -> None:
    """S4D-Real: real decays for each channel and state, as the dynamo exporter writes it, folded and shared.

    7 ops a step and layer; the batch is dynamic, and zeros as large as it start the state.
    """
    writer = Writer(seed=6)
    x = writer.input("x", ["batch", steps, channels])
    shape = writer.add("Shape", [x], start=0, end=1)
    axis = writer.integers(-1)
    for _ in range(layers):
        decay = writer.weight(writer.rng.uniform(0.7, 0.99, (channels, states)))
        b, c = writer.normal(channels, states, scale=1.0), writer.normal(channels, states, scale=states**-0.5)
        d = writer.normal(channels, scale=1.0)
        sizes = writer.add("Concat", [shape, writer.integers(channels), writer.integers(states)], axis=0)
        zero = helper.make_tensor("value", 1, [1], [0.0])
        state, rows = writer.add("ConstantOfShape", [sizes], value=zero), []
        for step in range(steps):
            u = writer.add("Gather", [x, writer.scalar(step)], axis=1)
            driven = writer.add("Mul", [b, writer.add("Unsqueeze", [u, axis])])
            state = writer.add("Add", [writer.add("Mul", [decay, state]), driven])
            y = writer.add("ReduceSum", [writer.add("Mul", [c, state]), axis], keepdims=0)
            y = writer.add("Add", [y, writer.add("Mul", [d, u])])
            rows.append(writer.add("Unsqueeze", [y, writer.integers(1)]))
        y = writer.add("Concat", rows, axis=1)
        x = writer.add("Add", [x, writer.add("Mul", [y, writer.add("Sigmoid", [y])])])
    writer.output(x, "y", ["batch", steps, channels])
    writer.save(path)
