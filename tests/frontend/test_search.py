"""How long it is looked for what a region is: a parallel scan whose every part may be tried by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssmc.frontend import load_model
from ssmc.frontend.source import effort
from ssmc.frontend.source.effort import Probing
from tests.frontend import disguise_parallel
from tests.frontend.checks import refused
from tests.frontend.net import save
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
