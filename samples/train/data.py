"""The public data sets, read from the installed packages that ship them.

Packages are located, not imported: their plain data files are all that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Sequences with labels: ``sequences[i]`` is ``(steps, channels)``, lengths may differ."""

    sequences: list[Floats]
    labels: Ints


def package_file(package: str, relative: str) -> Path:
    """A data file of an installed package; ModuleNotFoundError or FileNotFoundError when absent."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"package {package!r} is not installed; install the extra [train]")
    path = Path(spec.origin).parent / relative
    if not path.is_file():
        raise FileNotFoundError(f"{package} {version(package)} does not ship {relative}")
    return path


def source(package: str) -> str:
    """Name and version of an installed package, as in ``aeon 1.6.0``."""
    return f"{package} {version(package)}"


def read_ts(path: Path) -> Split:
    """A ``.ts`` file of the UEA/UCR archive: channels split by ``:``, the class label last."""
    sequences, labels = [], []
    body = path.read_text(encoding="utf-8").split("@data", 1)[1]
    for line in body.strip().splitlines():
        *channels, label = line.strip().split(":")
        sequences.append(np.array([np.fromstring(c, sep=",") for c in channels], dtype=np.float32).T)
        labels.append(int(label))
    classes = sorted(set(labels))
    return Split(sequences, np.array([classes.index(label) for label in labels], dtype=np.int64))


def japanese_vowels() -> tuple[Split, Split]:
    """Training and test set of JapaneseVowels: 9 speakers, 12 LPC cepstrum coefficients, 7-29 frames."""
    folder = "datasets/data/JapaneseVowels/JapaneseVowels"
    return read_ts(package_file("aeon", f"{folder}_TRAIN.ts")), read_ts(package_file("aeon", f"{folder}_TEST.ts"))


def digits(test_size: int, seed: int) -> tuple[Split, Split]:
    """Handwritten digits of scikit-learn, 8x8 pixels in [0, 1] read row by row: 64 steps, 1 channel."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    steps = (pixels / 16.0).astype(np.float32).reshape(len(pixels), 64, 1)
    train_x, test_x, train_y, test_y = train_test_split(
        steps, labels.astype(np.int64), test_size=test_size, random_state=seed, stratify=labels
    )
    return Split(list(train_x), train_y), Split(list(test_x), test_y)


@dataclass(frozen=True)
class WatchRecording:
    """One set of repetitions of a shoulder exercise: ``signal`` is ``(samples, 6)`` at 50 Hz."""

    signal: Floats
    label: int
    subject: int


WATCH_RATE_HZ = 50.0


def watch() -> tuple[list[WatchRecording], list[str]]:
    """Smart-watch inertial recordings of seglearn (10 people, 7 exercises) and the exercises' names.

    Channels: acceleration x, y, z in g, angular velocity x, y, z in rad/s. The file is a pickle inside
    the installed package, as trusted as that package's own code.
    """
    stored = np.load(package_file("seglearn", "data/watch_dataset.npy"), allow_pickle=True).item()
    recordings = [
        WatchRecording(np.asarray(signal, dtype=np.float32), int(label), int(subject))
        for signal, label, subject in zip(stored["X"], stored["y"], stored["subject"], strict=True)
    ]
    return recordings, list(stored["y_labels"])
