"""Sample ``s4d-digits``: complex diagonal S4D, convolved by FFT.

Digits of scikit-learn as 64 pixels in a row, two S4D blocks with GELU, GLU, skip and layer normalisation
(Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", arXiv 2206.11893).
The exporter has no complex parameters, so the kernel is written in real arithmetic (``exp``, ``cos``, ``sin``)
and is computed in the exported graph; ``rfft`` and ``irfft`` become ONNX ``DFT``. The batch is dynamic.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from samples.train.data import Split, digits, source
from samples.train.export import Interface, baseline, check_against_torch, export, session, write_sample
from samples.train.fit import accuracy, fit, fix_seeds

NAME = "s4d-digits"
SEED = 0
WIDTH, PAIRS, BLOCKS, CLASSES, STEPS = 32, 8, 2, 10, 64
TEST_SIZE, CALIBRATION = 400, 48


class S4D(nn.Module):
    """``H`` single-input single-output systems of ``N`` conjugate pairs each, zero-order hold, S4D-Lin start."""

    def __init__(self, width: int, pairs: int) -> None:
        super().__init__()
        spread = torch.rand(width) * (math.log(0.2) - math.log(0.01)) + math.log(0.01)
        self.log_dt = nn.Parameter(spread)
        self.log_A_real = nn.Parameter(torch.full((width, pairs), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(pairs).repeat(width, 1).float())
        self.C_real = nn.Parameter(torch.randn(width, pairs) * 0.5**0.5)
        self.C_imag = nn.Parameter(torch.randn(width, pairs) * 0.5**0.5)
        self.D = nn.Parameter(torch.randn(width))

    def kernel(self, length: int) -> Tensor:
        """``K[h, l] = 2 Re sum_n C (exp(dt A) - 1) / A exp(dt A l)``, ``(width, length)``, with B = 1."""
        dt = torch.exp(self.log_dt)[:, None]
        a, w = -torch.exp(self.log_A_real), self.A_imag
        grown_real = torch.exp(dt * a) * torch.cos(dt * w) - 1
        grown_imag = torch.exp(dt * a) * torch.sin(dt * w)
        size = a * a + w * w
        b_real = (grown_real * a + grown_imag * w) / size
        b_imag = (grown_imag * a - grown_real * w) / size
        c_real = self.C_real * b_real - self.C_imag * b_imag
        c_imag = self.C_real * b_imag + self.C_imag * b_real
        steps = torch.arange(length)
        decay = torch.exp((dt * a)[:, :, None] * steps)
        phase = (dt * w)[:, :, None] * steps
        waves = c_real[:, :, None] * torch.cos(phase) - c_imag[:, :, None] * torch.sin(phase)
        return 2 * (decay * waves).sum(1)

    def forward(self, u: Tensor) -> Tensor:
        """``u`` and the result are ``(batch, width, steps)``."""
        length = u.shape[-1]
        spectrum = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(self.kernel(length), n=2 * length)
        return torch.fft.irfft(spectrum, n=2 * length)[..., :length] + u * self.D[:, None]


class Block(nn.Module):
    """S4D, GELU, pointwise GLU, skip, layer normalisation after the skip."""

    def __init__(self) -> None:
        super().__init__()
        self.ssm = S4D(WIDTH, PAIRS)
        self.mix = nn.Sequential(nn.Conv1d(WIDTH, 2 * WIDTH, kernel_size=1), nn.GLU(dim=-2))
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, u: Tensor) -> Tensor:
        y = self.dropout(self.mix(nn.functional.gelu(self.ssm(u))))
        return self.norm((u + y).transpose(1, 2)).transpose(1, 2)


class Classifier(nn.Module):
    """Linear encoder, blocks, mean over time, linear decoder: ``(batch, 64, 1) -> (batch, 10)``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(1, WIDTH)
        self.blocks = nn.ModuleList([Block() for _ in range(BLOCKS)])
        self.decoder = nn.Linear(WIDTH, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        u = self.encoder(pixels).transpose(1, 2)
        for block in self.blocks:
            u = block(u)
        return self.decoder(u.mean(-1))


def stack(split: Split) -> Tensor:
    """``(sequences, 64, 1)``."""
    return torch.from_numpy(np.stack(split.sequences))


def main() -> None:
    fix_seeds(SEED)
    train, test = digits(TEST_SIZE, SEED)
    model = Classifier()
    labels, test_labels = torch.from_numpy(train.labels), torch.from_numpy(test.labels)
    data, pixels = {"pixels": stack(train)}, stack(test)
    fit(
        model, data, labels, epochs=60, rate=1e-2, batch_size=64, weight_decay=0.01, seed=SEED,
        slow=("log_dt", "log_A_real", "A_imag"),
    )  # fmt: skip
    reached = accuracy(model, {"pixels": pixels}, test_labels)
    print(f"train {accuracy(model, data, labels):.4f}  test {reached:.4f}")
    path = export(model, Interface({"pixels": pixels[:3]}, ("logits",), {"pixels": {0: "batch"}}), NAME, opset=22)
    for batch in (1, 7):
        probe = {"pixels": torch.rand(batch, STEPS, 1)}
        print(f"batch {batch}: error {check_against_torch(path, model, probe):.1e}")
    (logits,) = session(path).run(None, {"pixels": pixels.numpy()})
    chosen = np.random.default_rng(SEED).permutation(len(labels))[:CALIBRATION]
    write_sample(
        NAME,
        {"pixels": pixels.numpy()},
        test.labels,
        {"pixels": data["pixels"][np.sort(chosen)].numpy()},
        {
            "title": "Handwritten digits read pixel by pixel; complex diagonal S4D, FFT convolution",
            "task": "digit from 8x8 grey pixels in [0, 1], row by row: 64 steps of one value",
            "classes": [str(digit) for digit in range(CLASSES)],
            "data": {
                "set": "Optical Recognition of Handwritten Digits (Alpaydin, Kaynak 1998), UCI archive",
                "package": source("scikit-learn"),
                "license": "BSD-3-Clause (package), CC BY 4.0 (UCI archive)",
                "split": f"stratified at random (seed {SEED}): {len(labels)} training, {TEST_SIZE} test images",
            },
            "model": {
                "form": "complex diagonal, zero-order hold; GELU, GLU, skip, LayerNorm; mean over time",
                "width": WIDTH, "conjugate_pairs_a_channel": PAIRS, "blocks": BLOCKS,
                "parameters": sum(p.numel() for p in model.parameters()),
            },
            "inputs": {"pixels": ["batch", STEPS, 1]},
            "output": "logits",
            "readout": "sequence",
            "trivial_baseline": round(baseline(train.labels, test.labels), 4),
            "test_accuracy": round(reached, 4),
            "onnxruntime_accuracy": round(float(np.mean(logits.argmax(-1) == test.labels)), 4),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
