"""Each test draws the same numbers, whichever ran before it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.frontend.blocks import RNG


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    RNG.bit_generator.state = np.random.default_rng(11).bit_generator.state
