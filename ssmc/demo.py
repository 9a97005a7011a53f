"""The packaged samples on every target, their whole test sets, beside onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import samples
from ssmc.driver import Executable, compile_model, load_model
from ssmc.target import backend

if TYPE_CHECKING:
    from ssmc.frontend import Model

STAGES = 2  # of each sample on each target: ideal, realistic


@dataclass(frozen=True)
class Row:
    """One sample on one target. Accuracies are fractions of `sequences`; costs are of one inference (one sequence) of
    the realistic program; None is what the target cannot know."""

    sample: str
    target: str
    arch: str
    sequences: int
    steps: int
    onnxruntime_accuracy: float
    ideal_accuracy: float
    realistic_accuracy: float
    cycles: float | None
    seconds: float | None
    energy_joules: float | None
    instructions: int
    program_bytes: int
    onnx_bytes: int


def measure(sample: samples.Sample, model: Model, target: str, reference: float, done: Callable[[], None]) -> Row:
    """Compile one sample for one target, ideal and realistic, and run its test set; `done` is called after each."""
    arch = sample.arch(target, backend(target).default_arch)
    ideal = compile_model(model, target, arch=arch, ideal=True)
    ideal_accuracy = sample.accuracy(ideal.run(sample.test).outputs)
    done()
    real = compile_model(model, target, arch=arch, calibration=sample.calibration)
    result = real.run(sample.test)
    stats = result.stats
    done()
    return Row(
        sample=sample.name,
        target=target,
        arch=stats.arch,
        sequences=stats.batch,
        steps=stats.steps,
        onnxruntime_accuracy=reference,
        ideal_accuracy=ideal_accuracy,
        realistic_accuracy=sample.accuracy(result.outputs),
        cycles=_each(stats.cycles, stats.batch),
        seconds=_each(stats.seconds, stats.batch),
        energy_joules=_each(stats.energy_joules, stats.batch),
        instructions=real.program.instruction_count,
        program_bytes=_size(real),
        onnx_bytes=sample.model_path.stat().st_size,
    )


def reference_accuracy(sample: samples.Sample, model: Model) -> float:
    """Accuracy of the unmodified file under onnxruntime."""
    from ssmc import frontend

    outputs: Mapping[str, Any] = frontend.reference(model, sample.test)
    return sample.accuracy(outputs)


def model_of(sample: samples.Sample) -> Model:
    """A packaged sample's model."""
    return load_model(sample.model_path)


def _each(total: float | None, batch: int) -> float | None:
    return None if total is None else total / batch


def _size(executable: Executable) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.ssmx"
        executable.save(path)
        return path.stat().st_size
