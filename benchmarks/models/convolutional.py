"""S4D as FFT convolution: the kernel computed in the graph, or a constant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models.writer import Writer

CLASSES = 10


def write_s4d(
    path: Path, *, length: int, channels: int, modes: int, layers: int, frozen: bool = False, features: int = 4
) -> None:
    """Layers of S4D-Lin (`modes` conjugate pairs a channel, steps from 1e-3 to 1e-1) with GELU, GLU, residual and norm.

    With `frozen` the kernel is one constant; else the graph computes it from rates and steps.
    """
    writer = Writer(seed=3)
    x = writer.input("x", ["batch", length, features])
    h = writer.add("MatMul", [x, writer.normal(features, channels)])
    h = writer.add("Transpose", [writer.add("Add", [h, writer.normal(channels, scale=0.1)])], perm=[0, 2, 1])
    for _ in range(layers):
        h = _block(writer, h, length, channels, modes, frozen)
    h = writer.add("ReduceMean", [h, writer.integers(-1)], keepdims=0)
    h = writer.add("Gemm", [h, writer.normal(CLASSES, channels, scale=0.1), writer.normal(CLASSES)], transB=1)
    writer.output(h, "logits", ["batch", CLASSES])
    writer.save(path)


def _block(writer: Writer, h: str, length: int, channels: int, modes: int, frozen: bool) -> str:
    kernel = _frozen(writer, length, channels, modes) if frozen else _computed(writer, length, channels, modes)
    y = _convolution(writer, h, kernel, length)
    skip = writer.add("Mul", [writer.normal(channels, 1, scale=1.0), h])
    y = writer.add("Gelu", [writer.add("Add", [y, skip])], approximate="none")
    mixed = writer.add(
        "Conv", [y, writer.normal(2 * channels, channels, 1, scale=channels**-0.5), writer.normal(2 * channels)]
    )
    first, second = writer.split("Split", [mixed], 2, axis=1, num_outputs=2)
    gated = writer.add("Mul", [first, writer.add("Sigmoid", [second])])
    h = writer.add("Transpose", [writer.add("Add", [h, gated])], perm=[0, 2, 1])
    scale, shift = writer.weight(np.ones(channels)), writer.weight(np.zeros(channels))
    h = writer.add("LayerNormalization", [h, scale, shift], axis=-1, epsilon=1e-5)
    return writer.add("Transpose", [h], perm=[0, 2, 1])


def _system(writer: Writer, channels: int, modes: int) -> tuple[Any, Any]:
    """(dt A, 2 C (exp(dt A) - 1) / A), both (channels, modes); A is that of S4D-Lin (arXiv 2206.11893, equation 9)."""
    rng = writer.rng
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), (channels, 1)))
    a = -0.5 + 1j * np.pi * np.arange(modes)
    c = rng.standard_normal((channels, modes)) + 1j * rng.standard_normal((channels, modes))
    return dt * a, 2 * c * (np.exp(dt * a) - 1) / a / np.sqrt(modes)


def _computed(writer: Writer, length: int, channels: int, modes: int) -> str:
    exponent, gain = _system(writer, channels, modes)
    steps = writer.weight(np.arange(length))

    def along_time(rates: Any) -> str:
        return writer.add("Mul", [writer.weight(rates[:, :, None]), steps])

    size, phase = writer.add("Exp", [along_time(exponent.real)]), along_time(exponent.imag)
    cosine = writer.add("Mul", [writer.weight(gain.real[:, :, None]), writer.add("Cos", [phase])])
    sine = writer.add("Mul", [writer.weight(gain.imag[:, :, None]), writer.add("Sin", [phase])])
    mode = writer.add("Mul", [size, writer.add("Sub", [cosine, sine])])
    return writer.add("ReduceSum", [mode, writer.integers(1)], keepdims=0)


def _frozen(writer: Writer, length: int, channels: int, modes: int) -> str:
    exponent, gain = _system(writer, channels, modes)
    kernel = np.zeros((channels, length))
    for n in range(modes):
        kernel += (gain[:, n, None] * np.exp(exponent[:, n, None] * np.arange(length))).real
    return writer.weight(kernel)


def _convolution(writer: Writer, u: str, kernel: str, length: int) -> str:
    """irfft(rfft(u, 2 L) rfft(k, 2 L))[:L] with DFT nodes, as the dynamo exporter writes torch.fft."""
    zero, last, first = writer.weight(0.0), writer.integers(-1), writer.integers(0)
    one, two, size = writer.integers(1), writer.integers(2), writer.scalar(2 * length)

    def spectrum(value: str, rank: int) -> tuple[str, str]:
        pads = [0] * (2 * rank)
        pads[-1] = length
        padded = writer.add("Pad", [value, writer.integers(*pads), zero], mode="constant")
        column = writer.add("Unsqueeze", [padded, last])
        dft = writer.add("DFT", [column, size, writer.scalar(rank - 1)], onesided=1)
        return writer.add("Slice", [dft, first, one, last]), writer.add("Slice", [dft, one, two, last])

    (ur, ui), (kr, ki) = spectrum(u, 3), spectrum(kernel, 2)

    def product(a: str, b: str) -> str:
        return writer.add("Mul", [a, b])

    real = writer.add("Sub", [product(ur, kr), product(ui, ki)])
    imag = writer.add("Add", [product(ur, ki), product(ui, kr)])
    both = writer.add("Concat", [real, imag], axis=-1)
    back = writer.add("DFT", [both, size, writer.scalar(2)], inverse=1, onesided=1)
    out = writer.add("Squeeze", [writer.add("Slice", [back, first, one, last]), last])
    return writer.add("Slice", [out, first, writer.integers(length), two, one])
