"""Complex parallel scans of which one part alone depends on the data, and one part alone is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import RNG
from tests.frontend.checks import kinds, lift
from tests.frontend.disguise_parallel import _tree
from tests.frontend.net import Net

STEPS, STATES = 16, 3


@pytest.mark.parametrize("driven", [0, 1])
@pytest.mark.parametrize("seen", [0, 1])
def test_one_part_driven_and_one_part_read(tmp_path: Path, driven: int, seen: int) -> None:
    """The part that is not driven is made of pairs of steps, never of all of them."""
    net = Net()
    pole = RNG.uniform(0.7, 0.95, STATES) * np.exp(1j * RNG.uniform(0.3, 2.0, STATES))
    u = net.op("MatMul", net.input([2, STEPS, 2]), net.const(RNG.standard_normal((2, STATES))))
    parts = [net.const(np.zeros((2, STEPS, STATES)))] * 2
    parts[driven] = u
    states = _tree(net, np.repeat(pole[None], STEPS, axis=0), parts)
    y = net.op("MatMul", states[seen], net.const(RNG.standard_normal((STATES, 2))))
    model = lift(net, y, [2, STEPS, 2], tmp_path, (2, STEPS))
    assert kinds(model) == ["linear time-invariant"] and model.systems[0].states <= 2 * STATES
