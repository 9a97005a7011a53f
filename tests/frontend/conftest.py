"""Each test draws the same numbers, whichever ran before it; no rule may break on a node of a good file."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest

from tests.frontend.blocks import RNG


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    RNG.bit_generator.state = np.random.default_rng(11).bit_generator.state


@pytest.fixture(autouse=True)
def _no_defects(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever reading of a file it was that a rule broke in, and whether or not another one held."""
    failures: list[str] = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: failures.append(record.getMessage() + f": {record.exc_info}")  # type: ignore[method-assign]
    log = logging.getLogger("ssmc.frontend")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield
    log.removeHandler(handler)
    log.setLevel(level)
    assert request.node.get_closest_marker("invalid_files") or not failures, failures
