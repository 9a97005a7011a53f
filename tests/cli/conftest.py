"""A folder with models and inputs, and the command line run in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ssmc.cli.main import run
from tests.driver import models


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


Ssmc = Callable[..., Outcome]


@pytest.fixture
def ssmc(capfd: pytest.CaptureFixture[str]) -> Ssmc:
    """`ssmc("run", "p.ssmx", ...)` as the shell would run it, in this process."""

    def call(*arguments: str | Path) -> Outcome:
        status = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and inputs, read only."""
    folder = tmp_path_factory.mktemp("material")
    for name in ("scan", "step", "nan", "unstable", "unsupported", "no_ssm"):
        getattr(models, f"{name}_model")(folder / f"{name}.onnx")
    np.savez(folder / "x.npz", **models.sequences())
    np.savez(folder / "long.npz", **models.sequences(2, 33))
    return folder


@pytest.fixture
def folder(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder, the current one, with the models and inputs in it."""
    for file in material.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path
