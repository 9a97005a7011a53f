"""How long it is looked for what a region is: a parallel scan whose every part may be tried by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend import load_model
from ssmc.frontend.source import effort
from ssmc.frontend.source.effort import Probing
from tests.frontend import disguise_parallel
from tests.frontend.checks import refused
from tests.frontend.net import Net, save
from tests.frontend.test_disguises import random_system


def scan(folder: Path, states: int) -> Path:
    system = random_system(3, 1, states, 2, 2, True)
    return save(disguise_parallel.as_tree_scan(system, 16, False), folder)


def test_the_search_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "MAX_PROBED", 1000)
    monkeypatch.setattr(effort, "MORE_PROBED", 0)
    refused(scan(tmp_path, 4), "within 1000 runs of a node, and it is searched no further")


def test_what_is_no_system_is_told_by_few_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most parts of such a scan are linear, and none but the last treats all steps alike."""
    made: list[int] = []
    monkeypatch.setattr(Probing, "run", lambda self, nodes: made.append(nodes))
    load_model(scan(tmp_path, 6))
    assert sum(made) < 60_000


def test_what_is_no_recurrence_is_told_by_few_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written out step by step, one of them with a square: read along its features, it is many streams."""
    net = Net()
    x = net.input(["b", 12, 3])
    decay, mixed = net.const(np.full(3, 0.8)), net.const((np.arange(9.0).reshape(3, 3) % 4 - 1) * 0.3)
    state, found = "", []
    for k in range(12):
        u = net.op("Gather", x, net.const(np.int64(k)), axis=1)
        u = net.op("Mul", u, u) if k == 5 else u
        state = net.op("MatMul", net.op("Add", net.op("Mul", decay, state), u), mixed) if state else u
        found.append(net.op("Unsqueeze", state, net.ints(1)))
    made: list[int] = []
    monkeypatch.setattr(Probing, "run", lambda self, nodes: made.append(nodes))
    load_model(save(net.model([(net.op("Concat", *found, axis=1), ["b", 12, 3])]), tmp_path))
    assert sum(made) < 30_000
