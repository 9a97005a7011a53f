"""The toy target, installed as a third party's package would install it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pytest

from ssmc import target


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a target that an entry point of the group `ssmc.backends` gives."""
    point = EntryPoint("toy", "tests.driver.toy_target:TOY", "ssmc.backends")

    def with_toy(*, group: str) -> list[Any]:
        return [*entry_points(group=group), *([point] if group == "ssmc.backends" else [])]

    monkeypatch.setattr(target, "entry_points", with_toy)
    target.backend.cache_clear()
    yield "toy"
    target.backend.cache_clear()
