"""Monte Carlo over devices: the same program on the same inputs, each time on other devices."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from multiprocessing import get_context
from typing import Any

import numpy as np

from ssmc import arrays
from ssmc.diagnostics import UserError
from ssmc.driver import Executable
from ssmc.ir.op import Array
from ssmc.target import RunSettings

PERFECT = "ideal"  # the preset that the others are compared with


@dataclass(frozen=True)
class Spread:
    """One number a trial: its mean, standard deviation (0 for one trial) and worst value."""

    mean: float
    spread: float
    worst: float


@dataclass(frozen=True)
class Trials:
    """What came of `count` trials, seeds `seed`, `seed + 1`, ...

    `errors`: of each output, the root mean square of the difference to perfect devices, over that of the output itself.
    `accuracy` and `perfect_accuracy` (with perfect devices): parts of the labels that are met; None without labels.
    """

    count: int
    seed: int
    errors: Mapping[str, Spread]
    accuracy: Spread | None
    perfect_accuracy: float | None


def run_trials(
    executable: Executable,
    inputs: Mapping[str, Any],
    count: int,
    *,
    seed: int = 0,
    noise: str | None = None,
    block: int | None = None,
    strict: bool = False,
    labels: Any = None,
    workers: int = 1,
) -> Trials:
    """Run a program `count` times with devices of different seeds; the same result whatever the number of workers.

    `labels` (batch,) are class numbers; the class is the largest word of the first output. Raises UserError for a
    target without devices, for labels that do not fit, and where a run raises one.
    """
    presets = executable.backend.noise_presets()
    if PERFECT not in presets:
        raise UserError(
            f"target '{executable.backend.name}' has no devices to draw",
            why="every run of it gives the same",
            hint="leave --trials out",
        )
    fitted = arrays.fit(inputs, executable.interface)
    perfect = _outputs(executable, fitted, RunSettings(seed=seed, noise=PERFECT, block=block))
    wanted = None if labels is None else _fitting(np.asarray(labels), perfect)
    settings = [
        RunSettings(seed=seed + number, noise=noise, block=block, strict=strict) for number in range(max(1, count))
    ]
    if workers > 1:
        with ProcessPoolExecutor(min(workers, len(settings)), get_context("spawn")) as pool:
            alone = replace(executable, compilation=None)  # what it was made of need not go to every process
            given = (repeat(of) for of in (alone, fitted, perfect, wanted))
            found = list(pool.map(_trial, *given, settings))
    else:
        found = [_trial(executable, fitted, perfect, wanted, one) for one in settings]
    errors = {name: _spread([errors[name] for errors, _ in found], worst=max) for name in perfect}
    accuracies = [accuracy for _, accuracy in found if accuracy is not None]
    return Trials(
        count=len(settings),
        seed=seed,
        errors=errors,
        accuracy=_spread(accuracies, worst=min) if accuracies else None,
        perfect_accuracy=None if wanted is None else _accuracy(perfect, wanted),
    )


def _outputs(executable: Executable, fitted: Mapping[str, Array], settings: RunSettings) -> dict[str, Array]:
    return arrays.unfit(executable.simulate(fitted, settings).outputs, executable.interface)


def _trial(
    executable: Executable,
    fitted: Mapping[str, Array],
    perfect: Mapping[str, Array],
    labels: Array | None,
    settings: RunSettings,
) -> tuple[dict[str, float], float | None]:
    """One trial's error of each output, and its accuracy."""
    outputs = _outputs(executable, fitted, settings)
    errors = {name: relative_error(outputs[name], perfect[name]) for name in perfect}
    return errors, None if labels is None else _accuracy(outputs, labels)


def relative_error(array: Array, reference: Array) -> float:
    """Root mean square of the difference over that of the reference (absolute where that is zero)."""
    difference = array.astype(np.complex128) - reference
    size = float(np.sqrt(np.mean(np.abs(reference) ** 2))) if reference.size else 0.0
    error = float(np.sqrt(np.mean(np.abs(difference) ** 2))) if difference.size else 0.0
    return error / size if size > 0 else error


def _fitting(labels: Array, outputs: Mapping[str, Array]) -> Array:
    name, first = next(iter(outputs.items()))
    if labels.shape != first.shape[:1] or first.ndim < 2 or labels.dtype.kind not in "iu":
        raise UserError(
            f"labels of shape {labels.shape} and type {labels.dtype} do not fit the output '{name}' of {first.shape}",
            hint="give one whole class number for every sequence",
        )
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < first.shape[-1]:
        raise UserError(
            f"labels from {labels.min()} to {labels.max()} do not fit the output '{name}' of {first.shape[-1]} classes",
            hint="class numbers count from 0",
        )
    return labels


def _accuracy(outputs: Mapping[str, Array], labels: Array) -> float:
    """A stream's class is that of its last step."""
    first = next(iter(outputs.values()))
    last = first if first.ndim == 2 else first.reshape(len(first), -1, first.shape[-1])[:, -1]
    return float(np.mean(last.argmax(-1) == labels))


def _spread(values: list[float], *, worst: Any) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, worst(values))
