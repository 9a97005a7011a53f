"""Compiled functions where there is no folder to keep them in."""

from __future__ import annotations

import pytest

from ssmc import jit


def twice(x: float) -> float:
    return x + x


def test_no_folder_to_write_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a read-only installation and home."""
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    assert jit.compiled(twice)(2.0) == 4.0
