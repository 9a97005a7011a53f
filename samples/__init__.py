"""Trained models, real test data and architecture files that travel with the package.

Every sample is a folder of five files: ``model.onnx``; ``test.npz`` (arrays named as the model's inputs,
batch first, and nothing else); ``labels.npz``; ``calibration.npz`` (training sequences, arrays as in
``test.npz``); ``sample.yaml`` (where the data come from, how the class is read, what accuracy was measured).
The scripts that made them are in ``samples.train``; using a sample needs only numpy and PyYAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

Arrays = dict[str, npt.NDArray[Any]]

__all__ = ["Sample", "arch_path", "load", "names"]


@dataclass(frozen=True)
class Sample:
    """One trained model with its held-out test set.

    ``test`` and ``calibration`` map the model's input names to arrays, batch first. A one-step model's
    streaming inputs are ``(batch, time, ...)`` and its state inputs are left out: they start at zero.
    """

    name: str
    model_path: Path
    test_path: Path
    calibration_path: Path
    labels: npt.NDArray[np.int64]
    metadata: Mapping[str, Any]
    test: Arrays = field(repr=False)
    calibration: Arrays = field(repr=False)

    def arch(self, target: str, name: str) -> str:
        """The architecture ``name`` of ``target``, changed as the data ask: a unit of time other than its own."""
        changes = self.metadata.get("arch", {}).get(target)
        return f"{name}{{{changes}}}" if changes else name

    def predict(self, outputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
        """Class indices ``(batch,)`` read from the model's outputs the way ``sample.yaml`` says.

        ``outputs`` maps output names to ``(batch, classes)``, or ``(batch, time, classes)`` for a model
        whose ``readout`` is ``last``. Raises KeyError when the class output is missing.
        """
        scores: npt.NDArray[Any] = outputs[self.metadata["output"]]
        if self.metadata["readout"] == "last":
            scores = scores[:, -1]
        return np.asarray(scores.argmax(axis=-1), dtype=np.int64)

    def accuracy(self, outputs: Mapping[str, npt.NDArray[Any]]) -> float:
        """Fraction of the first ``batch`` test sequences that ``outputs`` classifies correctly."""
        predicted = self.predict(outputs)
        return float(np.mean(predicted == self.labels[: len(predicted)]))


def _root() -> Path:
    return Path(str(files(__name__)))


def names() -> tuple[str, ...]:
    """The names of the packaged samples, sorted."""
    return tuple(sorted(path.parent.name for path in _root().glob("*/sample.yaml")))


def load(name: str) -> Sample:
    """The sample called ``name``; ValueError (which lists the names) when there is none."""
    if name not in names():
        raise ValueError(f"no sample called {name!r}; the packaged samples are: {', '.join(names())}")
    folder = _root() / name
    metadata = yaml.safe_load((folder / "sample.yaml").read_text(encoding="utf-8"))
    with np.load(folder / "labels.npz") as stored:
        labels = stored["labels"].astype(np.int64)
    return Sample(
        name=name,
        model_path=folder / "model.onnx",
        test_path=folder / "test.npz",
        calibration_path=folder / "calibration.npz",
        labels=labels,
        metadata=metadata,
        test=_arrays(folder / "test.npz"),
        calibration=_arrays(folder / "calibration.npz"),
    )


def arch_path(name: str) -> Path:
    """The packaged architecture file ``name`` (with or without ``.yaml``); ValueError when there is none."""
    folder = _root() / "arch"
    path = folder / (name if name.endswith(".yaml") else f"{name}.yaml")
    if not path.is_file():
        known = ", ".join(sorted(str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.yaml")))
        raise ValueError(f"no architecture file called {name!r}; the packaged ones are: {known or 'none'}")
    return path


def _arrays(path: Path) -> Arrays:
    with np.load(path) as stored:
        return {key: stored[key] for key in stored.files}
