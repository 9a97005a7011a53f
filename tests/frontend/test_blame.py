"""Whose fault it is: the file's, or ours; and that nothing is left running when a file is refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from ssmc.cli.main import run
from ssmc.diagnostics import UserError
from ssmc.frontend import load_model
from ssmc.frontend.rules.table import RULES
from tests.frontend.blocks import first_layer
from tests.frontend.net import Net, save, stepwise


def with_tanh(folder: Path) -> Path:
    net = Net()
    return save(stepwise(net, net.op("Tanh", first_layer(net)), 4), folder)


def broken_rule(*_: object) -> list[object]:
    raise TypeError("a string is no flow")


@pytest.mark.invalid_files
def test_a_defect_of_ours_is_called_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = with_tanh(tmp_path)
    monkeypatch.setitem(RULES, "Tanh", broken_rule)
    with pytest.raises(UserError, match="a defect of ssmc: TypeError: a string is no flow"):
        load_model(path)
    (refusal,) = load_model(path, strict=False).unsupported
    assert refusal.op == "Tanh" and isinstance(refusal.cause, TypeError)
    assert run(["compile", str(path), "--target", "cim", "-o", str(tmp_path / "p.ssmx"), "--debug"]) == 2
    assert "in broken_rule" in capsys.readouterr().err
    run(["inspect", str(path), "--json"])
    (told,) = json.loads(capsys.readouterr().out)["unsupported"]
    assert told.keys() == {"node", "op", "reason"} and "--debug" in told["reason"]


@pytest.mark.parametrize("steps", [10, 2500])
def test_a_refusal_leaves_no_thread_behind(tmp_path: Path, steps: int) -> None:
    """A file of many nodes is read by onnxruntime in a thread of its own meanwhile."""
    net = Net()
    x = net.input(["b", "t", 4])
    for _ in range(steps):
        x = net.op("Neg", x)
    y = net.op("LSTM", x, net.const(np.ones((1, 16, 4))), net.const(np.ones((1, 16, 4))), hidden_size=4)
    path = save(stepwise(net, net.op("Squeeze", y, net.ints(1)), 4), tmp_path)
    before = set(threading.enumerate())
    with pytest.raises(UserError, match="not linear in its state") as caught:
        load_model(path)
    assert set(threading.enumerate()) <= before, caught
