"""The first-order model of wire resistance against the solved resistor network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import splu

from backends.cim.simulate.wires import attenuation, drops


def solved(g: Any, ohms: float) -> Any:
    """(rows, columns): what conducts from each row's driver to each column's end, uS, by nodal analysis.

    Unknown are the voltages of each cell's row node and column node. Drivers are at the rows' left ends, column ends at
    zero volts below the last row; a wire lies between neighbours and before the first and behind the last cell.
    """
    rows, cols = g.shape
    wire, device = 1.0 / ohms, g * 1e-6
    size, drive = rows * cols, np.zeros((2 * rows * cols, rows))
    net: Any = lil_matrix((2 * size, 2 * size))

    def joined(a: int, b: int, conductance: float) -> None:
        for i, j in ((a, b), (b, a)):
            net[i, i] += conductance
            net[i, j] -= conductance

    for i, j in np.ndindex(rows, cols):
        at = i * cols + j
        joined(at, size + at, device[i, j])
        if j + 1 < cols:
            joined(at, at + 1, wire)
        if i + 1 < rows:
            joined(size + at, size + at + cols, wire)
    for i in range(rows):
        net[i * cols, i * cols] += wire
        drive[i * cols, i] = wire
    for j in range(cols):
        at = size + (rows - 1) * cols + j
        net[at, at] += wire
    voltages = splu(net.tocsc()).solve(drive)
    return voltages[size + (rows - 1) * cols :].T * wire * 1e6


@pytest.mark.parametrize(("ohms", "bound"), [(0.1, 1e-6), (1.0, 1e-4), (5.0, 1e-3)])
def test_first_order_against_the_network(ohms: float, bound: float) -> None:
    """32 x 32 devices of 1 to 40 uS: the error of a column's whole current. It grows with the square of the drop."""
    g = np.random.default_rng(1).uniform(1, 40, size=(32, 32))
    exact = solved(g, ohms)
    ours = g * attenuation(g[None, None], ohms)[0, 0]
    error = np.abs(ours.sum(0) - exact.sum(0)).max() / exact.sum(0).max()
    dropped = np.abs(g.sum(0) - exact.sum(0)).max() / exact.sum(0).max()
    assert error < bound and error < 0.01 * dropped
    assert np.abs(ours - exact).max() / exact.max() < 3 * bound


def test_the_first_order_is_the_network_s() -> None:
    g = np.random.default_rng(2).uniform(1, 40, size=(5, 7))
    ohms = 1e-3
    slope = (g - solved(g, ohms)) / (ohms * 1e-6)
    assert slope == pytest.approx(g * drops(g), rel=1e-3)


def test_devices_lie_as_they_do_in_the_array() -> None:
    g = np.random.default_rng(3).uniform(1, 40, size=(2, 3, 4, 5))  # devices, slices, rows, weights
    found = attenuation(g, 2.0)
    flat = np.array([[g[d, s, i, j] for j in range(5) for s in range(3) for d in range(2)] for i in range(4)])
    factor = 1 / (1 + 2e-6 * drops(flat))
    assert found[1, 2, 3, 4] == pytest.approx(factor[3, 4 * 6 + 2 * 2 + 1])
    assert found[0, 1, 2, 3] == pytest.approx(factor[2, 3 * 6 + 1 * 2])
