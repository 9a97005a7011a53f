"""Direct terms beside convolutions: an input of which only the present step counts is no filter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, lift, on_targets
from tests.frontend.net import Net

WIDTH, TAPS = 3, 24


@pytest.mark.parametrize("static", [False, True])
def test_a_direct_term_beside_filters_is_no_filter(tmp_path: Path, static: bool) -> None:
    """conv(u) + D u, as S4 writes it; as far as a fixed length goes one kernel is a system, the others are none."""
    length: int | str = TAPS if static else "l"
    net = Net()
    x = net.input(["n", length, WIDTH])
    u = net.op("Transpose", x, perm=[0, 2, 1])
    kernel, lag = RNG.standard_normal((WIDTH, 1, TAPS)), np.arange(TAPS)[::-1]
    kernel[1, 0] = 0.9**lag * np.cos(0.3 * lag)
    y = net.op("Conv", u, net.const(kernel), group=WIDTH, pads=[TAPS - 1, 0])
    y = net.op("Add", y, net.op("Mul", u, net.const(RNG.standard_normal((WIDTH, 1)))))
    y = net.op("Transpose", y, perm=[0, 2, 1])
    model = lift(net, y, ["n", length, WIDTH], tmp_path, (2, TAPS), (3, TAPS if static else 40))
    assert sorted(kinds(model)) == (sorted([LINEAR, "fir"]) if static else ["fir"])
    on_targets(model, 2, TAPS)
