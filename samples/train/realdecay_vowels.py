"""Sample ``realdecay-vowels``: real coefficients and one shared decay a block, as the CIM paper's models have.

Speakers of JapaneseVowels are told apart by two blocks ``u -> SSM -> norm -> y * sigmoid(W GELU(y) + b) -> + u``
(Zhang et al., arXiv 2511.13912, and its public training code). Exported with torch's higher-order ``scan``,
so that each recurrence is one ONNX ``Scan``; batch and length are dynamic.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from samples.train.data import Split, japanese_vowels, source
from samples.train.export import Interface, baseline, check_against_torch, export, session, write_sample
from samples.train.fit import accuracy, fit, fix_seeds

NAME = "realdecay-vowels"
SEED = 0
WIDTH, STATES, BLOCKS, CLASSES, CHANNELS = 32, 32, 2, 9, 12
LONGEST = 29
CALIBRATION = 45


class SharedDecaySSM(nn.Module):
    """``x_k = Abar x_{k-1} + Bbar u_k``, ``y_k = C x_k + D u_k`` with one real decay for all P states.

    ``Abar = exp(lambda s)``, ``Bbar = gamma B``, ``gamma = (exp(lambda s) - 1) / lambda`` with ``s`` the step.
    """

    def __init__(self, width: int, states: int, half_life: float) -> None:
        super().__init__()
        self.log_rate = nn.Parameter(torch.tensor(np.log(np.log(2) / half_life), dtype=torch.float32))
        self.log_step = nn.Parameter(torch.tensor(0.0))
        self.B = nn.Parameter(torch.randn(states, width) / width**0.5)
        self.C = nn.Parameter(torch.randn(width, states) / states**0.5)
        self.D = nn.Parameter(torch.randn(width))
        self.recurrent = False

    def decay(self) -> Tensor:
        """``Abar``, a scalar in (0, 1)."""
        return torch.exp(-torch.exp(self.log_rate) * torch.exp(self.log_step))

    def forward(self, u: Tensor) -> Tensor:
        """``u`` and the result are ``(batch, steps, width)``."""
        rate, decay = -torch.exp(self.log_rate), self.decay()
        drive = (decay - 1) / rate * self.B
        y = self._scan(u, decay, drive) if self.recurrent else self._convolve(u, decay, drive)
        return y + self.D * u

    def _convolve(self, u: Tensor, decay: Tensor, drive: Tensor) -> Tensor:
        """All steps at once for training: one decay makes the recurrence one ``(steps, steps)`` matrix."""
        lag = torch.arange(u.shape[1])[:, None] - torch.arange(u.shape[1])[None, :]
        powers = torch.where(lag >= 0, decay ** lag.clamp(min=0), 0.0)
        return powers @ (u @ drive.T) @ self.C.T

    def _scan(self, u: Tensor, decay: Tensor, drive: Tensor) -> Tensor:
        def step(x: Tensor, u_k: Tensor) -> tuple[Tensor, Tensor]:
            x = decay * x + u_k @ drive.T
            return x, x @ self.C.T

        start = torch.zeros(u.shape[0], drive.shape[0])
        _, y = scan(step, start, u.transpose(0, 1))
        return y.transpose(0, 1)


class Block(nn.Module):
    """SSM, batch normalisation, sigmoid gate, skip."""

    def __init__(self, half_life: float) -> None:
        super().__init__()
        self.ssm = SharedDecaySSM(WIDTH, STATES, half_life)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.gate = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.15)

    def forward(self, u: Tensor) -> Tensor:
        y = self.norm(self.ssm(u).transpose(1, 2)).transpose(1, 2)
        y = y * torch.sigmoid(self.gate(nn.functional.gelu(y)))
        return u + self.dropout(y)


class Classifier(nn.Module):
    """Linear encoder, blocks, mean over time, linear decoder: ``(batch, steps, 12) -> (batch, 9)``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(CHANNELS, WIDTH)
        self.blocks = nn.ModuleList([Block(half_life) for half_life in (2.0, 8.0)[:BLOCKS]])
        self.decoder = nn.Linear(WIDTH, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        u = self.encoder(features)
        for block in self.blocks:
            u = block(u)
        return self.decoder(u.mean(1))


def pad(split: Split, length: int = LONGEST) -> Tensor:
    """Sequences padded with zeros at their end: ``(batch, length, 12)``."""
    padded = np.zeros((len(split.sequences), length, CHANNELS), dtype=np.float32)
    for row, sequence in enumerate(split.sequences):
        padded[row, : len(sequence)] = sequence
    return torch.from_numpy(padded)


def perturb(batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Small noise on the frames and more padding, so that neither the exact length nor values matter."""
    features = batch["features"]
    noise = 0.05 * torch.randn(features.shape, generator=generator)
    features = features + noise * (features != 0)
    extra = int(torch.randint(0, 8, (), generator=generator))
    return {"features": nn.functional.pad(features, (0, 0, 0, extra))}


def main() -> None:
    fix_seeds(SEED)
    train, test = japanese_vowels()
    model = Classifier()
    labels, test_labels = torch.from_numpy(train.labels), torch.from_numpy(test.labels)
    data = {"features": pad(train)}
    fit(
        model, data, labels, epochs=120, rate=8e-3, batch_size=45, weight_decay=0.05, seed=SEED,
        slow=("log_rate", "log_step"), augment=perturb, smoothing=0.05,
    )  # fmt: skip
    features = pad(test)
    reached = accuracy(model, {"features": features}, test_labels)
    print(f"train {accuracy(model, data, labels):.4f}  test {reached:.4f}")
    for block in model.blocks:
        block.ssm.recurrent = True
    interface = Interface({"features": features[:3]}, ("logits",), {"features": {0: "batch", 1: "length"}})
    path = export(model, interface, NAME, opset=20)
    for batch, length in ((3, LONGEST), (5, 17), (1, 64)):
        probe = {"features": torch.randn(batch, length, CHANNELS)}
        print(f"batch {batch} length {length}: error {check_against_torch(path, model, probe):.1e}")
    (logits,) = session(path).run(None, {"features": features.numpy()})
    chosen = np.random.default_rng(SEED).permutation(len(labels))[:CALIBRATION]
    write_sample(
        NAME,
        {"features": features.numpy()},
        test.labels,
        {"features": data["features"][np.sort(chosen)].numpy()},
        {
            "title": "Speakers told apart by two Japanese vowels; real coefficients, one decay a block",
            "task": "speaker from 12 LPC cepstrum coefficients a frame, 7-29 frames, padded to 29 with zeros",
            "classes": [f"speaker {i + 1}" for i in range(CLASSES)],
            "data": {
                "set": "JapaneseVowels (Kudo, Toyama, Shimbo 1999), UCI archive",
                "package": source("aeon"),
                "license": "BSD-3-Clause (package), CC BY 4.0 (UCI archive)",
                "split": "the archive's own: 270 training, 370 test sequences",
            },
            "model": {
                "form": "real, one decay a block; SSM, BatchNorm, sigmoid gate, skip; mean over time",
                "width": WIDTH, "states": STATES, "blocks": BLOCKS,
                "parameters": sum(p.numel() for p in model.parameters()),
                "Abar": [round(block.ssm.decay().item(), 6) for block in model.blocks],
            },
            "inputs": {"features": ["batch", "length", CHANNELS]},
            "output": "logits",
            "readout": "sequence",
            "trivial_baseline": round(baseline(train.labels, test.labels), 4),
            "test_accuracy": round(reached, 4),
            "onnxruntime_accuracy": round(float(np.mean(logits.argmax(-1) == test.labels)), 4),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
