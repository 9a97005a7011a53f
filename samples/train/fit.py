"""The training loop that all the samples share: AdamW, one-cycle rate, a fixed number of epochs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


def fix_seeds(seed: int) -> None:
    """Seed torch (all randomness of training is torch's) and ask torch for deterministic kernels."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)


def fit(
    model: nn.Module,
    data: Batch,
    labels: Tensor,
    *,
    epochs: int,
    rate: float,
    batch_size: int,
    weight_decay: float,
    seed: int,
    slow: tuple[str, ...] = (),
    augment: Callable[[Batch, torch.Generator], Batch] | None = None,
    smoothing: float = 0.0,
) -> None:
    """Train ``model`` on keyword inputs ``data`` (batch first) in place.

    Parameters whose name ends in one of ``slow`` (the dynamics: decays and steps) take a third of the rate and
    no weight decay, the usual setting for S4-like models (Gu et al., arXiv 2111.00396, appendix).
    ``smoothing`` is the label smoothing of the cross entropy.
    """
    dynamics = [p for name, p in model.named_parameters() if name.endswith(slow)] if slow else []
    chosen = {id(p) for p in dynamics}
    others = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": others, "lr": rate, "weight_decay": weight_decay}]
    if dynamics:
        groups.append({"params": dynamics, "lr": rate / 3, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups)
    count = len(labels)
    steps = epochs * -(-count // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=[g["lr"] for g in optimizer.param_groups], total_steps=steps, pct_start=0.15
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=smoothing)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(count, generator=generator).split(batch_size):
            batch = {name: values[rows] for name, values in data.items()}
            if augment is not None:
                batch = augment(batch, generator)
            loss = loss_of(model(**batch), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        if epoch % 5 == 4 or epoch == epochs - 1:
            print(f"epoch {epoch + 1:3d}/{epochs}  loss {total / count:.4f}", flush=True)
    model.eval()


def accuracy(model: nn.Module, data: Batch, labels: Tensor) -> float:
    """Fraction of sequences classified correctly, without gradients."""
    with torch.no_grad():
        return float((model(**data).argmax(-1) == labels).float().mean())
