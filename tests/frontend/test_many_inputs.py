"""Kernels of several inputs and outputs that only their taps tell: one system, or the filters that they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend.mixing.many_inputs import together
from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, lift
from tests.frontend.net import Net

INPUTS, STATES, OUTPUTS, TAPS = 3, 4, 2, 40


def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.linspace(0.4, 0.9, STATES),
        RNG.standard_normal((INPUTS, STATES)),
        RNG.standard_normal((STATES, OUTPUTS)),
    )


def taps_of_a_system() -> np.ndarray:
    """(outputs, inputs, taps)"""
    a, b, c = matrices()
    return np.einsum("no,nl,in->oil", c, a[:, None] ** np.arange(TAPS), b)


def convolved(net: Net, taps: np.ndarray, length: int | str) -> str:
    x = net.op("Transpose", net.input(["b", length, INPUTS]), perm=[0, 2, 1])
    padded = net.op("Pad", x, net.ints(0, 0, TAPS - 1, 0, 0, 0))
    return str(net.op("Transpose", net.op("Conv", padded, net.const(taps[:, :, ::-1].copy())), perm=[0, 2, 1]))


def test_a_stored_kernel_as_long_as_the_sequence_is_one_system(tmp_path: Path) -> None:
    net = Net()
    y = convolved(net, taps_of_a_system(), TAPS)
    (system,) = lift(net, y, ["b", TAPS, OUTPUTS], tmp_path, (2, TAPS)).systems
    assert (system.kind, system.groups, system.states) == (LINEAR, 1, STATES)


@pytest.mark.parametrize("ends", [False, True])
def test_what_is_no_system_stays_filters(tmp_path: Path, ends: bool) -> None:
    """Numbers at random, and a system's kernel that ends while the sequences go on."""
    net = Net()
    taps = taps_of_a_system() if ends else RNG.standard_normal((OUTPUTS, INPUTS, TAPS))
    y = convolved(net, taps, "t" if ends else TAPS)
    sizes = [(2, 60), (3, 47)] if ends else [(2, TAPS)]
    assert set(kinds(lift(net, y, ["b", "t" if ends else TAPS, OUTPUTS], tmp_path, *sizes))) == {"fir"}


def test_outputs_of_any_size_are_met_by_themselves() -> None:
    taps = taps_of_a_system() * np.array([1.0, 1e-9])[:, None, None]
    fit = together(taps, 1e-6)
    assert fit is not None and fit.system.states == STATES and fit.error <= 1e-6
