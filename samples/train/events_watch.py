"""Sample ``events-watch``: an event-driven model of wrist movements, exported as one step.

Smart-watch signals become events by level crossing; each event says which channel rose or fell, and how long ago
the event before was. Two blocks ``u -> SSM -> norm -> y * sigmoid(W GELU(y) + b) -> + u`` with complex states in
the asynchronous form, in which only the decay depends on the elapsed time (Schoene et al., "Scalable
Event-by-event Processing of Neuromorphic Sensory Signals With Deep State-Space Models", arXiv 2404.18508).
All states, and the running mean over events, are explicit inputs and outputs of the step. The test set is
the last part of every recording, the training set the part before it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from samples.train.data import WATCH_RATE_HZ, source, watch
from samples.train.events import EventBatch, level_crossings, pad_events
from samples.train.export import Interface, baseline, check_against_torch, export, run_steps, write_sample
from samples.train.fit import accuracy, fit, fix_seeds

NAME = "events-watch"
SEED = 0
WIDTH, STATES, CLASSES, CHANNELS = 32, 16, 7, 6
NULL = 2 * CHANNELS
EVENTS = 128
WINDOW_S, TRAIN_STRIDE_S = 4.0, 0.5
DELTA = np.array([0.4] * 3 + [1.5] * 3)  # g and rad/s
TRAIN_PART = 0.7
CALIBRATION = 48


class EventSSM(nn.Module):
    """``x <- exp(lambda s dt) x + gamma B u``, ``y = 2 Re(C x) + D u`` with ``P`` complex states, ``dt`` in seconds.

    ``gamma = (exp(lambda s) - 1) / lambda`` does not depend on ``dt``. Complex values are pairs of real ones;
    a state is ``(batch, P, 2)``.
    """

    def __init__(self, width: int, states: int, slowest_s: float) -> None:
        super().__init__()
        constants = torch.logspace(math.log10(0.05), math.log10(slowest_s), states)
        self.log_step = nn.Parameter(-torch.log(constants))
        self.log_rate = nn.Parameter(torch.zeros(states))
        self.frequency = nn.Parameter(torch.pi * torch.rand(states))
        self.B = nn.Parameter(torch.randn(2, states, width) / (2 * width) ** 0.5)
        self.C = nn.Parameter(torch.randn(2, width, states) / (2 * states) ** 0.5)
        self.D = nn.Parameter(torch.randn(width))

    def drive(self, u: Tensor) -> Tensor:
        """``gamma B u`` as pairs: ``(..., P, 2)``."""
        step = torch.exp(self.log_step)
        a, w = -torch.exp(self.log_rate), self.frequency
        size = a * a + w * w
        grown_re = torch.exp(a * step) * torch.cos(w * step) - 1
        grown_im = torch.exp(a * step) * torch.sin(w * step)
        gamma_re = ((grown_re * a + grown_im * w) / size)[:, None]
        gamma_im = ((grown_im * a - grown_re * w) / size)[:, None]
        b_re, b_im = self.B[0], self.B[1]
        real = u @ (gamma_re * b_re - gamma_im * b_im).T
        imag = u @ (gamma_re * b_im + gamma_im * b_re).T
        return torch.stack((real, imag), -1)

    def transition(self, dt: Tensor) -> Tensor:
        """``exp(lambda s dt)`` as pairs: ``dt`` ``(..., 1)`` gives ``(..., P, 2)``."""
        elapsed = torch.exp(self.log_step) * dt
        size = torch.exp(-torch.exp(self.log_rate) * elapsed)
        phase = self.frequency * elapsed
        return torch.stack((size * torch.cos(phase), size * torch.sin(phase)), -1)

    def read(self, x: Tensor, u: Tensor) -> Tensor:
        """``2 Re(C x) + D u``."""
        return 2 * (x[..., 0] @ self.C[0].T - x[..., 1] @ self.C[1].T) + self.D * u


def multiply(p: Tensor, q: Tensor) -> Tensor:
    """Complex product of pairs."""
    real = p[..., 0] * q[..., 0] - p[..., 1] * q[..., 1]
    imag = p[..., 0] * q[..., 1] + p[..., 1] * q[..., 0]
    return torch.stack((real, imag), -1)


def parallel_states(transition: Tensor, drive: Tensor) -> Tensor:
    """All states ``(batch, events, P, 2)`` of ``x_k = a_k x_{k-1} + b_k`` by doubling (Hillis, Steele 1986)."""
    a, x = torch.view_as_complex(transition), torch.view_as_complex(drive)
    span = 1
    while span < x.shape[1]:
        x = torch.cat((x[:, :span], x[:, span:] + a[:, span:] * x[:, :-span]), 1)
        a = torch.cat((a[:, :span], a[:, span:] * a[:, :-span]), 1)
        span *= 2
    return torch.view_as_real(x)


class Block(nn.Module):
    """Event SSM, layer normalisation, sigmoid gate, skip."""

    def __init__(self, slowest_s: float) -> None:
        super().__init__()
        self.ssm = EventSSM(WIDTH, STATES, slowest_s)
        self.norm = nn.LayerNorm(WIDTH)
        self.gate = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.15)

    def mix(self, y: Tensor, u: Tensor) -> Tensor:
        y = self.norm(y)
        return u + self.dropout(y * torch.sigmoid(self.gate(nn.functional.gelu(y))))

    def forward(self, u: Tensor, dt: Tensor, active: Tensor) -> Tensor:
        x = parallel_states(self.ssm.transition(dt), self.ssm.drive(u * active).contiguous())
        return self.mix(self.ssm.read(x, u), u)

    def step(self, u: Tensor, dt: Tensor, active: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        x = multiply(self.ssm.transition(dt), x) + self.ssm.drive(u * active)
        return self.mix(self.ssm.read(x, u), u), x


class Classifier(nn.Module):
    """Embedding, blocks, mean over events, linear decoder: ``(batch, events) -> (batch, 7)``.

    The null event pads: with ``dt = 0`` it leaves every state and the mean exactly as they were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NULL + 1, WIDTH, padding_idx=NULL)
        self.blocks = nn.ModuleList([Block(1.0), Block(4.0)])
        self.decoder = nn.Linear(WIDTH, CLASSES)
        self.register_buffer("is_event", (torch.arange(NULL + 1) != NULL).float()[:, None])

    def forward(self, event: Tensor, dt: Tensor) -> Tensor:
        active = nn.functional.embedding(event, self.is_event)
        u = self.embedding(event)
        for block in self.blocks:
            u = block(u, dt, active)
        return self.decoder((u * active).sum(1) / active.sum(1).clamp(min=1.0))


class Step(nn.Module):
    """One event of a batch: ``event`` ``(batch,)``, ``dt`` ``(batch, 1)``, all states in and out."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, event: Tensor, dt: Tensor, state_0: Tensor, state_1: Tensor, total: Tensor, count: Tensor
    ) -> tuple[Tensor, ...]:
        model = self.model
        active = nn.functional.embedding(event, model.is_event)
        u = model.embedding(event)
        u, state_0 = model.blocks[0].step(u, dt, active, state_0)
        u, state_1 = model.blocks[1].step(u, dt, active, state_1)
        total, count = total + u * active, count + active
        logits = model.decoder(total / count.clamp(min=1.0))
        return logits, state_0, state_1, total, count


STATE_NAMES = ("state_0", "state_1", "total", "count")
FOLLOWING = {name: f"{name}_next" for name in STATE_NAMES}


def zero_states(batch: int) -> dict[str, Tensor]:
    """The states before the first event."""
    shapes = ((STATES, 2), (STATES, 2), (WIDTH,), (1,))
    return {name: torch.zeros(batch, *shape) for name, shape in zip(STATE_NAMES, shapes, strict=True)}


def windows(first: float, last: float, stride_s: float) -> tuple[EventBatch, npt.NDArray[np.int64]]:
    """Windows between the fractions ``first`` and ``last`` of every recording, as events, with their exercises."""
    size, stride = round(WINDOW_S * WATCH_RATE_HZ), round(stride_s * WATCH_RATE_HZ)
    sequences, labels = [], []
    for recording in watch()[0]:
        signal = recording.signal[round(first * len(recording.signal)) : round(last * len(recording.signal))]
        for start in range(0, len(signal) - size + 1, stride):
            sequences.append(level_crossings(signal[start : start + size], DELTA, WATCH_RATE_HZ))
            labels.append(recording.label)
    return pad_events(sequences, EVENTS, NULL), np.array(labels, dtype=np.int64)


def tensors(batch: EventBatch) -> dict[str, Tensor]:
    return {"event": torch.from_numpy(batch.event), "dt": torch.from_numpy(batch.dt)}


def perturb(batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Each sequence a little faster or slower; some events lost (their time goes to the next event)."""
    event, dt = batch["event"], batch["dt"]
    pace = torch.exp(0.15 * torch.randn(len(dt), 1, 1, generator=generator))
    lost = torch.rand(event.shape, generator=generator) < 0.05
    return {"event": torch.where(lost, NULL, event), "dt": dt * pace}


def arrays(batch: EventBatch) -> dict[str, np.ndarray]:
    """A batch as the inputs of the exported step."""
    return {"event": batch.event, "dt": batch.dt}


def exported(model: Classifier, test: EventBatch) -> np.ndarray:
    """Write one step of the model as the sample's file and run the test set through it, step by step: its logits.

    Raises RuntimeError where they are not those of the parallel form, which was trained.
    """
    step, example = Step(model), {name: values[:3, 0] for name, values in tensors(test).items()}
    inputs = {**example, **zero_states(3)}
    interface = Interface(inputs, ("logits", *FOLLOWING.values()), {name: {0: "batch"} for name in inputs})
    path = export(step, interface, NAME, opset=20)
    probe = {
        "event": torch.randint(0, NULL, (5,)),
        "dt": torch.rand(5, 1),
        **{name: torch.randn_like(values) for name, values in zero_states(5).items()},
    }
    print(f"one step, batch 5: error {check_against_torch(path, step, probe):.1e}")
    zeros = {name: values.numpy() for name, values in zero_states(len(test.event)).items()}
    logits = run_steps(path, arrays(test), zeros, FOLLOWING, "logits")
    with torch.no_grad():
        error = float(np.abs(logits - model(**tensors(test)).numpy()).max() / np.abs(logits).max())
    print(f"all steps of the test set: error {error:.1e} from the parallel form")
    if not error < 1e-4:
        raise RuntimeError(f"the exported step is off by {error:.2e} from the model that was trained")
    return logits


def main() -> None:
    """Train, export, check and write the sample."""
    fix_seeds(SEED)
    train, train_labels = windows(0.0, TRAIN_PART, TRAIN_STRIDE_S)
    test, test_labels = windows(TRAIN_PART, 1.0, WINDOW_S)
    model, labels = Classifier(), torch.from_numpy(train_labels)
    fit(
        model, tensors(train), labels, epochs=15, rate=8e-3, batch_size=64, weight_decay=0.05, seed=SEED,
        slow=("log_step", "log_rate", "frequency"), augment=perturb, smoothing=0.1,
    )  # fmt: skip
    reached = accuracy(model, tensors(test), torch.from_numpy(test_labels))
    print(f"train {accuracy(model, tensors(train), labels):.4f}  test {reached:.4f}")
    logits = exported(model, test)
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(labels))[:CALIBRATION])
    write_sample(
        NAME,
        arrays(test),
        test_labels,
        {"event": train.event[chosen], "dt": train.dt[chosen]},
        {
            "title": "Shoulder exercises from smart-watch events; complex states, asynchronous steps",
            "task": "exercise from 4 s of wrist acceleration and rotation, turned into events by level crossing",
            "classes": watch()[1],
            "data": {
                "set": "smart-watch inertial recordings of shoulder exercises (Burns et al. 2018, arXiv 1802.01489)",
                "package": source("seglearn"),
                "license": "BSD-3-Clause",
                "split": f"first {TRAIN_PART:.0%} of every recording for training, the rest (same people) for test",
            },
            "events": {
                "method": "send-on-delta, levels start at 0",
                "delta": {"acceleration_g": float(DELTA[0]), "rotation_rad_s": float(DELTA[3])},
                "ids": "2 c: channel c rose by delta; 2 c + 1: it fell; 12: padding (with dt = 0)",
                "channels": ["ax", "ay", "az", "wx", "wy", "wz"],
                "dt_unit": "s",
                "longest": EVENTS,
                "mean_events": round(float((test.event != NULL).sum(1).mean()), 1),
            },
            "arch": {"cim": "time.unit_seconds=1"},
            "model": {
                "form": "complex, one step with explicit states; SSM, LayerNorm, sigmoid gate, skip; mean over events",
                "width": WIDTH, "complex_states": STATES, "blocks": len(model.blocks),
                "parameters": sum(p.numel() for p in model.parameters()),
            },
            "inputs": {"event": ["batch"], "dt": ["batch", 1]},
            "states": {
                name: {"next": FOLLOWING[name], "shape": ["batch", *values.shape[1:]]}
                for name, values in zero_states(1).items()
            },
            "output": "logits",
            "readout": "last",
            "trivial_baseline": round(baseline(train_labels, test_labels), 4),
            "test_accuracy": round(reached, 4),
            "onnxruntime_accuracy": round(float(np.mean(logits.argmax(-1) == test_labels)), 4),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
