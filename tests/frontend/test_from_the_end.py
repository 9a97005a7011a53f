"""Single steps counted from the last one, y[:, -2], of what no system explains as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.checks import lift, on_targets
from tests.frontend.net import Net

INPUTS, OUTPUTS = 3, 2


@pytest.mark.parametrize("places", [-2, [-3, -1]])
@pytest.mark.parametrize("length", ["t", 20])
def test_steps_before_the_last(tmp_path: Path, places: int | list[int], length: int | str) -> None:
    net, rng = Net(), np.random.default_rng(2)
    x = net.input(["b", length, INPUTS])
    h = net.op("Tanh", net.op("CumSum", x, net.const(np.int64(1))))
    taken = net.op("Gather", h, net.const(np.asarray(places)), axis=1)
    y = net.op("Tanh", net.op("MatMul", taken, net.const(rng.standard_normal((INPUTS, OUTPUTS)))))
    dims: list[int | str] = ["b", OUTPUTS] if isinstance(places, int) else ["b", 2, OUTPUTS]
    sizes = [(2, 20)] if length == 20 else [(2, 12), (3, 30)]
    model = lift(net, y, dims, tmp_path, *sizes)
    on_targets(model, 2, 20)
