"""What multiplies states: which blocks of two are complex numbers."""

from __future__ import annotations

import numpy as np
import pytest

from ssmc.frontend.states.transition import Transition


@pytest.mark.parametrize(
    ("block", "number"),
    [
        ([[0.5, -0.25], [0.25, 0.5]], 0.5 + 0.25j),
        ([[0.5, 0.25], [-0.25, 0.5]], 0.5 - 0.25j),
        ([[0.5, 0.25], [0.25, 0.5]], None),  # two real poles, 0.75 and 0.25
        ([[0.5, -0.25], [0.25, 0.4]], None),
    ],
)
def test_a_pair_is_a_complex_number_where_it_turns_and_shrinks(
    block: list[list[float]], number: complex | None
) -> None:
    found = Transition(np.array([[0, 1]]), np.array(block).reshape(1, 1, 2, 2), np.zeros((1, 2))).complex_pairs
    assert (found is None) if number is None else (found is not None and np.allclose(found, number))
